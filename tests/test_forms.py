"""Items as JSON, MessagePack, text and bytes: what comes back is what was there."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmkv import Store, forms
from shmkv.forms import FormError, NoFormError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.binary()
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(st.characters(codec="utf-8")) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = st.text(st.characters(codec="utf-8"), max_size=30) | st.binary(max_size=30)


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.slow
@given(key=KEYS, value=VALUES, ttl=st.none() | st.floats(0.5, 1e6))
def test_a_form_gives_the_item_back(key: str | bytes, value: Any, ttl: float | None) -> None:
    with Store(size="1MiB") as store:
        store.put(key, value, ttl=ttl)
        record = store._fetch(key)
        assert record is not None
        now = store._now_ms()
        text = json.dumps(forms.form_of(key, record, now), allow_nan=False)
        for form in (json.loads(text), forms.packed_form_of(key, record, now)):
            back = forms.item_of(form)
            assert same(back[0], key)
            assert forms.record_of(back, 0)[:3] == record[:3]
            store._put_items([(b"copy", *back[1:])])
            assert same(store[b"copy"], value)
            assert (back[2] is None) == (ttl is None)
            assert back[2] is None or abs(back[2] - (ttl or 0)) < 0.5


def record_of(value: Any, **options: Any) -> Any:
    with Store(size="1MiB", codec=options.pop("codec", "safe")) as store:
        store.put("key", value, **options)
        return store._fetch("key")


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        (b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        ("tä\n", "tä\n".encode(), "text/plain; charset=utf-8"),
        (12, b"12", "application/json"),
        (-(1 << 70), b"-1180591620717411303424", "application/json"),
        (True, b"true", "application/json"),
        (None, b"null", "application/json"),
        (1.5, b"1.5", "application/json"),
        ({"a": ["ü", 1]}, '{"a":["ü",1]}'.encode(), "application/json"),
    ],
)
def test_what_a_client_is_shown(value: object, body: bytes, content_type: str) -> None:
    assert forms.shown(record_of(value)) == (body, content_type)


def test_bytes_keep_their_content_type() -> None:
    assert forms.shown(record_of(b"<p>", content_type="text/html")) == (b"<p>", "text/html")


def test_what_the_json_codec_stored_is_json() -> None:
    record = record_of({"a": [1]}, codec="json")
    assert json.loads(forms.shown(record)[0]) == {"a": [1]}
    assert forms.form_of("k", record, 0)["value"] == {"a": [1]}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ((1, 2), "a tuple"),
        ({1}, "a set"),
        ({1: 2}, "a dict with a key of type int"),
        ([[b"x"]], "a bytes"),
        (math.inf, "the float inf"),
        ({"when": datetime(2026, 1, 1, tzinfo=timezone.utc)}, "a datetime"),
        ([timedelta(1)], "a timedelta"),
        (1 << 5000, "an int of 5001 bits"),
    ],
)
def test_what_has_no_json_is_said_and_takes_another_form(value: object, named: str) -> None:
    record = record_of(value)
    with pytest.raises(NoFormError, match=named):
        forms.shown(record)
    form = forms.form_of("k", record, 0)
    assert form["python"] == repr(value)
    assert stored_again(form)[0:2] == record[0:2]
    assert "python" not in forms.exact_form_of("k", record, 0)


def stored_again(form: dict[str, Any]) -> Any:
    """The record of an item that is stored from its form."""
    with Store(size="1MiB") as store:
        store._put_items([forms.item_of(json.loads(json.dumps(form)))])
        return store._fetch("k")


class Reversing:
    """A codec of one's own."""

    def encode(self, value: Any) -> bytes:
        return repr(value).encode()[::-1]

    def decode(self, data: bytes) -> Any:
        return data[::-1].decode()


STORED: list[tuple[Any, dict[str, Any]]] = [
    ({1: object}, {"codec": "pickle"}),
    (4j, {"codec": "pickle"}),
    ([1.0, {"a": None}], {"codec": "json"}),
    ([1], {"codec": Reversing()}),
    ({b"a", b"b", b"c", b"d"}, {}),
    (frozenset({1, "x"}), {}),
    (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=-3))), {}),
    (-0.0, {}),
    (1 << 70_000, {}),
    (b"typed", {"content_type": "a/b"}),
    (b"typed", {"content_type": ""}),
    (b"", {}),
    ("", {}),
]


@pytest.mark.parametrize(("value", "options"), STORED, ids=range(len(STORED)))
def test_an_exact_form_stores_the_very_bytes_again(value: Any, options: dict[str, Any]) -> None:
    record = record_of(value, **options)
    assert stored_again(forms.exact_form_of("k", record, 0))[:3] == record[:3]


def test_a_value_as_python_writes_it() -> None:
    for value in ((1, "x"), {1}, [None, True], {"a": b"\0"}, "text", b"bytes", 1.5, timedelta(1), math.inf):
        assert forms.python_of(record_of(value)) == repr(value)
    assert forms.python_of(record_of({"a": [1]}, codec="json")) == "{'a': [1]}"
    assert forms.python_of(record_of(b"typed", content_type="a/b")) == "b'typed'"
    assert forms.python_of(record_of(4j, codec="pickle")).startswith("<pickle of ")
    assert forms.python_of(record_of([1], codec=Reversing())) == "<value of a codec object of 3 bytes>"
    assert forms.python_of(record_of(1 << 70_000)) == hex(1 << 70_000)
    nested = forms.python_of(record_of([1 << 70_000]))
    assert nested.startswith("<list of ")
    assert "digits" in nested
    long = forms.python_of(record_of(tuple(range(20_000))))
    assert long.startswith("(0, 1, 2, ")
    assert long.endswith("…")
    assert len(long) < 70_000


@pytest.mark.parametrize("record", [(99, b"of a later release", None, 1, 0), (10, b"\x05", None, 1, 0)])
def test_what_cannot_be_read_stops_nobody(record: Any) -> None:
    assert forms.python_of(record).startswith("<t")
    with pytest.raises(NoFormError, match="cannot be read"):
        forms.shown(record)
    form = forms.form_of("k", record, 0)
    assert form["python"] == forms.python_of(record)
    with pytest.raises(FormError, match="safe: "):
        forms.item_of(form)


def test_what_is_stored_again_is_judged_first() -> None:
    with Store(size="1MiB") as store:
        for payload, kind in ((b"1", 3), (b"\xff", 2), (b"x", 99), (b"\0x", 17), (b"x", -1), (b"x", 1 << 80)):
            with pytest.raises((ValueError, OverflowError)):
                store._put_items([("k", payload, None, kind)])
        with pytest.raises(TypeError):
            store._put_items([("k", "text", None, 2)])
        with pytest.raises(TypeError, match="content_type must be str"):
            store.put("k", b"cos", content_type=33)  # type: ignore[arg-type]
        assert len(store) == 0


def test_bytes_have_no_json() -> None:
    with pytest.raises(NoFormError, match="bytes"):
        forms.json_of(record_of(b"x"))


def test_a_pickle_is_carried_but_never_loaded() -> None:
    record = record_of({1: object}, codec="pickle")
    with pytest.raises(NoFormError, match="pickle"):
        forms.shown(record)
    form = forms.form_of("k", record, 0)
    assert form["codec"] == "pickle"
    assert forms.is_code(forms.item_of(form))
    assert stored_again({**form, "stored": ""})[:2] == (33, b""), "whatever its bytes are"


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "an item is an object"),
        ({}, "a key is"),
        ({"key": "a"}, "exactly one of"),
        ({"key": "a", "value": 1, "base64": ""}, "exactly one of"),
        ({"key": "a", "key_base64": "", "value": 1}, "a key is"),
        ({"key": 5, "value": 1}, "a key is a string, not 5"),
        ({"key_base64": "?", "value": 1}, "key_base64 is no base64"),
        ({"key": "a", "base64": "ä"}, "base64 is no base64"),
        ({"key": "a", "base64": 7}, "base64 is no base64"),
        ({"key": "a", "safe": ""}, "safe holds nothing"),
        ({"key": "a", "safe": "AQ"}, "safe is no base64"),
        ({"key": "a", "safe": "CQk="}, "safe: "),
        ({"key": "a", "safe": "IQ=="}, "safe: "),
        ({"key": "a", "safe": "EQBh"}, "safe: "),
        ({"key": "a", "codec": "pickle"}, "stored is no base64"),
        ({"key": "a", "codec": "marshal", "stored": ""}, "codec is one of"),
        ({"key": "a", "codec": ["pickle"], "stored": ""}, "codec is one of"),
        ({"key": "a", "codec": "json", "stored": "ew=="}, "stored: "),
        ({"key": "a", "codec": "pickle", "stored": "", "content_type": "a/b"}, "only bytes have one"),
        ({"key": "a", "python": "(1, 2)"}, "exactly one of"),
        ({"key": "a", "value": 1, "ttl": "5"}, "ttl is a number of seconds, not '5'"),
        ({"key": "a", "value": 1, "ttl": True}, "ttl is a number"),
        ({"key": "a", "value": "x", "content_type": "a/b"}, "only bytes have one"),
        ({"key": "a", "base64": "", "content_type": 7}, "content_type is a string"),
        ({"key": "a", "value": 1, "expires": 5}, "no 'expires'"),
        ({"key": "a", "value": 1, "x" * 500: 5}, r"x\.\.\."),
    ],
)
def test_what_is_no_form_is_refused(form: object, message: str) -> None:
    with pytest.raises(FormError, match=message):
        forms.item_of(form)

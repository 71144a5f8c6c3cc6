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
            assert same(back[1], value)
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
    assert forms.item_of(form)[1] == value


def test_bytes_have_no_json() -> None:
    with pytest.raises(NoFormError, match="bytes"):
        forms.json_of(record_of(b"x"))


def test_a_pickle_is_told_but_never_read() -> None:
    record = record_of({1: object}, codec="pickle")
    with pytest.raises(NoFormError, match="pickle"):
        forms.shown(record)
    form = forms.form_of("k", record, 0)
    assert form["codec"] == "pickle"
    with pytest.raises(FormError, match="pickle"):
        forms.item_of(form)


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

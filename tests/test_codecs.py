"""Codecs: "safe" is the default, "pickle" and "json" are said on the handle, an object may be one."""

from __future__ import annotations

import collections
import datetime as dt
import importlib.util
from typing import Any

import pytest
from helpers import check, repr_without_address

from shmkv import CodecError, Store, _core

with_json = pytest.mark.skipif(
    _core.FREE_THREADED and importlib.util.find_spec("msgspec") is None,
    reason="msgspec cannot be had for this interpreter without a GIL",
)
NATIVE = [b"bytes", "text", 5, 2**70, 1.5, True, None]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


class Rot13:
    """A codec object: encode(value) -> bytes, decode(bytes) -> value."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, list):
            raise TypeError("lists only")
        return ",".join(value).encode()[::-1]

    def decode(self, data: bytes) -> Any:
        return data[::-1].decode().split(",")


@pytest.fixture
def pickled(store: Store) -> Any:
    handle = Store.attach(store.name, codec="pickle")
    yield handle
    handle.close()


def test_pickle_takes_any_object(pickled: Store) -> None:
    for value in [Point(3), {Point(1).x: Point(2)}, collections.OrderedDict(a=1), {1, 2}, range(4), dt.time(1)]:
        pickled["k"] = value
        assert pickled["k"] == value
        assert type(pickled["k"]) is type(value)


def test_a_handle_without_pickle_raises_on_meeting_one(store: Store, pickled: Store) -> None:
    pickled["k"] = Point(3)
    for look in (lambda: store["k"], lambda: store.get("k"), lambda: store.gets("k"), lambda: store.get_many(["k"])):
        with pytest.raises(CodecError) as met:
            look()
        assert isinstance(met.value, TypeError)
        assert "pickle" in str(met.value)
    assert "k" in store
    assert len(store) == 1
    assert list(store) == ["k"]
    assert pickled["k"] == Point(3)


def test_pop_and_popitem_leave_what_they_cannot_decode(store: Store, pickled: Store) -> None:
    pickled["k"] = Point(3)
    with pytest.raises(CodecError):
        store.pop("k")
    with pytest.raises(CodecError):
        store.pop("k", "default")
    with pytest.raises(CodecError):
        store.popitem()
    with pytest.raises(CodecError):
        store.setdefault("k", 1)
    assert pickled["k"] == Point(3)
    assert store.delete("k") is True


@pytest.mark.parametrize(
    "codec", ["safe", "pickle", pytest.param("json", marks=with_json), Rot13()], ids=repr_without_address
)
def test_native_types_need_no_codec(store: Store, codec: Any) -> None:
    with Store.attach(store.name, codec=codec) as handle:
        for value in NATIVE:
            handle["k"] = value
            assert store["k"] == value
            assert type(store["k"]) is type(value)
            assert handle["k"] == value
            assert type(handle["k"]) is type(value)
        handle["n"] = 5
        assert handle.incr("n") == 6
        assert store.incr("n") == 7


@with_json
def test_json(store: Store) -> None:
    with Store.attach(store.name, codec="json") as handle:
        handle["k"] = {"a": [1, None, "x", 1.5], "b": {}}
        assert handle["k"] == {"a": [1, None, "x", 1.5], "b": {}}
        for unfit in (object(), Point(1)):
            with pytest.raises(TypeError):
                handle["k"] = unfit
        assert handle["k"]["b"] == {}
        with pytest.raises(CodecError):
            store["k"]


@with_json
@pytest.mark.parametrize(
    "value",
    [(1, 2), {1, 2}, {1: "a"}, dt.date(2024, 1, 1), [float("nan")], [b"x"], [(1,)], {"a": 2**70}, [1.0], ["\ud800"]],
    ids=repr_without_address,
)
def test_json_alters_nothing(store: Store, value: Any) -> None:
    """A value comes back equal and of the same type, or put raises TypeError."""
    with Store.attach(store.name, codec="json") as handle:
        try:
            handle["k"] = value
        except TypeError:
            assert "k" not in handle
        else:
            got = handle["k"]
            assert type(got) is type(value)
            assert repr(got) == repr(value)


def test_codec_object(store: Store) -> None:
    with Store.attach(store.name, codec=Rot13()) as handle:
        handle["k"] = ["a", "b"]
        assert handle["k"] == ["a", "b"]
        assert handle.get_many(["k"]) == {"k": ["a", "b"]}
        handle.put_many({"l": ["c"]})
        assert handle.pop("l") == ["c"]
        with pytest.raises(TypeError):
            handle["k"] = {"not": "a list"}
        assert handle["k"] == ["a", "b"]
    with pytest.raises(CodecError):
        store["k"]


def test_codec_that_raises_changes_nothing(store: Store) -> None:
    class Broken:
        def encode(self, value: Any) -> bytes:
            if value == ["fine"]:
                return b"fine"
            raise RuntimeError("from encode")

        def decode(self, data: bytes) -> Any:
            raise RuntimeError("from decode")

    with Store.attach(store.name, codec=Broken()) as handle:
        handle["k"] = ["fine"]
        with pytest.raises(RuntimeError, match="from encode"):
            handle["k"] = ["other"]
        with pytest.raises(RuntimeError, match="from encode"):
            handle.put_many({"a": 1, "k": ["other"]})
        with pytest.raises((RuntimeError, CodecError)):
            handle.pop("k")
        with pytest.raises((RuntimeError, CodecError)):
            handle.popitem()
        assert list(handle) == ["k"]


def test_codec_must_give_bytes(store: Store) -> None:
    class Texts:
        def encode(self, value: Any) -> Any:
            return "text"

        def decode(self, data: bytes) -> Any:
            return None

    with Store.attach(store.name, codec=Texts()) as handle, pytest.raises(TypeError):
        handle["k"] = []


def test_codec_may_use_the_store(store: Store) -> None:
    """Values are encoded before and decoded after the locked step."""

    class Recursive:
        def encode(self, value: Any) -> bytes:
            store.incr("encoded")
            store.put_many({"x": 1, "y": 2})
            return b"e"

        def decode(self, data: bytes) -> Any:
            store.incr("decoded")
            store["k2"] = 1
            return ["value"]

    with Store.attach(store.name, codec=Recursive()) as handle:
        handle["k"] = []
        handle.put_many({"k": [], "other": []})
        assert handle["k"] == ["value"]
        assert handle.get_many(["k", "other"]) == {"k": ["value"], "other": ["value"]}
        assert handle.pop("k") == ["value"]
        assert len(dict(handle.items())) == len(handle)
    assert store["encoded"] == 3
    assert store["decoded"] >= 4
    check(store)


@pytest.mark.parametrize("codec", ["nonsense", 5, object(), ""], ids=repr_without_address)
def test_unknown_codec(store: Store, codec: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Store.attach(store.name, codec=codec)

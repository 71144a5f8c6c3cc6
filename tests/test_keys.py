"""Keys: `str` or `bytes` of 0 to 65,535 bytes; others cannot be stored, and are never there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers import repr_without_address, temporary_store
from hypothesis import given, settings
from hypothesis import strategies as st

from shmkv import KeyTooLargeError, Store

STORING: dict[str, Callable[[Store, Any], Any]] = {
    "setitem": lambda s, k: s.__setitem__(k, 1),
    "put": lambda s, k: s.put(k, 1),
    "set": lambda s, k: s.set(k, 1),
    "add": lambda s, k: s.add(k, 1),
    "replace": lambda s, k: s.replace(k, 1),
    "setdefault": lambda s, k: s.setdefault(k, 1),
    "update": lambda s, k: s.update([(k, 1)]),
    "put_many": lambda s, k: s.put_many([("fine", 1), (k, 1)]),
    "incr": lambda s, k: s.incr(k),
    "decr": lambda s, k: s.decr(k),
    "cas": lambda s, k: s.cas(k, 1, 1),
}

# name -> (call, what it answers where the key is absent; an exception class = raises it)
LOOKING: dict[str, tuple[Callable[[Store, Any], Any], Any]] = {
    "getitem": (lambda s, k: s[k], KeyError),
    "delitem": (lambda s, k: s.__delitem__(k), KeyError),
    "contains": (lambda s, k: k in s, False),
    "get": (lambda s, k: s.get(k, "default"), "default"),
    "gets": (lambda s, k: s.gets(k), KeyError),
    "ttl": (lambda s, k: s.ttl(k), KeyError),
    "pop": (lambda s, k: s.pop(k, "default"), "default"),
    "pop without default": (lambda s, k: s.pop(k), KeyError),
    "delete": (lambda s, k: s.delete(k), False),
    "touch": (lambda s, k: s.touch(k, 5), False),
    "persist": (lambda s, k: s.persist(k), False),
    "get_many": (lambda s, k: s.get_many([k]), {}),
    "delete_many": (lambda s, k: s.delete_many([k]), 0),
}

WRONG_TYPES = [1, 1.5, None, True, (1, 2), frozenset(), memoryview(b"a"), object()]


@pytest.mark.parametrize(
    "key", ["", b"", "a", b"a", "ä€𝄞", b"\xff\x00", "nul\0nul", "x" * 65_535, b"x" * 65_535, "€" * 21_845]
)
def test_keys_come_back_as_what_they_were(store: Store, key: str | bytes) -> None:
    store[key] = 1
    assert store[key] == 1
    assert key in store
    (back,) = store
    assert back == key
    assert type(back) is type(key)
    (popped,) = [store.popitem()[0]]
    assert popped == key
    assert type(popped) is type(key)


def test_str_and_bytes_are_two_keys(store: Store) -> None:
    store["a"], store[b"a"] = 1, 2
    assert (store["a"], store[b"a"], len(store)) == (1, 2, 2)
    assert store.get_many(["a", b"a"]) == {"a": 1, b"a": 2}
    del store["a"]
    assert "a" not in store
    assert b"a" in store


def test_equal_keys_of_other_identity(store: Store) -> None:
    store["".join(["us", "er"])] = 1
    assert store["".join(["u", "ser"])] == 1
    latin, wide = "é", "é𝄞"[0]
    store[latin] = 2
    assert store[wide] == 2
    assert "e\u0301" not in store


@pytest.mark.parametrize("call", STORING)
@pytest.mark.parametrize("key", WRONG_TYPES, ids=repr_without_address)
def test_other_types_cannot_be_stored(store: Store, call: str, key: Any) -> None:
    with pytest.raises(TypeError):
        STORING[call](store, key)
    assert len(store) == 0


@pytest.mark.parametrize("call", STORING)
@pytest.mark.parametrize("key", ["x" * 65_536, b"x" * 65_536, "€" * 21_846], ids=["str", "bytes", "utf-8"])
def test_longer_keys_cannot_be_stored(store: Store, call: str, key: Any) -> None:
    with pytest.raises(KeyTooLargeError) as refused:
        STORING[call](store, key)
    assert isinstance(refused.value, ValueError)
    assert "65" in str(refused.value)
    assert len(store) == 0


@pytest.mark.parametrize("call", STORING)
@pytest.mark.parametrize("key", ["\ud800", "a\udfffb"], ids=ascii)
def test_lone_surrogates_cannot_be_stored(store: Store, call: str, key: str) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        STORING[call](store, key)
    assert len(store) == 0


@pytest.mark.parametrize("call", LOOKING)
@pytest.mark.parametrize(
    "key", [*WRONG_TYPES, "x" * 65_536, b"x" * 70_000, "\ud800"], ids=lambda k: ascii(repr_without_address(k))[:20]
)
def test_what_cannot_be_stored_is_absent(store: Store, call: str, key: Any) -> None:
    store["fine"] = 1
    look, answer = LOOKING[call]
    if isinstance(answer, type) and issubclass(answer, Exception):
        with pytest.raises(answer):
            look(store, key)
    else:
        assert look(store, key) == answer
    assert dict(store) == {"fine": 1}


@pytest.mark.parametrize("call", [*STORING, *LOOKING])
@pytest.mark.parametrize("key", [[], {}, set(), bytearray(b"a")], ids=repr_without_address)
def test_unhashable_keys_are_type_errors(store: Store, call: str, key: Any) -> None:
    run = STORING[call] if call in STORING else LOOKING[call][0]
    with pytest.raises(TypeError):
        run(store, key)
    assert len(store) == 0


def test_hash_is_not_called_with_effect(store: Store) -> None:
    class Loud:
        def __hash__(self) -> int:
            raise RuntimeError("from __hash__")

    with pytest.raises((TypeError, RuntimeError)):
        store[Loud()] = 1  # type: ignore[index]
    assert len(store) == 0


@settings(max_examples=40)
@given(st.dictionaries(st.one_of(st.text(max_size=300), st.binary(max_size=300)), st.integers(), max_size=60))
def test_any_keys_as_in_a_dict(items: dict[str | bytes, int]) -> None:
    with temporary_store(size="2MiB") as store:
        for key, value in items.items():
            store[key] = value
        assert dict(store) == items
        assert {type(key) for key in store} == {type(key) for key in items}
        assert store.get_many(items) == items

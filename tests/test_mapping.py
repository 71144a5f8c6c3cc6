"""`Store` is a MutableMapping that behaves as a dict, and each call is atomic."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from helpers import MIB, Forked

from shmkv import ClosedStoreError, Store, ValueTooLargeError


class Zlib:
    """A codec of one's own, which counts."""

    def __init__(self, level: int = 6) -> None:
        self.level = level
        self.encoded = 0

    def encode(self, value: Any) -> bytes:
        self.encoded += 1
        return zlib.compress(json.dumps(value).encode(), self.level)

    def decode(self, data: bytes) -> Any:
        return json.loads(zlib.decompress(data))


def test_is_a_mutable_mapping(store: Store) -> None:
    assert isinstance(store, MutableMapping)


def test_set_get_delete(store: Store) -> None:
    store["a"] = 1
    assert store["a"] == 1
    store["a"] = b"two"
    assert store["a"] == b"two"
    del store["a"]
    with pytest.raises(KeyError) as missing:
        store["a"]
    assert missing.value.args == ("a",)
    with pytest.raises(KeyError):
        del store["a"]


def test_contains_and_len(store: Store) -> None:
    assert len(store) == 0
    assert not store
    store["a"] = None
    assert "a" in store
    assert "b" not in store
    assert len(store) == 1
    assert store
    store["a"] = 2
    assert len(store) == 1


def test_get_with_default(store: Store) -> None:
    store["none"] = None
    assert store.get("none", 7) is None
    assert store.get("missing") is None
    assert store.get("missing", 7) == 7
    assert store.get("missing", default=8) == 8


@pytest.mark.parametrize("call", ["put", "set"])
def test_put_and_set_are_one(store: Store, call: str) -> None:
    assert getattr(store, call)("a", 1) is None
    assert store["a"] == 1


def test_add_and_replace(store: Store) -> None:
    assert store.replace("a", 1) is False
    assert "a" not in store
    assert store.add("a", 1) is True
    assert store.add("a", 2) is False
    assert store["a"] == 1
    assert store.replace("a", 3) is True
    assert store["a"] == 3


def test_delete_tells_whether_it_was_there(store: Store) -> None:
    store["a"] = 1
    assert store.delete("a") is True
    assert store.delete("a") is False


def test_pop(store: Store) -> None:
    store["a"] = [1, 2]
    assert store.pop("a") == [1, 2]
    assert "a" not in store
    assert store.pop("a", None) is None
    assert store.pop("a", "default") == "default"
    with pytest.raises(KeyError):
        store.pop("a")
    with pytest.raises(TypeError):
        store.pop("a", 1, 2)


def test_popitem_empties_the_store(store: Store) -> None:
    expected: dict[str | bytes, Any] = {f"k{i}": i for i in range(300)}
    store.update(expected)
    got = dict(store.popitem() for _ in range(300))
    assert got == expected
    assert len(store) == 0
    with pytest.raises(KeyError):
        store.popitem()


def test_setdefault(store: Store) -> None:
    assert store.setdefault("a", [1]) == [1]
    assert store.setdefault("a", [2]) == [1]
    assert store.setdefault("n") is None
    assert store.setdefault("n", 5) is None


def test_setdefault_gives_a_copy_of_what_is_stored(store: Store) -> None:
    mine: list[int] = []
    got = store.setdefault("a", mine)
    assert got == mine
    assert got is not mine
    got.append(1)
    assert store["a"] == []


def test_update_takes_what_dict_update_takes(store: Store) -> None:
    store.update({"a": 1, "b": 2})
    store.update([("b", 3), ("c", 4)])
    store.update(pair for pair in [("d", 5)])
    store.update({"e": 6}, f=7)
    store.update(g=8)
    store.update()
    assert dict(store) == {"a": 1, "b": 3, "c": 4, "d": 5, "e": 6, "f": 7, "g": 8}
    with pytest.raises(TypeError):
        store.update(5)  # type: ignore[call-overload]
    with pytest.raises((TypeError, ValueError)):
        store.update([("a", 1, 2)])  # type: ignore[list-item]
    assert store["a"] == 1


def test_update_from_another_store(store: Store, make_store: Any) -> None:
    other = make_store()
    other["x"] = 1
    store.update(other)
    assert dict(store) == {"x": 1}


def test_update_beyond_the_batch_limit(store: Store) -> None:
    store.update((f"{i}", i) for i in range(70_000))
    assert len(store) == 70_000
    assert all(store[f"{i}"] == i for i in (0, 65_535, 65_536, 69_999))


@pytest.mark.parametrize(
    "value",
    [bytes(60_000), "x" * 60_000, [bytes(60_000)], {"deep": [({"er": "x" * 60_000},)]}, list(range(6_700))],
    ids=["bytes", "str", "list", "dict", "ints"],
)
@pytest.mark.parametrize("codec", ["safe", "pickle"])
def test_update_takes_an_iterator_a_batch_at_a_time(make_store: Any, value: Any, codec: str) -> None:
    """What it yields may be more than fits into memory: one batch is stored before the next one is asked for."""
    store = make_store(size="16MiB", codec=codec)
    held: list[int] = []

    def pairs() -> Iterator[tuple[str, Any]]:
        for i in range(150):
            held.append(i - len(store))
            yield f"{i}", value

    store.update(pairs())
    assert len(store) == 150
    assert store["0"] == store["149"] == value
    assert max(held) <= 4 * MIB // 50_000


def test_update_counts_keys_as_well(make_store: Any) -> None:
    store = make_store(size="16MiB")
    held: list[int] = []

    def pairs() -> Iterator[tuple[str, None]]:
        for i in range(150):
            held.append(i - len(store))
            yield f"{i:060000}", None

    store.update(pairs())
    assert len(store) == 150
    assert max(held) <= 4 * MIB // 60_000


def test_update_measures_what_a_codec_makes_of_a_value(make_store: Any) -> None:
    """Up to a quarter of the store goes in one batch; what compresses well is small."""
    store = make_store(size="16MiB", codec=Zlib())
    seen: set[int] = set()

    def pairs() -> Iterator[tuple[str, list[str]]]:
        for i in range(100):
            seen.add(len(store))
            yield f"{i}", ["x" * 100_000]

    store.update(pairs())
    assert seen == {0}
    assert store["99"] == ["x" * 100_000]


def test_update_encodes_a_value_once(make_store: Any) -> None:
    """But those that were too much for a batch, which begin the next one."""
    codec = Zlib(level=0)
    store = make_store(size="16MiB", codec=codec)
    store.update((f"{i}", [f"{i:03}" * 20_000]) for i in range(150))
    assert len(store) == 150
    assert 150 < codec.encoded < 160


def test_update_stores_what_came_before_a_fault_in_whole_batches(make_store: Any) -> None:
    store = make_store(size="16MiB")
    stored: list[int] = []

    def pairs() -> Iterator[Any]:
        for i in range(100):
            stored.append(len(store))
            yield [f"{i}", [bytes(60_000)]]
        yield "no pair"

    with pytest.raises(ValueError, match="pairs"):
        store.update(pairs())
    assert len(store) == stored[-1] > 0
    assert set(store) == {f"{i}" for i in range(len(store))}


def test_update_with_a_value_that_is_too_large(make_store: Any) -> None:
    store = make_store(size="16MiB")
    store["a"] = 1
    many: dict[str, Any] = {f"{i}": bytes(MIB) for i in range(5)}
    for items in (many | {"large": bytes(5 * MIB)}, {"a": 2, "large": [bytes(5 * MIB)]}):
        with pytest.raises(ValueTooLargeError):
            store.update(items)
        assert dict(store) == {"a": 1}
    with pytest.raises(ValueTooLargeError):
        store.update(iter([("a", 2), ("large", bytes(5 * MIB))]))
    assert dict(store) == {"a": 1}


def test_update_takes_pairs_of_any_kind(store: Store) -> None:
    store.update([f"{i}", value] for i, value in enumerate(("a", "b")))  # type: ignore[misc]
    store.update(iter(pair) for pair in (("c", 1), ("d", 2)))  # type: ignore[misc]
    assert dict(store) == {"0": "a", "1": "b", "c": 1, "d": 2}


def test_a_closed_store_takes_no_update(store: Store) -> None:
    store.close()
    for nothing in ((), {}, iter(())):
        with pytest.raises(ClosedStoreError):
            store.update(nothing)


def test_clear(store: Store) -> None:
    store.update({f"{i}": b"x" * i for i in range(1000)})
    assert store.clear() is None
    assert len(store) == 0
    assert list(store) == []
    assert "5" not in store
    store["5"] = 1
    assert dict(store) == {"5": 1}
    store.clear()
    store.clear()
    assert not store


def test_iteration_and_views(store: Store) -> None:
    expected = {f"k{i}": i for i in range(5000)} | {b"k%d" % i: -i for i in range(10)}
    store.update(expected)
    assert sorted(store, key=repr) == sorted(expected, key=repr)
    assert set(store.keys()) == set(expected)
    assert len(store.keys()) == len(expected)
    assert sorted(store.values()) == sorted(expected.values())
    assert dict(store.items()) == expected
    assert "k7" in store
    assert "nope" not in store
    assert ("k7", 7) in store.items()
    assert ("k7", 8) not in store.items()
    assert 7 in store.values()
    assert store.keys() & {"k1", "nope"} == {"k1"}


def test_views_follow_the_store(store: Store) -> None:
    keys = store.keys()
    store["a"] = 1
    assert list(keys) == ["a"]


def test_equality_is_that_of_mappings(store: Store) -> None:
    store.update({"a": 1, "b": [2]})
    assert store == {"a": 1, "b": [2]}
    assert store != {"a": 1}
    with pytest.raises(TypeError):
        hash(store)


def test_deleting_while_iterating_is_no_error(store: Store) -> None:
    store.update({f"k{i}": i for i in range(2000)})
    for key in store:
        del store[key]
    assert len(store) == 0


def test_what_get_returns_is_a_copy(store: Store) -> None:
    store["a"] = {"x": [1]}
    store["a"]["x"].append(2)
    assert store["a"] == {"x": [1]}


def test_overwriting_with_other_sizes(store: Store) -> None:
    for size in (0, 1, 15, 16, 17, 100, 4096, 70_000, 1_000_000, 3, 0):
        store["k"] = bytes(size)
        assert store["k"] == bytes(size)
    assert len(store) == 1


def test_growth_loses_nothing(store: Store) -> None:
    for i in range(60_000):
        store[f"key-{i}"] = i
    assert len(store) == 60_000
    assert all(store[f"key-{i}"] == i for i in range(60_000))
    for i in range(0, 60_000, 2):
        del store[f"key-{i}"]
    assert len(store) == 30_000
    assert all((f"key-{i}" in store) == bool(i % 2) for i in range(60_000))


def test_repr_tells_the_name(store: Store) -> None:
    assert store.name in repr(store)


# ---- Atomic between processes ----------------------------------------------------------------


def test_each_item_is_popped_once(store: Store) -> None:
    store.update({f"{i}": i for i in range(4000)})

    def drain() -> list[int]:
        got = []
        while True:
            try:
                got.append(store.popitem()[1])
            except KeyError:
                return got

    children = [Forked(drain) for _ in range(3)]
    got = [value for child in children for value in child.result()]
    assert sorted(got) == list(range(4000))


def test_pop_of_one_key_has_one_winner(store: Store) -> None:
    store.update({f"{i}": i for i in range(2000)})

    def pop_all() -> int:
        return sum(store.pop(f"{i}", None) is not None for i in range(2000))

    children = [Forked(pop_all) for _ in range(3)]
    assert sum(child.result() for child in children) == 2000
    assert len(store) == 0


@pytest.mark.parametrize("how", ["setdefault", "add"])
def test_first_writer_wins(store: Store, how: str) -> None:
    def claim(me: int) -> list[int]:
        won = []
        for i in range(1500):
            mine = store.add(f"{i}", me) if how == "add" else store.setdefault(f"{i}", me) == me
            if mine:
                won.append(i)
        return won

    children = [Forked(claim, me) for me in range(3)]
    won = [child.result() for child in children]
    assert sorted(i for one in won for i in one) == list(range(1500))
    for me, mine in enumerate(won):
        assert all(store[f"{i}"] == me for i in mine)

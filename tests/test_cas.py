"""gets and cas: stored only if the version is unchanged; every change but touch and persist gives a new one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from helpers import Forked

from shmkv import Store


def test_gets(store: Store) -> None:
    store["k"] = [1]
    got = store.gets("k")
    assert got.value == [1]
    assert type(got.version) is int
    value, version = got
    assert (value, version) == got
    assert store.gets("k") == got
    with pytest.raises(KeyError):
        store.gets("missing")


def test_cas(store: Store) -> None:
    store["k"] = 1
    version = store.gets("k").version
    assert store.cas("k", 2, version) is True
    assert store["k"] == 2
    assert store.cas("k", 3, version) is False
    assert store["k"] == 2
    assert store.cas("missing", 1, version) is False
    assert "missing" not in store


@pytest.mark.parametrize("version", ["1", None, 1.5, b"1", []], ids=repr)
def test_version_must_be_an_int(store: Store, version: Any) -> None:
    store["k"] = 1
    with pytest.raises(TypeError):
        store.cas("k", 2, version)
    assert store["k"] == 1


@pytest.mark.parametrize("version", [0, -1, 2**63, 2**64 - 1, 2**64, -(2**70)])
def test_versions_that_cannot_be(store: Store, version: int) -> None:
    store["k"] = 1
    with contextlib.suppress(OverflowError, ValueError):
        assert store.cas("k", 2, version) is False
    assert store["k"] == 1


CHANGES: dict[str, Callable[[Store], Any]] = {
    "put the same": lambda s: s.put("k", 1),
    "setitem": lambda s: s.__setitem__("k", 1),
    "replace": lambda s: s.replace("k", 1),
    "incr by 0": lambda s: s.incr("k", 0),
    "cas": lambda s: s.cas("k", 1, s.gets("k").version),
    "put_many": lambda s: s.put_many({"k": 1, "other": 2}),
    "update": lambda s: s.update(k=1),
    "delete and re-create": lambda s: (s.delete("k"), s.add("k", 1)),
    "pop and re-create": lambda s: s.setdefault("k", s.pop("k")),
    "popitem and re-create": lambda s: s.put(*s.popitem()),
    "delete_many and re-create": lambda s: (s.delete_many(["k"]), s.put("k", 1)),
    "clear and re-create": lambda s: (s.clear(), s.put("k", 1)),
    "delete and incr": lambda s: (s.delete("k"), s.incr("k")),
    "put with ttl": lambda s: s.put("k", 1, ttl=100),
    "delete, compact and re-create": lambda s: (s.delete("k"), s.compact(), s.put("k", 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_a_new_version(store: Store, change: str) -> None:
    store["k"] = 1
    seen = {store.gets("k").version}
    for turn in range(2, 30):
        before = store.gets("k").version
        CHANGES[change](store)
        assert store["k"] == 1
        seen.add(store.gets("k").version)
        assert len(seen) == turn
        assert store.cas("k", 5, before) is False


KEEPS: dict[str, Callable[[Store], Any]] = {
    "touch": lambda s: s.touch("k", 100),
    "touch again": lambda s: (s.touch("k", 100), s.touch("k", 50)),
    "persist": lambda s: (s.touch("k", 100), s.persist("k")),
    "reading": lambda s: (s["k"], s.get_many(["k"]), list(s.items()), s.range(), s.stats(), s.check()),
    "add in vain": lambda s: s.add("k", 2),
    "cas in vain": lambda s: s.cas("k", 2, s.gets("k").version + 1),
    "setdefault in vain": lambda s: s.setdefault("k", 2),
    "other keys": lambda s: [s.put(f"{i}", i) for i in range(40_000)],
    "compact": lambda s: s.compact(),
    "evacuation": lambda s: (
        s.update((f"{i}", b"x" * 40) for i in range(20_000)),
        s.delete_many([f"{i}" for i in range(19_000)]),
        s.compact(),
    ),
}


@pytest.mark.parametrize("keep", KEEPS)
def test_what_is_no_change_keeps_the_version(store: Store, keep: str) -> None:
    store["k"] = 1
    got = store.gets("k")
    KEEPS[keep](store)
    assert store.gets("k") == got
    assert store.cas("k", 2, got.version) is True


def test_no_version_comes_twice(store: Store) -> None:
    """Also when the bucket was emptied in between: an old cas must never succeed."""
    seen = set()
    for turn in range(3000):
        store["k"] = turn
        seen.add(store.gets("k").version)
        if turn % 3 == 0:
            del store["k"]
        if turn % 500 == 0:
            store.clear()
    assert len(seen) == 3000


def test_counting_by_cas_loses_nothing(store: Store) -> None:
    store["n"] = 0

    def count() -> None:
        for _ in range(1500):
            while True:
                value, version = store.gets("n")
                if store.cas("n", value + 1, version):
                    break

    children = [Forked(count) for _ in range(3)]
    for child in children:
        child.result()
    assert store["n"] == 4500


def test_cas_never_builds_on_what_was_deleted(store: Store) -> None:
    """`cas` changes the last bit only: if one hit a re-created key, value // 2 would be seen to go back."""

    def recreate() -> None:
        for turn in range(4000):
            store.delete("k")
            store.add("k", 2 * turn)

    def change_last_bit() -> int:
        newest = changed = 0
        for _ in range(6000):
            try:
                value, version = store.gets("k")
            except KeyError:
                continue
            assert value // 2 >= newest
            newest = value // 2
            changed += store.cas("k", value ^ 1, version)
        return changed

    children = [Forked(recreate), Forked(change_last_bit), Forked(change_last_bit)]
    for child in children:
        child.result()

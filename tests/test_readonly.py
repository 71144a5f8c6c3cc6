"""A read-only handle: every read works, every write is refused, and nothing of it is left in the region."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Forked, SharedInts, in_fork, region_path

from shmkv import ReadOnlyStoreError, Store, StoreNotFoundError


@pytest.fixture
def reader(store: Store) -> Iterator[Store]:
    store.put_many({"k": 1, "n": 5, "list": [1, 2], b"bytes": b"value"})
    store.put("ttl", "soon", ttl=1000)
    with Store.attach(store.name, readonly=True) as reader:
        yield reader


WRITES: dict[str, Callable[[Store], Any]] = {
    "setitem": lambda s: s.__setitem__("k", 2),
    "delitem": lambda s: s.__delitem__("k"),
    "delitem missing": lambda s: s.__delitem__("missing"),
    "put": lambda s: s.put("k", 2),
    "put new": lambda s: s.put("new", 2),
    "set": lambda s: s.set("k", 2),
    "add": lambda s: s.add("new", 2),
    "replace": lambda s: s.replace("k", 2),
    "delete": lambda s: s.delete("k"),
    "pop": lambda s: s.pop("k"),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault("new", 2),
    "update": lambda s: s.update(k=2),
    "clear": lambda s: s.clear(),
    "incr": lambda s: s.incr("n"),
    "decr": lambda s: s.decr("n"),
    "cas": lambda s: s.cas("k", 2, s.gets("k").version),
    "touch": lambda s: s.touch("k", 5),
    "persist": lambda s: s.persist("ttl"),
    "put_many": lambda s: s.put_many({"k": 2}),
    "delete_many": lambda s: s.delete_many(["k"]),
    "compact": lambda s: s.compact(),
}


@pytest.mark.parametrize("write", WRITES)
def test_writes_are_refused(store: Store, reader: Store, write: str) -> None:
    before = dict(store)
    with pytest.raises(ReadOnlyStoreError) as refused:
        WRITES[write](reader)
    assert isinstance(refused.value, TypeError)
    assert dict(store) == before
    assert store.ttl("ttl") is not None
    assert store.ttl("k") is None


def test_popitem_is_refused_also_where_there_is_nothing_to_take(store: Store) -> None:
    with Store.attach(store.name, readonly=True) as reader, pytest.raises(ReadOnlyStoreError):
        reader.popitem()


def test_every_read_works(store: Store, reader: Store) -> None:
    assert reader["k"] == 1
    assert reader.get("missing", 2) == 2
    assert "k" in reader
    assert "missing" not in reader
    assert len(reader) == 5
    assert dict(reader) == dict(store)
    assert set(reader.keys()) == set(store) == set(reader.scan())
    assert sorted(map(repr, reader.values())) == sorted(map(repr, store.values()))
    assert reader.gets("k") == store.gets("k")
    assert 990 < reader.ttl("ttl") <= 1000  # type: ignore[operator]
    assert reader.ttl("k") is None
    assert reader.get_many(["k", "n", "x"]) == {"k": 1, "n": 5}
    assert reader.range("k", "m") == [("k", 1), ("list", [1, 2])]
    assert reader.content_type(b"bytes") is None
    assert reader.stats().items == 5
    assert reader.check().ok
    with pytest.raises(KeyError):
        reader["missing"]


def test_it_sees_what_others_write(store: Store, reader: Store) -> None:
    for i in range(20_000):
        store[f"{i}"] = i
    assert reader["19999"] == 19_999
    assert len(reader) == 20_005
    store.clear()
    assert len(reader) == 0


def test_it_leaves_no_trace(store: Store, reader: Store) -> None:
    before = store.stats()
    for _ in range(100):
        reader.get("k"), reader.get("missing"), reader.get_many(["k", "x"])
    after = store.stats()
    assert (after.gets, after.hits, after.misses, after.processes) == (
        before.gets,
        before.hits,
        before.misses,
        before.processes,
    )


def test_not_a_byte_changes(store: Store, reader: Store) -> None:
    before = region_path(store).read_bytes()

    def read_all() -> None:
        with Store.attach(store.name, readonly=True) as handle:
            dict(handle), handle.get("k"), handle.get_many(["k", "x"]), handle.range(), handle.check(), handle.stats()

    read_all()
    in_fork(read_all)
    assert region_path(store).read_bytes() == before


def test_the_mapping_is_read_only(store: Store) -> None:
    def mappings() -> list[str]:
        with Store.attach(store.name, readonly=True):
            maps = Path("/proc/self/maps").read_text().splitlines()
        return [line.split()[1] for line in maps if line.endswith(region_path(store).name)]

    def fresh() -> list[str]:
        store.close()
        return mappings()

    assert in_fork(fresh)
    assert all("w" not in access for access in in_fork(fresh))


def test_expired_items_are_not_shown(store: Store, reader: Store) -> None:
    store.put("short", 1, ttl=1)
    now = store._now_ms() + 1000
    store._set_clock(now)
    reader._set_clock(now)
    assert "short" not in reader
    assert "short" not in dict(reader)
    store._set_clock(0)
    reader._set_clock(0)


def test_reads_beside_writers_are_whole(store: Store) -> None:
    keys = [f"{i}" for i in range(40)]
    store.put_many(dict.fromkeys(keys, 0))
    done = SharedInts(1)

    def write() -> None:
        for number in range(2000):
            store.put_many(dict.fromkeys(keys, number))
        done[0] = 1

    def read() -> int:
        rounds = 0
        with Store.attach(store.name, readonly=True) as reader:
            while not done[0]:
                assert len(set(reader.get_many(keys).values())) == 1
                assert reader["7"] >= 0
                rounds += 1
        return rounds

    children = [Forked(write), Forked(read)]
    for child in children:
        child.result()


def test_read_only_never_creates(name: str) -> None:
    with pytest.raises(StoreNotFoundError):
        Store(name, readonly=True)
    with pytest.raises(StoreNotFoundError):
        Store.attach(name, readonly=True)


def test_read_only_needs_no_right_to_write(name: str) -> None:
    if os.geteuid():
        pytest.skip("needs root, to act for another user")
    with Store.create(name, size="2MiB", mode=0o644) as store:
        store["k"] = 1

        def as_nobody() -> Any:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Store.attach(name, readonly=True, foreign=True) as reader:
                assert reader.check().ok
                with pytest.raises(ReadOnlyStoreError):
                    reader["k"] = 2
                with pytest.raises(PermissionError):
                    Store.attach(name, foreign=True)
                return reader["k"]

        assert in_fork(as_nobody) == 1


def test_read_only_and_writing_handles_in_one_process(store: Store, reader: Store) -> None:
    store["k"] = 2
    assert reader["k"] == 2
    reader.close()
    store["k"] = 3
    with Store.attach(store.name, readonly=True) as another:
        assert another["k"] == 3
        with pytest.raises(ReadOnlyStoreError):
            another["k"] = 4

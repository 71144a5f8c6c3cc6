"""stats, processes and compact: what the store tells about itself is exact."""

from __future__ import annotations

import os
from collections.abc import Callable

from helpers import MIB, Forked, check, in_fork

from shmkv import Store


def test_counters_of_each_call(store: Store) -> None:
    def counted(call: Callable[[], object]) -> dict[str, int]:
        before = store.stats()
        call()
        after = store.stats()
        names = ("gets", "hits", "misses", "sets", "deletes")
        return {name: d for name in names if (d := getattr(after, name) - getattr(before, name))}

    assert counted(lambda: store.put("a", 1)) == {"sets": 1}
    assert counted(lambda: store.put("a", 2)) == {"sets": 1}
    assert counted(lambda: store.get("a")) == {"gets": 1, "hits": 1}
    assert counted(lambda: store["a"]) == {"gets": 1, "hits": 1}
    assert counted(lambda: store.get("x")) == {"gets": 1, "misses": 1}
    assert counted(lambda: store.put_many({"b": 1, "c": 2})) == {"sets": 2}
    assert counted(lambda: store.get_many(["a", "b", "x"])) == {"gets": 3, "hits": 2, "misses": 1}
    assert counted(lambda: store.delete("a")) == {"deletes": 1}
    assert counted(lambda: store.delete("a")) == {}
    assert counted(lambda: store.delete_many(["b", "c", "x"])) == {"deletes": 2}
    assert counted(lambda: store.add("n", 1)).get("sets") == 1
    assert counted(lambda: store.add("n", 1)).get("sets") is None
    assert counted(lambda: store.incr("n")).get("sets") == 1


def test_counters_cover_all_processes_dead_ones_included(store: Store) -> None:
    def work() -> None:
        for i in range(500):
            store[f"{os.getpid()}:{i}"] = i
            store.get(f"{i}")

    for _ in range(5):
        in_fork(work)
    children = [Forked(work) for _ in range(5)]
    for child in children:
        child.result()
    victim = Forked(work)
    assert victim.wait() == 0
    stats = store.stats()
    assert stats.sets == stats.misses == 11 * 500
    assert stats.items == 5500
    store.compact()
    after = store.stats()
    assert (after.sets, after.misses, after.items) == (stats.sets, stats.misses, stats.items)


def test_counters_of_threads_without_the_gil(store: Store) -> None:
    large = b"x" * 500_000
    before = store.stats()
    for _ in range(20):
        store["large"] = large
        store.get("large")
    after = store.stats()
    assert after.sets - before.sets == 20
    assert after.hits - before.hits == 20


def test_items_and_bytes(store: Store) -> None:
    store.put_many({f"{i}": b"x" * i for i in range(100)})
    stats = store.stats()
    assert stats.items == 100
    assert stats.value_bytes == sum(range(100))
    store.delete_many([f"{i}" for i in range(50)])
    stats = store.stats()
    assert stats.items == 50
    assert stats.value_bytes == sum(range(50, 100))
    store.put("99", b"")
    assert store.stats().value_bytes == sum(range(50, 99))
    store.clear()
    stats = store.stats()
    assert stats.items == stats.value_bytes == 0


def test_memory(store: Store) -> None:
    empty = store.stats()
    assert empty.size == store.size == 64 * MIB
    assert 0 < empty.used <= empty.committed <= empty.size
    store.update({f"{i}": b"x" * 1000 for i in range(20_000)})
    full = store.stats()
    assert 20_000_000 < full.used <= full.committed <= full.size
    assert full.table_bytes > 0
    assert full.bytes_per_item > 1000
    store.clear()
    store.compact()
    after = store.stats()
    assert after.used < empty.used + 2 * MIB
    assert after.committed < full.committed / 2, "nobody else is attached: memory goes back to the system"
    store.update({f"{i}": b"y" * 1000 for i in range(20_000)})
    assert store["777"] == b"y" * 1000


def test_memory_is_kept_while_others_are_attached(store: Store) -> None:
    store.update({f"{i}": b"x" * 1000 for i in range(20_000)})
    read, write = os.pipe()
    told, tell = os.pipe()

    def reader() -> bytes:
        handle = Store.attach(store.name, readonly=True)
        assert handle["5"] == b"x" * 1000
        os.write(tell, b".")
        os.read(read, 1)
        assert handle.get("5") is None
        assert len(handle) == 1
        return bytes(handle["new"])

    child = Forked(reader)
    os.read(told, 1)
    store.clear()
    report = store.compact()
    assert report.bytes_returned == 0
    store["new"] = b"n" * 5000
    os.write(write, b".")
    assert child.result() == b"n" * 5000
    for fd in (read, write, told, tell):
        os.close(fd)


def test_compact_gathers_what_is_scattered(store: Store) -> None:
    count = 60_000
    store.update({f"{i}": b"x" * (16 + i % 200) for i in range(count)})
    full = store.stats().used
    for i in range(count):
        if i % 10:
            del store[f"{i}"]
    report = store.compact()
    assert report.moved > 0
    assert report.pages_freed > 0
    assert store.stats().used < full / 3
    assert dict(store) == {f"{i}": b"x" * (16 + i % 200) for i in range(0, count, 10)}


def test_compact_while_others_write(store: Store) -> None:
    def write(me: int) -> None:
        for turn in range(6):
            for i in range(2000):
                store[f"{me}:{i}"] = bytes([turn]) * (i % 400)
            for i in range(0, 2000, 3):
                del store[f"{me}:{i}"]

    children = [Forked(write, me) for me in range(2)]
    while any(child.poll() is None for child in children):
        store.compact()
        check(store)
    for child in children:
        child.result()
    for me in range(2):
        for i in range(2000):
            assert store.get(f"{me}:{i}") == (bytes([5]) * (i % 400) if i % 3 else None)


def test_processes(store: Store) -> None:
    store["k"] = 1

    def look() -> tuple[int, list[int]]:
        store["k"] = 2
        return os.getpid(), [process.pid for process in store.processes()]

    pid, seen = in_fork(look)
    assert set(seen) == {pid, os.getpid()}
    (me,) = store.processes()  # without compact(): the child has ended
    assert me.pid == os.getpid()
    assert me.this is True
    assert store.stats().processes == 1


def test_check_report(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(1000)})
    report = store.check()
    assert report
    assert report.ok
    assert not report.problems
    assert report.items == report.records == 1000
    assert report.blocks_leaked == 0
    assert report.dead_slots == 0


def test_check_may_run_while_others_write(store: Store) -> None:
    def write() -> None:
        for turn in range(8):
            store.put_many({f"{i}": (turn, "x" * (i % 300)) for i in range(3000)})
            store.delete_many([f"{i}" for i in range(0, 3000, 2)])

    children = [Forked(write), Forked(write)]
    rounds = 0
    while any(child.poll() is None for child in children):
        report = store.check()
        assert report.ok, report.problems
        rounds += 1
    for child in children:
        child.result()
    assert rounds

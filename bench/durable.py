"""Durable stores and `DataStore`: against the disk's own speed, SQLite and LMDB, and how fast they come back.

    python -m bench.durable [--keys N] [--rounds R] [--directory DIR]

The floor is a loop of a 128-byte write and an fdatasync of the same disk; it has to be a real one (above 50 us), so
give --directory where the default, the temporary one, is in memory.  Each comparison is a loop of its own and goes
in turns, in one process or with as many on each side; SQLite runs with WAL and synchronous=FULL, LMDB (if the
package `lmdb` is there) with its default, which syncs each transaction.

What this does not say: disks differ by a factor of a hundred in what an fdatasync costs, and a virtual one may
answer before anything is on a medium.  Ratios to the floor hold better than times.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.harness import Result, Row, arguments, ratio_row
from shmkv import DataStore, Store, region
from shmkv.workload.keys import keys_of

KEYS: Final = 10_000_000
FORK: Final = get_context("fork")
CALLS: Final = 300  # durable ones in a round
QUICK_CALLS: Final = 20_000
BATCH: Final = 1_000
VALUE: Final = b"v" * 16


def percentile(sorted_times: list[float], part: float) -> float:
    """The value below which `part` of them lie, 0 to 1."""
    return sorted_times[min(int(part * len(sorted_times)), len(sorted_times) - 1)]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def opened(folder: Path, **options: Any) -> Iterator[Store]:
    """A durable store in a new directory, removed with its memory at the end."""
    path = folder / f"store{random.randrange(10**9)}"
    store = Store.open(path, **options)
    try:
        yield store
    finally:
        store.close()
        shutil.rmtree(path)


class Floor:
    """Writes at the end of a file, each followed by an fdatasync."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "floor"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def run(self, calls: int, size: int) -> float:
        raw = b"x" * size

        def work() -> None:
            for _ in range(calls):
                os.write(self._fd, raw)
                os.fdatasync(self._fd)

        return timed(work) / calls

    def write_only(self, calls: int, size: int) -> float:
        raw, fd, write = b"x" * size, self._fd, os.write

        def work() -> None:
            for _ in range(calls):
                write(fd, raw)

        return timed(work) / calls

    def close(self) -> None:
        os.close(self._fd)
        self._path.unlink()


# ---- One call, one batch -----------------------------------------------------------------------


def single_puts(result: Result, folder: Path, rounds: int) -> None:
    """One thread, each put on stable storage."""

    def ours(store: Store, number: int) -> float:
        return timed(partial(_puts, store, _round_of_keys(number, CALLS))) / CALLS

    def theirs(peer: Peer, number: int) -> float:
        return timed(partial(peer.puts, _round_of_keys(number, CALLS))) / CALLS

    def least(floor: Floor, _: int) -> float:
        return floor.run(CALLS, 128)

    text = 'put, sync="always", one thread, against the floor'
    with contextlib.closing(Floor(folder)) as floor:
        mine, low = _in_turns(folder, rounds, ours, partial(least, floor))
    result.add(ratio_row(text, mine, low, 1.25, note=f"floor {median(low) / 1e3:,.0f} us"))
    for name, peer in _peers(folder).items():
        with contextlib.closing(peer):
            mine, other = _in_turns(folder, rounds, ours, partial(theirs, peer))
        result.add(ratio_row(f"the same against {name}", mine, other, 1.0))


def batches(result: Result, folder: Path, rounds: int) -> None:
    """1,000 pairs that are on stable storage together."""

    def pairs(number: int) -> list[tuple[str, bytes]]:
        return [(key, VALUE) for key in _round_of_keys(number, BATCH)]

    def ours(store: Store, number: int) -> float:
        return timed(partial(store.put_many, pairs(number))) / BATCH

    def theirs(peer: Peer, number: int) -> float:
        return timed(partial(peer.put_many, pairs(number))) / BATCH

    def least(floor: Floor, _: int) -> float:
        return floor.run(1, BATCH * (24 + 13 + 16)) / BATCH

    text = 'put_many of 1,000, sync="always", against a write of its bytes'
    with contextlib.closing(Floor(folder)) as floor:
        result.add(ratio_row(text, *_in_turns(folder, rounds * 10, ours, partial(least, floor)), 1.5))
    for name, peer in _peers(folder).items():
        with contextlib.closing(peer):
            mine, other = _in_turns(folder, rounds * 10, ours, partial(theirs, peer))
        result.add(ratio_row(f"the same against {name}, one transaction", mine, other, 1.0))


def _round_of_keys(number: int, count: int) -> list[str]:
    return keys_of(range(number * count, (number + 1) * count))


def _in_turns(
    folder: Path, rounds: int, ours: Callable[[Store, int], float], other: Callable[[int], float]
) -> tuple[list[float], list[float]]:
    """Nanoseconds of each round of both; nobody else works in between, or would leave his own in the caches."""
    mine, theirs = [], []
    with opened(folder, size="256MiB", sync="always") as store:
        for number in range(rounds + 1):
            pair = ours(store, number), other(number)
            if number:  # the first round warms up
                mine.append(1e9 * pair[0])
                theirs.append(1e9 * pair[1])
    return mine, theirs


def many_threads(result: Result, folder: Path, rounds: int) -> None:
    """Sixteen threads in two processes share syncs."""
    alone, together = [], []
    with opened(folder, size="64MiB", sync="always") as store:
        for _ in range(rounds):
            alone.append(CALLS / timed(partial(_puts, store, keys_of(range(CALLS)))))
            together.append(2 * 8 * CALLS / _in_processes(store, 2, 8, CALLS))
    text = '16 threads in 2 processes, sync="always": puts per second to one thread\'s'
    result.add(ratio_row(text, together, alone, 5.0, at_least=True, in_ns=False))


def _in_processes(store: Store, processes: int, threads: int, calls: int) -> float:
    """Seconds from the moment when all processes are there to the last put."""
    there, ends = FORK.Barrier(processes + 1), FORK.Array("d", processes)

    def put_some(name: str) -> None:
        for i in range(calls):
            store.put(f"{name}:{i}", VALUE)

    def process(number: int) -> None:
        all_of = [threading.Thread(target=put_some, args=(f"{number}.{t}",)) for t in range(threads)]
        there.wait()
        for each in all_of:
            each.start()
        for each in all_of:
            each.join()
        ends[number] = time.perf_counter()  # the same clock in all processes

    children = [FORK.Process(target=process, args=(n,)) for n in range(processes)]
    for child in children:
        child.start()
    there.wait()
    start = time.perf_counter()
    for child in children:
        child.join()
    return max(ends) - start


def without_waiting(result: Result, folder: Path, rounds: int) -> None:
    """`sync="interval"`: beside the same put in memory, and one write of the frame."""
    floor = Floor(folder)
    logged: list[float] = []
    memory: list[float] = []
    writes: list[float] = []
    gets: list[float] = []
    memory_gets: list[float] = []
    frame = 40 + 24 + 13 + 16 + 3
    with opened(folder, size="256MiB", sync="interval") as store, Store(size="256MiB") as plain:
        keys = keys_of(range(QUICK_CALLS))
        for each in (store, plain):
            each.put_many([(key, VALUE) for key in keys])
        for number in range(rounds + 1):
            parts = (
                timed(lambda: _puts(store, keys)), timed(lambda: _puts(plain, keys)),
                QUICK_CALLS * floor.write_only(QUICK_CALLS, frame), timed(lambda: _gets(store, keys)),
                timed(lambda: _gets(plain, keys)),
            )  # fmt: skip
            if number:
                for to, seconds in zip((logged, memory, writes, gets, memory_gets), parts, strict=True):
                    to.append(1e9 * seconds / QUICK_CALLS)
    both = [a + b for a, b in zip(memory, writes, strict=True)]
    result.add(ratio_row('put, sync="interval", against the put in memory and a write', logged, both, 1.5))
    result.add(ratio_row("get of a durable store against one in memory", gets, memory_gets, 1.1))
    floor.close()


def _puts(store: Store, keys: list[str]) -> None:
    put = store.put
    for key in keys:
        put(key, VALUE)


def _gets(store: Store, keys: list[str]) -> None:
    get = store.get
    for key in keys:
        get(key)


# ---- Coming back ---------------------------------------------------------------------------------


def come_back(result: Result, folder: Path, keys: int, bar: float) -> None:
    """Everything is killed, and the memory is lost: from single frames, and from a snapshot."""
    path = folder / "coming-back"
    size = max(keys * 160, 64 << 20)
    pid = os.fork()
    if pid == 0:
        store = Store.open(path, sync="none", size=size)
        for first in range(0, keys, 10_000):
            store.put_many([(key, VALUE) for key in keys_of(range(first, min(first + 10_000, keys)))])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    for what in ("the log", "a snapshot"):
        facts = path.stat()
        with contextlib.suppress(Exception):
            region.unlink(region.object_name(region.durable_name(facts.st_dev, facts.st_ino)))
        start = time.perf_counter()
        store = Store.open(path)
        seconds = time.perf_counter() - start
        assert len(store) == keys
        result.add(Row(f"open of {keys:,} entries from {what}, memory lost", seconds, "s", bar))
        store.close()
    shutil.rmtree(path)


def snapshot_under_load(result: Result, folder: Path, keys: int) -> None:
    """What writers wait while a snapshot of the store is written."""
    with opened(folder, size=max(keys * 160, 64 << 20), sync="none") as store:
        for first in range(0, keys, 10_000):
            store.put_many([(key, VALUE) for key in keys_of(range(first, min(first + 10_000, keys)))])
        store.sync()
        for what, snapshots in (("without a snapshot", 0), ("during snapshots", 3)):
            receiving, sending = FORK.Pipe(duplex=False)
            writer = FORK.Process(target=_write_until, args=(store, keys, sending))
            writer.start()
            time.sleep(0.3)
            taken = timed(partial(_snapshots, store, snapshots))
            os.kill(writer.pid or 0, signal.SIGUSR1)
            times = receiving.recv()
            writer.join()
            bar = 10.0 if snapshots else None
            note = f"{len(times):,} puts; p99 {percentile(times, 0.99) * 1e6:,.0f} us, most {times[-1] * 1e3:,.1f} ms"
            note += f"; a snapshot took {taken / snapshots:,.1f} s" if snapshots else ""
            text = f"a writer's p99.9 {what} of {keys:,} entries"
            result.add(Row(text, percentile(times, 0.999) * 1e3, "ms", bar, note=note))


def _snapshots(store: Store, count: int) -> None:
    for _ in range(count):
        store.snapshot()
    if not count:
        time.sleep(2)


def _write_until(store: Store, keys: int, connection: Any) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: stop.set())
    rng, times, clock, put = random.Random(3), [], time.perf_counter, store.put
    while not stop.is_set():
        key = f"user:{rng.randrange(keys):08d}"
        start = clock()
        put(key, VALUE)
        times.append(clock() - start)
    connection.send(sorted(times))


# ---- DataStore --------------------------------------------------------------------------------------


def datastore(result: Result, folder: Path, entries: int, rounds: int) -> None:
    """Single calls, timed one by one; the median of the rounds, of which each fills a store of its own."""
    times: dict[str, list[list[float]]] = {"read": [], "create": []}
    for _ in range(rounds):
        path = folder / "datastore"
        with DataStore(path) as data:
            calls = _each(lambda i: data.create(f"user:{i:08d}", {"name": f"user {i}", "n": i}), range(entries))
            times["create"].append(sorted(calls))
            order = random.Random(1).sample(range(entries), entries)
            times["read"].append(sorted(_each(lambda i: data.read(f"user:{i:08d}"), order)))
        shutil.rmtree(path)
    for what, bar in (("read", 20.0), ("create", 50.0)):
        p50, p99, p999 = (sorted(1e6 * percentile(each, part) for each in times[what]) for part in (0.5, 0.99, 0.999))
        note = f"p50 {median(p50):,.1f} us, p99.9 {median(p999):,.1f} us"
        text = f"DataStore.{what}, {entries:,} entries: p99"
        result.add(Row(text, median(p99), "us", bar, lowest=p99[0], highest=p99[-1], note=note))


def _each(call: Callable[[int], object], numbers: Any) -> Iterator[float]:
    clock = time.perf_counter
    for number in numbers:
        start = clock()
        call(number)
        yield clock() - start


def _peers(folder: Path) -> dict[str, Peer]:
    peers: dict[str, Peer] = {"SQLite": Sqlite(folder)}
    if importlib.util.find_spec("lmdb"):
        peers["LMDB"] = Lmdb(folder)
    return peers


# ---- Peers --------------------------------------------------------------------------------------------


class Sqlite:
    """WAL, each transaction synced."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"peer{random.randrange(10**9)}.sqlite"
        self._db = sqlite3.connect(self._path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID")

    def puts(self, keys: list[str]) -> None:
        for key in keys:
            self._db.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (key, VALUE))

    def put_many(self, pairs: list[tuple[str, bytes]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO t VALUES (?, ?)", pairs)
        self._db.execute("COMMIT")

    def close(self) -> None:
        self._db.close()
        for each in self._path.parent.glob(f"{self._path.name}*"):
            each.unlink()


class Lmdb:
    """Its default: each transaction is synced."""

    def __init__(self, folder: Path) -> None:
        import lmdb

        self._path = folder / f"peer{random.randrange(10**9)}.lmdb"
        self._db = lmdb.open(str(self._path), map_size=1 << 30)

    def puts(self, keys: list[str]) -> None:
        for key in keys:
            with self._db.begin(write=True) as transaction:
                transaction.put(key.encode(), VALUE)

    def put_many(self, pairs: list[tuple[str, bytes]]) -> None:
        with self._db.begin(write=True) as transaction:
            for key, value in pairs:
                transaction.put(key.encode(), value)

    def close(self) -> None:
        self._db.close()
        shutil.rmtree(self._path)


Peer = Sqlite | Lmdb


def main() -> None:
    parser = arguments(__doc__, KEYS, 9)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to write (default: the temporary directory)"
    )
    args = parser.parse_args()
    result = Result("durable", args.keys == KEYS, args.results)
    folder = Path(tempfile.mkdtemp(prefix="shmkv-bench-", dir=args.directory))
    try:
        single_puts(result, folder, args.rounds)
        batches(result, folder, args.rounds)
        many_threads(result, folder, args.rounds)
        without_waiting(result, folder, args.rounds)
        datastore(result, folder, max(args.keys // 100, 1000), args.rounds)
        snapshot_under_load(result, folder, args.keys // 10)
        come_back(result, folder, args.keys // 10, 2.0)
        come_back(result, folder, args.keys, 20.0)
    finally:
        shutil.rmtree(folder)
    result.write()


if __name__ == "__main__":
    main()

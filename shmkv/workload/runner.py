"""Runs workloads: one store, W worker processes that attach to it by name, results merged.

How: the parent creates the store and starts the workers by spawn; each worker loads its share of
the keys, runs what it is told at the time it is told, and at the end reads its share back.  What is
measured is the calls alone: keys and values are made in batches between the timed loops.

What is checked at the end ("nothing was lost"): each worker remembers the last value that it wrote
to each key.  Every key must hold the last value of one of the workers, whole; and the counts that
read-modify-write left must add up to the number of times that it succeeded.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shmkv import surroundings
from shmkv.workload.keys import KEY_BYTES, Distribution, key_of, keys_of, stream_of
from shmkv.workload.mixes import MIXES, Kind, Mix
from shmkv.workload.percentiles import Histogram
from shmkv.workload.values import MIN_SIZE, make_value, read_value

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from shmkv import Store

BATCH: Final = 1_000  # operations made ready at a time, and timed in one go
SAMPLED: Final = 4  # in every fourth batch each call is timed alone, for the percentiles
START_DELAY_S: Final = 0.05  # workers start a workload at the same instant, this far ahead
MAX_WORKERS: Final = 255
MAX_KEYS: Final = 100_000_000
ENTRY_ALLOWANCE: Final = 83  # bytes that a store is made larger per entry, beyond the value
BASE_ALLOWANCE: Final = 16 << 20


class WorkerFailedError(Exception):
    """A worker process ended or raised; the message is its traceback."""


@dataclass(frozen=True)
class Config:
    """One run."""

    keys: int = 1_000_000
    workers: int = 2
    value_size: tuple[int, int] = (16, 16)  # bytes, smallest and largest
    mixes: tuple[str, ...] = tuple(MIXES)
    distributions: tuple[Distribution, ...] = ("uniform", "zipfian")
    seconds: float = 3.0  # of each mix and distribution, making keys and values included
    seed: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= MAX_WORKERS:
            raise ValueError(f"1 to {MAX_WORKERS} workers, not {self.workers}")
        if not self.workers <= self.keys <= MAX_KEYS:
            raise ValueError(f"{self.workers} (a key for each worker) to {MAX_KEYS:,} keys, not {self.keys:,}")
        if not MIN_SIZE <= self.value_size[0] <= self.value_size[1] <= 1 << 20:
            raise ValueError(f"values of {MIN_SIZE} bytes to 1 MiB, not {self.value_size}")
        if not 0 < self.seconds <= 3_600:
            raise ValueError(f"more than 0 and at most 3,600 seconds a workload, not {self.seconds}")

    @property
    def mean_value(self) -> float:
        return sum(self.value_size) / 2

    @property
    def store_size(self) -> int:
        """Bytes: enough for all keys, for what the workers hold ready, and for old values in flight."""
        per_entry = self.mean_value * (1.15 if self.value_size[1] > MIN_SIZE else 1.0) + ENTRY_ALLOWANCE
        return int(self.keys * per_entry) + BASE_ALLOWANCE + self.workers * (4 << 20)


@dataclass
class Measured:
    """Of one workload: calls timed in bulk, and calls timed one by one."""

    bulk_calls: int = 0
    bulk_seconds: float = 0.0
    calls: int = 0
    rmw_done: int = 0
    torn: int = 0
    missing: int = 0
    single: dict[str, Histogram] = field(default_factory=dict)  # by kind; "empty" is the timing itself

    def record(self, kind: str, durations: Sequence[int]) -> None:
        self.single.setdefault(kind, Histogram()).record(durations)

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.bulk_calls / self.bulk_seconds if self.bulk_seconds else 0.0


@dataclass
class Verified:
    """What reading everything back found."""

    keys: int = 0
    missing: int = 0
    torn: int = 0
    stale: int = 0  # whole, but not the last value that anybody wrote
    counts: int = 0  # sum of what read-modify-write counted


# ---- The parent ----------------------------------------------------------------------------


class Workers:
    """The worker processes of one run, told what to do all at once."""

    def __init__(self, store_name: str, config: Config) -> None:
        context = get_context("spawn")
        self._config = config
        self._connections: list[Connection] = []
        self._processes = []
        for index in range(config.workers):
            mine, theirs = context.Pipe()
            process = context.Process(target=worker_main, args=(store_name, config, index, theirs), daemon=True)
            try:
                process.start()
            except BlockingIOError as error:
                raise surroundings.no_more("processes") from error
            theirs.close()
            self._connections.append(mine)
            self._processes.append(process)
        self.ask("ready")

    def ask(self, what: str, *arguments: object) -> list[Any]:
        """Have every worker do `what`; answers their answers in order."""
        for connection in self._connections:
            with suppress(BrokenPipeError):  # `_answer` says that it ended
                connection.send((what, *arguments))
        answers, failure = [], None
        for connection in self._connections:
            try:
                answers.append(self._answer(connection))
            except WorkerFailedError as error:
                failure = failure or error  # the others' answers must not be taken for those to the next question
        if failure:
            raise failure
        return answers

    def run_mix(self, mix: str, distribution: Distribution, seconds: float) -> list[Measured]:
        """Run a mix in all workers from the same instant on."""
        start = time.monotonic() + START_DELAY_S
        return self.ask("mix", mix, distribution, start, start + seconds)

    def stop(self) -> None:
        """End all of them; idempotent."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
                process.join()
        self._connections, self._processes = [], []

    def _answer(self, connection: Connection) -> Any:
        try:
            good, answer = connection.recv()
        except (EOFError, ConnectionResetError):
            raise WorkerFailedError("a worker process ended") from None
        if not good:
            raise WorkerFailedError(answer)
        return answer


@contextmanager
def bench_store(size: int) -> Iterator[Store]:
    """A store with a name of its own, removed at the end."""
    from shmkv import Store

    store = Store.create(f"bench.{os.getpid()}.{os.urandom(4).hex()}", size)
    try:
        yield store
    finally:
        store.unlink()
        store.close()


def run(config: Config, on_step: Callable[[str], None] = lambda step: None) -> dict[str, Any]:
    """Run everything that `config` says; answers the report as plain values.

    Args:
        on_step: told, in words, what is being done.

    Raises:
        WorkerFailedError: a worker raised.
        StoreFullError: /dev/shm is too small.
    """
    with bench_store(config.store_size) as store, tempfile.TemporaryDirectory(prefix="shmkv-bench-") as notes:
        workers = Workers(store.name, config)
        try:
            on_step(f"loading {config.keys:,} keys")
            loaded = workers.ask("load")
            memory = _memory(store, config)
            results, checks = [], _Checks(store, config, workers, notes)
            for mix, distribution in _in_order(config):
                on_step(f"{mix.name}, {distribution}")
                measured = workers.run_mix(mix.name, distribution, config.seconds)
                results.append(_mix_report(mix, distribution, measured))
                checks.after(mix, measured, on_step)
            on_step("reading everything back")
            checks.finish()
        finally:
            workers.stop()
        return {
            "machine": machine(),
            "config": {**asdict(config), "store_size": config.store_size},
            "load": {
                "pairs_per_second": round(sum(m.rate for m in loaded)),
                "seconds": max(m.bulk_seconds for m in loaded),
            },
            "mixes": sorted(results, key=lambda r: (list(MIXES).index(r["mix"]), r["distribution"])),
            "memory": memory,
            "checks": checks.report(),
        }


def run_table(sizes: Sequence[int], on_step: Callable[[str], None] = lambda step: None) -> list[dict[str, Any]]:
    """For each number of keys: put all of them as new ones, then read at random; one worker, single calls."""
    rows = []
    for keys in sizes:
        config = Config(keys=keys, workers=1)
        on_step(f"{keys:,} keys")
        with bench_store(config.store_size) as store:
            workers = Workers(store.name, config)
            try:
                (written,) = workers.ask("put_new")
                memory = _memory(store, config)
                (read,) = workers.ask("read", min(keys, 1_000_000))
            finally:
                workers.stop()
        rows.append({"keys": keys, "write": _calls(written, "put"), "read": _calls(read, "get"), "memory": memory})
    return rows


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _in_order(config: Config) -> list[tuple[Mix, Distribution]]:
    """Mixes without a put come first: a put sets the counts of read-modify-write back."""
    pairs = [(MIXES[name], distribution) for name in config.mixes for distribution in config.distributions]
    return sorted(pairs, key=lambda pair: pair[0].write == "put" and pair[0].reads < 1.0)


def _mix_report(mix: Mix, distribution: Distribution, measured: list[Measured]) -> dict[str, Any]:
    single: dict[str, Histogram] = {}
    for each in measured:
        for kind, histogram in each.single.items():
            single.setdefault(kind, Histogram()).merge(histogram)
    return {
        "mix": mix.name,
        "distribution": distribution,
        "calls": sum(m.calls for m in measured),
        "calls_per_second": round(sum(m.rate for m in measured)),
        "ns": {kind: histogram.summary() for kind, histogram in sorted(single.items())},
    }


def _calls(measured: Measured, kind: str) -> dict[str, Any]:
    return {"mean_ns": 1e9 / measured.rate, **measured.single[kind].summary()}


def _memory(store: Store, config: Config) -> dict[str, Any]:
    stats = store.stats()
    data = config.keys * KEY_BYTES + stats.value_bytes
    return {
        "used": stats.used,
        "committed": stats.committed,
        "data": data,
        "bytes_per_key": stats.used / config.keys,
        "overhead_per_key": (stats.used - data) / config.keys,
    }


class _Checks:
    """The check that nothing was lost, in its steps."""

    def __init__(self, store: Store, config: Config, workers: Workers, notes: str) -> None:
        self._store = store
        self._config = config
        self._workers = workers
        self._notes = notes
        self._rmw_expected = 0
        self._rmw_counted = 0
        self._rmw_left = sum(MIXES[name].write == "rmw" for name in config.mixes) * len(config.distributions)
        self._seen = Verified()
        self._during = Measured()

    def after(self, mix: Mix, measured: list[Measured], on_step: Callable[[str], None]) -> None:
        """Count what the workers saw; after the last read-modify-write, add the counts up."""
        for each in measured:
            self._during.torn += each.torn
            self._during.missing += each.missing
            self._rmw_expected += each.rmw_done
        if mix.write == "rmw":
            self._rmw_left -= 1
            if self._rmw_left == 0:
                on_step("adding up the counts of read-modify-write")
                self._rmw_counted = self._read_back().counts

    def finish(self) -> None:
        """Read everything back, and walk every invariant."""
        self._seen = self._read_back()
        self._walked = self._store.check()

    def report(self) -> dict[str, Any]:
        """All that must hold, and `ok` if it does."""
        found = {
            "keys": self._seen.keys,
            "missing": self._seen.missing + self._during.missing,
            "torn": self._seen.torn + self._during.torn,
            "stale": self._seen.stale,
            "rmw_acknowledged": self._rmw_expected,
            "rmw_counted": self._rmw_counted,
            "length": len(self._store),
            "problems": [str(problem) for problem in self._walked.problems],
        }
        bad = found["missing"] or found["torn"] or found["stale"] or found["problems"]
        sums = found["rmw_acknowledged"] == found["rmw_counted"]
        found["ok"] = not bad and sums and found["keys"] == found["length"] == self._config.keys
        return found

    def _read_back(self) -> Verified:
        self._workers.ask("save_notes", self._notes)
        total = Verified()
        for part in self._workers.ask("verify", self._notes):
            total.keys += part.keys
            total.missing += part.missing
            total.torn += part.torn
            total.stale += part.stale
            total.counts += part.counts
        return total


# ---- A worker ------------------------------------------------------------------------------


def worker_main(store_name: str, config: Config, index: int, connection: Connection) -> None:
    """A worker's life: attach, do what it is told, go when the parent's end of the pipe is closed."""
    import traceback

    from shmkv import Store

    try:
        with Store.attach(store_name) as store:
            worker = _Worker(store, config, index)
            while True:
                what, *arguments = connection.recv()
                try:
                    connection.send((True, getattr(worker, what)(*arguments)))
                except Exception:
                    connection.send((False, traceback.format_exc()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)


class _Worker:
    def __init__(self, store: Store, config: Config, index: int) -> None:
        self.store = store
        self.config = config
        self.index = index
        self.random = random.Random(config.seed * 1_000 + index)
        self.last = array("I", bytes(4 * config.keys))  # sequence number of my last write to each key; 0 = none
        self.sequence = 0
        self.first = config.keys * index // config.workers
        self.end = config.keys * (index + 1) // config.workers

    def ready(self) -> bool:
        """So that the parent knows that imports and attaching are over."""
        gc.freeze()
        return True

    # ---- Workloads -------------------------------------------------------------------------

    def load(self) -> Measured:
        """Put this worker's share of the keys in, with put_many of a thousand."""
        measured = Measured()
        put_many = self.store.put_many
        for begin in range(self.first, self.end, BATCH):
            indexes = range(begin, min(begin + BATCH, self.end))
            pairs = list(zip(keys_of(indexes), self._values(indexes), strict=True))
            started = time.perf_counter()
            put_many(pairs)
            measured.bulk_seconds += time.perf_counter() - started
            measured.bulk_calls += len(pairs)
        return measured

    def put_new(self) -> Measured:
        """Put this worker's share of the keys in, one by one."""
        measured = Measured()
        for number, begin in enumerate(range(self.first, self.end, BATCH)):
            indexes = range(begin, min(begin + BATCH, self.end))
            values: list[bytes | None] = list(self._values(indexes))
            self._do_batch(keys_of(indexes), values, "put", sampled=number % SAMPLED == 0, measured=measured)
        return measured

    def read(self, calls: int) -> Measured:
        """Read `calls` random keys, one by one."""
        measured = Measured()
        stream = stream_of("uniform", self.config.keys, self.config.seed)
        nothing: list[bytes | None] = [None] * BATCH
        for number in range(max(SAMPLED, calls // BATCH)):
            self._do_batch(keys_of(stream(BATCH)), nothing, "put", sampled=number % SAMPLED == 0, measured=measured)
        return measured

    def mix(self, name: str, distribution: Distribution, start: float, end: float) -> Measured:
        """Run a mix from `start` to `end` on the monotonic clock."""
        mix = MIXES[name]
        measured = Measured()
        stream = stream_of(distribution, self.config.keys, self.random.randrange(1 << 32))
        time.sleep(max(0.0, start - time.monotonic()))
        number = 0
        while time.monotonic() < end:
            indexes = stream(BATCH)
            reads = mix.choose(BATCH, self.random)
            writing = [index for index, is_read in zip(indexes, reads, strict=True) if not is_read]
            made = iter(self._values(writing))
            values = [None if is_read else next(made) for is_read in reads]
            self._do_batch(keys_of(indexes), values, mix.write, sampled=number % SAMPLED == 0, measured=measured)
            number += 1
        return measured

    def _values(self, indexes: Sequence[int]) -> list[bytes]:
        """A value for each key, and the note that it is this worker's last."""
        smallest, largest = self.config.value_size
        writer, last, values = self.index << 32, self.last, []
        for index in indexes:
            self.sequence += 1
            last[index] = self.sequence
            size = smallest if smallest == largest else self.random.randint(smallest, largest)
            values.append(make_value(index, 0, writer | self.sequence, size))
        return values

    def _do_batch(
        self, keys: list[str], values: list[bytes | None], write: Kind, *, sampled: bool, measured: Measured
    ) -> None:
        """Where a key has a value it is written, else the key is read."""
        measured.calls += len(keys)
        if write == "rmw":
            measured.rmw_done += len(keys)
        if sampled:
            self._time_each(keys, values, write, measured)
            return
        get = self.store.get
        put = self._read_modify_write if write == "rmw" else self.store.put
        reads = values.count(None)
        clock = time.perf_counter
        if reads == len(keys):
            started = clock()
            for key in keys:
                get(key)
        elif reads:
            started = clock()
            for key, value in zip(keys, values, strict=True):
                if value is None:
                    get(key)
                else:
                    put(key, value)
        else:
            started = clock()
            for key, value in zip(keys, values, strict=True):
                put(key, value)  # type: ignore[arg-type]  # no value is None here
        measured.bulk_seconds += clock() - started
        measured.bulk_calls += len(keys)

    def _time_each(self, keys: list[str], values: list[bytes | None], write: Kind, measured: Measured) -> None:
        """Each call timed alone; what is read is also looked at (not timed)."""
        get = self.store.get
        put = self._read_modify_write if write == "rmw" else self.store.put
        clock = time.perf_counter_ns
        got, read_ns, write_ns, empty_ns = [], [], [], []
        for key, value in zip(keys, values, strict=True):
            if value is None:
                began = clock()
                found = get(key)
                ended = clock()
                read_ns.append(ended - began)
                got.append((key, found))
            else:
                began = clock()
                put(key, value)
                ended = clock()
                write_ns.append(ended - began)
        for _ in keys:
            began = clock()
            ended = clock()
            empty_ns.append(ended - began)
        for kind, durations in (("get", read_ns), (write, write_ns), ("empty", empty_ns)):
            if durations:
                measured.record(kind, durations)
        for key, found in got:
            if found is None:
                measured.missing += 1
            else:
                head = read_value(found)
                measured.torn += head is None or key_of(head.key_index) != key

    def _read_modify_write(self, key: str, value: bytes) -> None:
        """Count one up: read, change, store only if nobody was in between, else again."""
        gets, cas, size = self.store.gets, self.store.cas, len(value)
        new = read_value(value)
        assert new is not None, "this worker made it"
        while True:
            old, version = gets(key)
            changes = int.from_bytes(old[4:8], "little") + 1
            if cas(key, make_value(new.key_index, changes, new.stamp, size), version):
                return

    # ---- Reading back ----------------------------------------------------------------------

    def save_notes(self, directory: str) -> None:
        """Write down what this worker wrote last to each key, for the others."""
        with open(f"{directory}/{self.index}", "wb") as file:
            self.last.tofile(file)

    def verify(self, directory: str) -> Verified:
        """Read this worker's share of the keys, and compare with everybody's notes."""
        found = Verified()
        notes = [self._notes_of(directory, writer) for writer in range(self.config.workers)]
        for begin in range(self.first, self.end, BATCH):
            indexes = range(begin, min(begin + BATCH, self.end))
            got = self.store.get_many(keys_of(indexes))
            for index in indexes:
                self._verify_one(index, got.get(key_of(index)), notes, found)
        return found

    def _verify_one(self, index: int, value: Any, notes: list[array[int]], found: Verified) -> None:
        if value is None:
            found.missing += 1
            return
        found.keys += 1
        head = read_value(value)
        if head is None or head.key_index != index:
            found.torn += 1
        elif head.writer >= len(notes) or notes[head.writer][index - self.first] != head.sequence:
            found.stale += 1
        else:
            found.counts += head.changes

    def _notes_of(self, directory: str, writer: int) -> array[int]:
        """What `writer` wrote last to each key of this worker's share."""
        notes = array("I")
        with open(f"{directory}/{writer}", "rb") as file:
            file.seek(notes.itemsize * self.first)
            notes.fromfile(file, self.end - self.first)
        return notes

"""One side of a comparison, in a child process: a peer, and what it can be asked to measure.

Keys are new `str` objects, made in batches of 10,000 just before the timed loop; values are distinct
`bytes`.  Each answer is in nanoseconds per call (or key), the empty loop subtracted: the median of its batches,
as it always costs the same, and an interruption of it must not make a call look cheaper.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterable
from statistics import median
from typing import Final, NamedTuple

from bench import peers
from shmkv.workload.keys import KEY_FORMAT, Stream, keys_of, uniform
from shmkv.workload.percentiles import Histogram

BATCH: Final = 10_000
MANY: Final = 100  # keys to a get_many or put_many


class Timed(NamedTuple):
    """Nanoseconds per call, and the same for the floor."""

    ns: float
    floor: float


class Side:
    """See the module; the parent calls the methods by name (harness.Child)."""

    def __init__(self, peer: str, seed: int = 1) -> None:
        self.peer: peers.Peer = peers.PEERS[peer]()
        self.seed = seed
        self.random = random.Random(seed)
        self.stream: Stream = uniform(1, seed)
        self.keys = 0
        self.value_size = 16
        self.made = 0
        self.opened = ""
        self.waiting: list[tuple[list[str], list[bytes]]] = []

    # ---- Life ------------------------------------------------------------------------------

    def open(self, keys: int, value_size: int = 16, name: str | None = None) -> str:
        """Make it; answers the store's name."""
        self.keys, self.value_size = keys, value_size
        self.stream = uniform(keys, self.seed)
        self.made = keys  # the values of `fill` come before
        self.opened = self.peer.open(keys, value_size, name)
        return self.opened

    def fill(self) -> None:
        """Load all keys (not timed), then freeze the garbage collector's view."""
        filler = bytes(self.value_size - 16)
        values = (
            map(b"%016d".__mod__, range(self.keys)) if not filler else (b"%016d" % i + filler for i in range(self.keys))
        )
        self.peer.load(zip(map(KEY_FORMAT.__mod__, range(self.keys)), values, strict=True))
        self.freeze()

    def freeze(self) -> None:
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        self.peer.close()

    def name(self) -> str:
        """The store's name, "" of a dict."""
        return self.opened

    # ---- Many calls in a loop --------------------------------------------------------------

    def get(self, batches: int) -> Timed:
        total, empty, floor = 0, [], []
        for _ in range(batches):
            keys = keys_of(self.stream(BATCH))
            total += self.peer.time_get(keys)
            empty.append(peers.time_empty(keys))
            floor.append(peers.time_floor(keys))
        return _timed(total, empty, floor, BATCH)

    def put(self, batches: int) -> Timed:
        """Overwrite random keys."""
        return self._puts(self.stream(BATCH) for _ in range(batches))

    def put_new(self, first: int, end: int) -> Timed:
        """Put the keys first <= index < end, which are not there yet, in order of their index."""
        return self._puts(list(range(begin, min(begin + BATCH, end))) for begin in range(first, end, BATCH))

    def _puts(self, batches: Iterable[list[int]]) -> Timed:
        total, calls, empty, floor = 0, 0, [], []
        for indexes in batches:
            keys, values = self._pairs(indexes)
            total += self.peer.time_put(keys, values)
            empty.append(peers.time_empty_pairs(keys, values))
            floor.append(peers.time_floor_pairs(keys, values))
            calls += len(indexes)
        return _timed(total, empty, floor, calls / len(empty))

    def get_many(self, batches: int) -> float:
        """Nanoseconds per key."""
        total = 0
        for _ in range(batches):
            keys = keys_of(self.stream(BATCH))
            many = [keys[i : i + MANY] for i in range(0, BATCH, MANY)]
            total += self.peer.time_get_many(many) - peers.time_empty(many)
        return total / (batches * BATCH)

    def put_many(self, batches: int) -> float:
        """Overwrite random keys; nanoseconds per key."""
        total = 0
        for _ in range(batches):
            keys, values = self._pairs(self.stream(BATCH))
            many = [list(zip(keys[i : i + MANY], values[i : i + MANY], strict=True)) for i in range(0, BATCH, MANY)]
            total += self.peer.time_put_many(many) - peers.time_empty(many)
        return total / (batches * BATCH)

    def load(self) -> float:
        """Seconds to take all keys from one iterator, making them included."""
        keys = map(KEY_FORMAT.__mod__, range(self.keys))
        pairs = zip(keys, map(b"%016d".__mod__, range(self.keys)), strict=True)
        began = time.perf_counter()
        self.peer.load(pairs)
        return time.perf_counter() - began

    def _pairs(self, indexes: list[int]) -> tuple[list[str], list[bytes]]:
        """New keys, and values that differ from all before."""
        filler = bytes(self.value_size - 16)
        first, self.made = self.made, self.made + len(indexes)
        return keys_of(indexes), [b"%016d" % i + filler for i in range(first, self.made)]

    # ---- Single calls ----------------------------------------------------------------------

    def latencies_get(self, batches: int) -> dict[str, dict[str, int]]:
        """Each call timed alone, beside an empty loop timed the same way for as long."""
        get = self.peer.single_get()
        calls, empty, clock = Histogram(), Histogram(), time.perf_counter_ns
        for _ in range(batches):
            keys = keys_of(self.stream(BATCH))
            durations = []
            for key in keys:
                began = clock()
                get(key)
                ended = clock()
                durations.append(ended - began)
            calls.record(durations)
            empty.record(_empty_for(sum(durations)))
        return {"calls": calls.summary(), "empty": empty.summary()}

    def latencies_put_new(self) -> dict[str, dict[str, int]]:
        """The same for putting all keys into an empty store, its growth included."""
        put = self.peer.single_put()
        calls, empty, clock = Histogram(), Histogram(), time.perf_counter_ns
        for first in range(0, self.keys, BATCH):
            keys, values = self._pairs(list(range(first, min(first + BATCH, self.keys))))
            durations = []
            for key, value in zip(keys, values):  # noqa: B905
                began = clock()
                put(key, value)
                ended = clock()
                durations.append(ended - began)
            calls.record(durations)
            empty.record(_empty_for(sum(durations)))
        return {"calls": calls.summary(), "empty": empty.summary()}

    # ---- At once with another process ------------------------------------------------------

    def prepare(self, batches: int) -> None:
        """Make keys and values for the next `gets_from` or `puts_from`."""
        self.waiting = [self._pairs(self.stream(BATCH)) for _ in range(batches)]

    def gets_from(self, start: float) -> tuple[float, float]:
        """Read what was prepared from `start` on (monotonic clock); (nanoseconds per call, when it ended)."""
        _wait_until(start)
        total = sum(self.peer.time_get(keys) for keys, _ in self.waiting)
        ended = time.monotonic()
        empty = median(peers.time_empty(keys) for keys, _ in self.waiting)
        return (total / len(self.waiting) - empty) / BATCH, ended

    def puts_from(self, start: float) -> tuple[float, float]:
        """Overwrite what was prepared from `start` on."""
        _wait_until(start)
        total = sum(self.peer.time_put(keys, values) for keys, values in self.waiting)
        ended = time.monotonic()
        empty = median(peers.time_empty_pairs(keys, values) for keys, values in self.waiting)
        return (total / len(self.waiting) - empty) / BATCH, ended


class Attacher:
    """A fresh process that attaches to a store again and again."""

    def __init__(self) -> None:
        from shmkv import Store

        self.store = Store

    def attach(self, name: str, times: int) -> list[int]:
        """Nanoseconds of each `Store.attach`, the first one included."""
        durations = []
        for _ in range(times):
            began = time.perf_counter_ns()
            store = self.store.attach(name)
            durations.append(time.perf_counter_ns() - began)
            store.close()
        return durations

    def close(self) -> None: ...


def _timed(total: int, empty: list[int], floor: list[int], calls: float) -> Timed:
    """From the sum of all batches, and each batch's empty loop and floor; `calls` in a batch."""
    nothing = median(empty)
    return Timed((total / len(empty) - nothing) / calls, (median(floor) - nothing) / calls)


def _empty_for(ns: int) -> list[int]:
    """Durations of nothing at all, timed one by one for `ns` nanoseconds."""
    clock = time.perf_counter_ns
    durations: list[int] = []
    end = clock() + ns
    ended = 0
    while ended < end:
        began = clock()
        ended = clock()
        durations.append(ended - began)
    return durations


def _wait_until(start: float) -> None:
    """Sleep, then spin: both processes begin within a microsecond."""
    time.sleep(max(0.0, start - time.monotonic() - 0.002))
    while time.monotonic() < start:
        pass

"""A store against a dict: how long each call takes, as a ratio in the same run.

    python -m bench.compare [--keys N] [--rounds R] [--only SECTION ...]

Two processes, one with a dict and one with the store, pinned to one core, run in turns A B A B; medians
over the rounds.  Keys are `user:%08d`, new `str` objects made in batches of 10,000 just before the timed
loop, so that neither side profits from a cached hash or from being handed its own key object; values are
distinct `bytes` of 16 bytes.  The empty loop is subtracted on both sides; *floor* is the same loop over
a method in C that does nothing.  The garbage collector is frozen.

What this does not say: a dict lives in one process, forgets everything at its end, and needs no lock
between the threads of one process.  It is the fastest thing that Python has, which is why it is the peer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Final

from bench.harness import Child, Result, Row, arguments, pin_to, ratio_row, region_blocks
from bench.side import BATCH, Timed

KEYS: Final = 10_000_000
ROUNDS: Final = 9
SIZES: Final = (1_000, 100_000, 1_000_000, KEYS)
BATCHES: Final = 20  # of 10,000 calls in one turn
SEGMENTS: Final = 20  # turns in which a container grows to its full size
ATTACHES: Final = 100

GET_BARS: Final = {1_000: 1.5, 100_000: 0.65, 1_000_000: 0.65, 10_000_000: 0.65}


class Comparison:
    """One run: its sections add rows to the result."""

    def __init__(self, result: Result, keys: int, rounds: int, batches: int) -> None:
        self.result = result
        self.keys = keys
        self.rounds = rounds
        self.batches = batches
        self.core, self.other_core = pin_to()

    @contextmanager
    def sides(self, keys: int, value_size: int = 16, *, fill: bool = True) -> Iterator[tuple[Child, Child]]:
        """(dict, store), each in its process, on one core."""
        with (
            Child("bench.side:Side", self.core, "dict") as other,
            Child("bench.side:Side", self.core, "shmkv") as store,
        ):
            for child in (other, store):
                child.ask("open", keys, value_size)
                if fill:
                    child.ask("fill")
            yield other, store

    def turns(self, other: Child, store: Child, what: str) -> tuple[list[Timed], list[Timed]]:
        """Both sides in turns; one turn each before that is not counted."""
        theirs, ours = [], []
        for number in range(self.rounds + 1):
            a, b = other.ask(what, self.batches), store.ask(what, self.batches)
            if number:
                theirs.append(a)
                ours.append(b)
        return theirs, ours

    def compare(self, what: str, theirs: list[Timed], ours: list[Timed], bar: float | None) -> None:
        """A row of two lists of turns."""
        floor = [t.floor for t in ours]
        self.result.add(ratio_row(what, [t.ns for t in ours], [t.ns for t in theirs], bar, floor=floor))

    # ---- Sections --------------------------------------------------------------------------

    def single(self) -> None:
        """get, put and the batch calls, by number of keys; latency, attaching."""
        for keys in sorted({min(size, self.keys) for size in SIZES}):
            with self.sides(keys) as (other, store):
                theirs, ours = self.turns(other, store, "get")
                self.compare(f"get hit, uniform, N = {keys:,}", theirs, ours, GET_BARS.get(keys, 0.65))
                if keys < self.keys and keys < 1_000_000:
                    continue
                dict_get = [t.ns for t in theirs]
                largest = keys == self.keys
                theirs, ours = self.turns(other, store, "put")
                self.compare(f"put overwrite, N = {keys:,}", theirs, ours, 0.65 if largest else None)
                self._batches(store, keys, dict_get, largest)
                if largest:
                    self._latency_of_get(store)
                    self._attach(store)

    def _batches(self, store: Child, keys: int, dict_get: list[float], largest: bool) -> None:
        many: list[float] = []
        put: list[float] = []
        put_many: list[float] = []
        for number in range(self.rounds + 1):
            calls = self.batches
            answers = store.ask("get_many", calls), store.ask("put", calls).ns, store.ask("put_many", calls)
            if number:
                for answer, kept in zip(answers, (many, put, put_many), strict=True):
                    kept.append(answer)
        what = f"get_many of 100, per key, against dict.get, N = {keys:,}"
        self.result.add(ratio_row(what, many, dict_get, 0.30 if largest else None))
        what = f"put_many of 100, per key, against a single put, N = {keys:,}"
        self.result.add(ratio_row(what, put_many, put, 0.70 if largest else None))

    def _latency_of_get(self, store: Child) -> None:
        told = store.ask("latencies_get", 10 * self.rounds)
        self.result.details["latency of get"] = told
        for point, bar in (("p95", 2_000), ("p99", 5_000), ("p99.9", 50_000)):
            self._latency(f"get, single calls timed, {point}", told, point, bar)

    def _latency(self, what: str, told: dict[str, dict[str, int]], point: str, bar: float) -> None:
        empty = told["empty"][point]
        note = f"an empty loop timed the same way: {empty:,} ns"
        self.result.add(Row(what, told["calls"][point], "ns", bar, floor=empty, note=note))

    def _attach(self, store: Child) -> None:
        name = self._name_of(store)
        first, later = [], []
        for _ in range(self.rounds):
            with Child("bench.side:Attacher", self.other_core) as attacher:
                durations = attacher.ask("attach", name, ATTACHES)
            first.append(durations[0] / 1e6)
            later += [ns / 1e6 for ns in durations[1:]]
        what = f"attach to a store of {self.keys:,}"
        self.result.add(
            Row(f"{what}, first in a process", median(first), "ms", 2, lowest=min(first), highest=max(first))
        )
        self.result.add(Row(f"{what}, again", median(later), "ms", 2, lowest=min(later), highest=max(later)))

    def _name_of(self, store: Child) -> str:
        name = store.ask("name")
        assert isinstance(name, str)
        return name

    def growth(self) -> None:
        """Putting new keys until there are N, in processes that are new each round."""
        theirs, ours, floor = [], [], []
        for _ in range(self.rounds):
            with self.sides(self.keys, fill=False) as (other, store):
                a = b = c = 0.0
                for number in range(SEGMENTS):
                    span = self.keys * number // SEGMENTS, self.keys * (number + 1) // SEGMENTS
                    a += other.ask("put_new", *span).ns * (span[1] - span[0])
                    timed = store.ask("put_new", *span)
                    b += timed.ns * (span[1] - span[0])
                    c += timed.floor * (span[1] - span[0])
                theirs.append(a / self.keys)
                ours.append(b / self.keys)
                floor.append(c / self.keys)
        self.result.add(ratio_row(f"put new, up to N = {self.keys:,}", ours, theirs, 0.80, floor=floor))

    def latency_of_put(self) -> None:
        """Single puts of new keys up to N, growth included."""
        with Child("bench.side:Side", self.core, "shmkv") as store:
            store.ask("open", self.keys)
            store.ask("freeze")
            told = store.ask("latencies_put_new")
        self.result.details["latency of put"] = told
        what = f"put new up to N = {self.keys:,}, single calls timed"
        self._latency(f"{what}, p99.9", told, "p99.9", 200_000)
        above = (told["calls"]["max"] - told["empty"]["max"]) / 1e6
        note = f"max {told['calls']['max'] / 1e6:.2f} ms, of the empty loop {told['empty']['max'] / 1e6:.2f} ms"
        self.result.add(Row(f"{what}, max above the empty loop's", above, "ms", 5, note=note))

    def large(self) -> None:
        """Values of 1 KiB."""
        keys = min(1_000_000, self.keys)
        with self.sides(keys, 1024) as (other, store):
            theirs, ours = self.turns(other, store, "get")
            self.compare(f"get hit, values of 1 KiB, N = {keys:,}", theirs, ours, 1.3)
            theirs, ours = self.turns(other, store, "put")
            self.compare(f"put overwrite, values of 1 KiB, N = {keys:,}", theirs, ours, 1.5)

    def together(self) -> None:
        """Two readers at once, and a reader beside a writer, on two cores."""
        if self.core == self.other_core:
            print("two processes at once: skipped, there is only one core")
            return
        keys = min(1_000_000, self.keys)
        with (
            self.sides(keys) as (dict_1, store_1),
            Child("bench.side:Side", self.other_core, "dict", 2) as dict_2,
            Child("bench.side:Side", self.other_core, "shmkv", 2) as store_2,
        ):
            dict_2.ask("open", keys)
            dict_2.ask("fill")
            store_2.ask("open", keys, 16, self._name_of(store_1))
            self._readers(keys, (dict_1, dict_2), (store_1, store_2))
            self._beside_writer(keys, (dict_1, dict_2), (store_1, store_2))

    def _readers(self, keys: int, dicts: tuple[Child, Child], stores: tuple[Child, Child]) -> None:
        gains: dict[str, list[float]] = {"dict": [], "shmkv": []}
        for number in range(self.rounds + 1):
            for name, (one, two) in (("dict", dicts), ("shmkv", stores)):
                alone = 1 / self._at_once([(one, "gets_from", 1)])[0]
                both = sum(1 / ns for ns in self._at_once([(one, "gets_from", 1), (two, "gets_from", 1)]))
                if number:
                    gains[name].append(both / alone)
        what = f"two readers at once, times one, against a dict in each, N = {keys:,}"
        note = f"two stores' readers reach {median(gains['shmkv']):.2f} times one"
        self.result.add(ratio_row(what, gains["shmkv"], gains["dict"], 0.95, at_least=True, in_ns=False, note=note))

    def _beside_writer(self, keys: int, dicts: tuple[Child, Child], stores: tuple[Child, Child]) -> None:
        kept: dict[str, list[float]] = {"dict": [], "shmkv": []}
        for number in range(self.rounds + 1):
            for name, (one, two) in (("dict", dicts), ("shmkv", stores)):
                alone = self._at_once([(one, "gets_from", 1)])[0]
                beside = self._beside(one, two)
                if number:
                    kept[name].append(alone / beside)
        what = f"reader beside a writer, times alone, against a dict in each, N = {keys:,}"
        note = f"a store's reader keeps {median(kept['shmkv']):.2f} of its speed"
        self.result.add(ratio_row(what, kept["shmkv"], kept["dict"], 0.90, at_least=True, in_ns=False, note=note))

    def _beside(self, reader: Child, writer: Child) -> float:
        """Nanoseconds per get while the other writes all the time: it gets more to do until it does not end first."""
        for factor in (2, 4, 8, 16):
            (ns, reader_ended), (_, writer_ended) = self._start(
                [(reader, "gets_from", 1), (writer, "puts_from", factor)]
            )
            if writer_ended >= reader_ended:
                return ns
        raise RuntimeError("the writer always ended before the reader: is the machine busy?")

    def _at_once(self, jobs: list[tuple[Child, str, int]]) -> list[float]:
        """Start all at one instant; nanoseconds per call of each."""
        return [ns for ns, _ in self._start(jobs)]

    def _start(self, jobs: list[tuple[Child, str, int]]) -> list[tuple[float, float]]:
        """(nanoseconds per call, when it ended) of each; `factor` times as many calls."""
        for child, _, factor in jobs:
            child.ask("prepare", self.batches * factor)
        start = time.monotonic() + 0.05
        for child, what, _ in jobs:
            child.tell(what, start)
        return [child.answer() for child, _, _ in jobs]

    def loading(self) -> None:
        """Taking N pairs from one iterator, in processes that are new each round."""
        theirs, ours = [], []
        for _ in range(self.rounds):
            with self.sides(self.keys, fill=False) as (other, store):
                theirs.append(other.ask("load") * 1e9 / self.keys)
                ours.append(store.ask("load") * 1e9 / self.keys)
        what = f"load of {self.keys:,} pairs, put_many of 1,000 against dict(iterator)"
        self.result.add(ratio_row(what, ours, theirs, 0.80, note="making keys and values is in both"))

    def empty(self) -> None:
        """What an empty store takes."""
        from shmkv import Store

        for mib in (16, 1024, 8192):
            with Store.create(f"compare.empty.{os.getpid()}", mib << 20) as store:
                try:
                    taken = region_blocks(store.name)
                finally:
                    store.unlink()
            bar = (1 << 20) + 0.0015 * (mib << 20)
            self.result.add(Row(f"an empty store of {mib:,} MiB, KiB allocated", taken / 1024, "KiB", bar / 1024))


def main() -> None:
    parser = arguments(__doc__, KEYS, ROUNDS)
    sections: dict[str, Callable[[Comparison], None]] = {
        "single": Comparison.single,
        "large": Comparison.large,
        "together": Comparison.together,
        "growth": Comparison.growth,
        "latency": Comparison.latency_of_put,
        "loading": Comparison.loading,
        "empty": Comparison.empty,
    }
    parser.add_argument(
        "--batches", type=int, default=BATCHES, help=f"of {BATCH:,} calls in a turn (default: {BATCHES})"
    )
    parser.add_argument("--only", nargs="+", choices=sections, help="only these sections")
    args = parser.parse_args()
    whole = args.keys == KEYS and args.rounds >= ROUNDS and args.batches >= BATCHES and not args.only
    details = {"keys": args.keys, "rounds": args.rounds, "batches": args.batches, "batch": BATCH}
    comparison = Comparison(
        Result("compare", whole, args.results, details=details), args.keys, args.rounds, args.batches
    )
    for name, section in sections.items():
        if not args.only or name in args.only:
            section(comparison)
    comparison.result.write()


if __name__ == "__main__":
    main()

"""Fragmentation: overwrites with values of mixed sizes, then `compact()`.

    python -m bench.churn [--keys N] [--overwrites N] [--rounds R]

A live set of 1,000,000 keys gets 50,000,000 random overwrites with values of 16 to 512 bytes; then the
store is compacted, and what it takes is compared with a second store that is freshly loaded with the same
data.  `put` is timed all along, the empty loop subtracted; its cost over each million is compared with
the first million of overwrites.

What this does not say: sizes are drawn evenly.  A workload that fills a store with one size and then with
another is harder for a while; tests/ has that one.
"""

from __future__ import annotations

import os
import random
from statistics import median
from time import perf_counter, perf_counter_ns
from typing import Any, Final

from bench import peers
from bench.harness import Child, Result, Row, arguments, pin_to, region_blocks
from shmkv.workload.keys import keys_of, uniform

KEYS: Final = 1_000_000
OVERWRITES: Final = 50_000_000
SMALLEST, LARGEST = 16, 512
BATCH: Final = 10_000
MILLION: Final = 1_000_000
ENTRY_BYTES: Final = 440  # 264 for the mean value, 13 for the key, and room for fragmentation: the store is 2/3 full
BARS: Final = {"used": 1.25, "committed": 1.25, "put": 1.3}


class Churner:
    """The child that owns the store."""

    def __init__(self, keys: int) -> None:
        from shmkv import Store

        self.keys = keys
        self.random = random.Random(1)
        self.stream = uniform(keys, 2)
        # Values are cut from this one: making them costs little, and no two neighbours are equal.
        self.noise = self.random.randbytes(MILLION)
        size = keys * ENTRY_BYTES + (32 << 20)
        self.store = Store.create(f"churn.{os.getpid()}", size)
        self.fresh = Store.create(f"churn.fresh.{os.getpid()}", size)

    def load(self) -> None:
        """Put all keys in, with random values."""
        for begin in range(0, self.keys, BATCH):
            indexes = range(begin, min(begin + BATCH, self.keys))
            self.store.put_many(list(zip(keys_of(indexes), self._values(len(indexes)), strict=True)))

    def overwrite(self, calls: int) -> float:
        """Nanoseconds per put of random keys."""
        put, total = self.store.put, 0
        for _ in range(0, calls, BATCH):
            keys, values = keys_of(self.stream(BATCH)), self._values(BATCH)
            total -= peers.time_empty_pairs(keys, values)
            began = perf_counter_ns()
            for key, value in zip(keys, values):  # noqa: B905
                put(key, value)
            total += perf_counter_ns() - began
        return total / (-(-calls // BATCH) * BATCH)

    def taken(self) -> dict[str, int]:
        """What the store takes now."""
        return self._taken(self.store)

    def compact(self) -> dict[str, Any]:
        """Compact, as the only process that is attached."""
        began = perf_counter()
        report = self.store.compact()
        seconds = perf_counter() - began
        told = {name: getattr(report, name) for name in report.__slots__}
        return {**told, "seconds": seconds, **self.taken()}

    def load_fresh(self) -> dict[str, int]:
        """Load the second store with the same data; answers what it takes."""
        pairs: list[tuple[Any, Any]] = []
        for pair in self.store.items():
            pairs.append(pair)
            if len(pairs) == BATCH:
                self.fresh.put_many(pairs)
                pairs = []
        self.fresh.put_many(pairs)
        assert len(self.fresh) == len(self.store) == self.keys, "the same data"
        return self._taken(self.fresh)

    def check(self) -> list[str]:
        """Problems that `check()` finds."""
        return [str(problem) for problem in self.store.check().problems]

    def close(self) -> None:
        for store in (self.store, self.fresh):
            store.unlink()
            store.close()

    def _values(self, count: int) -> list[bytes]:
        noise, rand = self.noise, self.random.random
        span, room = LARGEST - SMALLEST + 1, len(self.noise) - LARGEST
        starts = [int(rand() * room) for _ in range(count)]
        return [noise[at : at + SMALLEST + int(rand() * span)] for at in starts]

    def _taken(self, store: Any) -> dict[str, int]:
        stats = store.stats()
        return {"used": stats.used, "committed": stats.committed, "blocks": region_blocks(store.name)}


def main() -> None:
    parser = arguments(__doc__, KEYS, 1)
    parser.add_argument("--overwrites", type=int, default=OVERWRITES, help=f"default: {OVERWRITES:,}")
    args = parser.parse_args()
    whole = args.keys == KEYS and args.overwrites == OVERWRITES
    result = Result("churn", whole, args.results, details={"keys": args.keys, "overwrites": args.overwrites})
    step = min(MILLION, max(BATCH, args.overwrites // 10))
    for _ in range(args.rounds):
        with Child("bench.churn:Churner", pin_to()[0], args.keys) as churner:
            churner.ask("load")
            costs = [churner.ask("overwrite", step) for _ in range(max(2, args.overwrites // step))]
            before, compacted = churner.ask("taken"), churner.ask("compact")
            fresh = churner.ask("load_fresh")
            problems = churner.ask("check")
        _report(result, costs, before, compacted, fresh, problems, step)
    result.write()


def _report(
    result: Result,
    costs: list[float],
    before: dict[str, int],
    compacted: dict[str, Any],
    fresh: dict[str, int],
    problems: list[str],
    step: int,
) -> None:
    result.details |= {"put_ns": costs, "before": before, "compacted": compacted, "fresh": fresh, "problems": problems}
    first, later = costs[0], costs[1:]
    what = f"put during it, per {step:,}, against the first {step:,}"
    result.add(
        Row(
            f"{what}, median",
            median(later) / first,
            bar=BARS["put"],
            ours=median(later),
            peer=first,
            lowest=min(later) / first,
            highest=max(later) / first,
        )
    )
    for name in ("used", "committed"):
        result.add(Row(f"{name} before compact(), against freshly loaded", before[name] / fresh[name]))
        note = f"{compacted[name]:,} of {fresh[name]:,} bytes; compact() took {compacted['seconds']:.2f} s"
        row = Row(
            f"{name} after compact(), against freshly loaded", compacted[name] / fresh[name], bar=BARS[name], note=note
        )
        result.add(row)
    blocks = compacted["blocks"] / fresh["blocks"]
    result.add(Row("memory that the system counts after it, against freshly loaded", blocks, bar=BARS["committed"]))
    result.add(Row("problems that check() finds", float(len(problems)), "", bar=0.0))


if __name__ == "__main__":
    main()

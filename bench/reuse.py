"""Room after a change of sizes: what a used store takes, beside a fresh one that holds the same items.

    python -m bench.reuse [--mib N] [--latency-mib N] [--results DIR]

A store is filled with values of one size; of these a share is kept, spread evenly, and the rest is deleted.  Then it
is filled with values of another size, without compact(): how many it takes is divided by how many a fresh store takes
that holds just the kept ones.  Eight sizes to eight, four shares, stores that refuse and stores that evict: 512
changes; a row is the worst of 32 of them.  Where a value takes a quarter of the store, a row says by how many values
it fell short.

In an evicting store there is no end of filling: both stores are given the same puts, a third more than a fresh one
takes, and what is left in them is counted.  An old value that is still there counts as so many new ones as take its
room in a fresh store: whether one of 4 MB is evicted depends on chance, and is another question.

Last, each put of 500 KB into a store that was full of 100-byte values, of which 5 % are kept, is timed: most of them
have to move what lies in the way.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.harness import RESULTS, Result, Row
from shmkv import Store, StoreFullError

MIB: Final = 1 << 20
STORE_MIB: Final = 16
LATENCY_MIB: Final = 128
SHARES: Final = (0, 1, 5, 20)  # per cent that are kept
BAR: Final = 0.85
BATCH: Final = 100
SMALL: Final = 2_000  # bytes; such values are put in batches, as long as whole batches fit
QUARTER: Final = "a quarter"
NUMBERS: Final = itertools.count()


def sizes_of(store_bytes: int) -> dict[str, int]:
    """The sizes of values, in bytes."""
    fixed = {"16 B": 16, "100 B": 100, "1.5 KB": 1_500, "60 KB": 60_000, "70 KB": 70_000, "500 KB": 500_000}
    every = {**fixed, "2 MB": 2_000_000, QUARTER: store_bytes // 4}
    return {name: size for name, size in every.items() if size <= store_bytes // 4}


@contextmanager
def made(store_bytes: int, on_full: str) -> Iterator[Store]:
    store = Store.create(
        f"reuse.{os.getpid()}.{next(NUMBERS)}", store_bytes, on_full="evict" if on_full == "evict" else "error"
    )
    try:
        yield store
    finally:
        store.unlink()
        store.close()


def fill(store: Store, prefix: str, size: int, most: int | None = None) -> int:
    """Put values until the store is full, or `most` of them; how many."""
    value, count, step = b"v" * size, 0, BATCH if size <= SMALL else 1
    while step and (most is None or count < most):
        now = step if most is None else min(step, most - count)
        try:
            store.put_many({f"{prefix}{count + i}": value for i in range(now)})
            count += now
        except StoreFullError:
            step //= 8
    return count


def keep(store: Store, prefix: str, count: int, percent: int) -> list[str]:
    """Delete all but that share of the values; the keys that are left."""
    step = 100 // percent if percent else count + 1
    kept = {f"{prefix}{i}" for i in range(step // 2, count, step)} if percent else set()
    gone = [key for key in store if key not in kept]
    for i in range(0, len(gone), 1_000):
        store.delete_many(gone[i : i + 1_000])
    return sorted(key for key in kept if key in store)


def held(store: Store, size: int, puts: int, kept: list[str], weight: float) -> float:
    """What an evicting store holds after as many puts, in new values; an old one weighs `weight` of them."""
    fill(store, "new", size, puts)
    return sum(1 for _ in store.scan("new")) + weight * sum(key in store for key in kept)


def change(
    store_bytes: int, on_full: str, old: int, new: int, percent: int, room: dict[int, int]
) -> tuple[float, float]:
    """How many new values the used store takes, and how many a fresh one does."""
    with made(store_bytes, on_full) as used, made(store_bytes, on_full) as fresh:
        first = room[old] + room[old] // 10
        count = fill(used, "old", old, None if on_full == "error" else first)
        kept = keep(used, "old", count, percent)
        for key in kept:
            fresh[key] = b"v" * old
        if on_full == "error":
            found, most = float(fill(used, "new", new)), float(fill(fresh, "new", new))
        else:
            puts, weight = room[new] + room[new] // 3 + 2, room[new] / room[old]
            found, most = (held(store, new, puts, kept, weight) for store in (used, fresh))
        assert used.check().ok, "the used store is whole"
        return found, most


def puts_that_make_room(store_bytes: int) -> list[float]:
    """Seconds of each put of 500 KB into a store of scattered small items, until it is full."""
    times: list[float] = []
    with made(store_bytes, "error") as store:
        keep(store, "old", fill(store, "old", 100), 5)
        value = b"v" * 500_000
        try:
            while True:
                begin = time.perf_counter()
                store[f"new{len(times)}"] = value
                times.append(time.perf_counter() - begin)
        except StoreFullError:
            return times


def add_changes(result: Result, store_bytes: int, on_full: str) -> None:
    sizes = sizes_of(store_bytes)
    room = {}
    for size in sizes.values():
        with made(store_bytes, "error") as store:
            room[size] = fill(store, "room", size)
    for name, new in sizes.items():
        cells = []
        for (old_name, old), percent in itertools.product(sizes.items(), SHARES):
            found, most = change(store_bytes, on_full, old, new, percent, room)
            cells.append({"old": old_name, "kept": percent, "found": found, "fresh": most})
        result.details[f"{on_full}, to {name}"] = cells
        what = f"{on_full}: from any size to {name}, worst of {len(cells)}"
        if name == QUARTER:
            short = max(cell["fresh"] - cell["found"] for cell in cells)
            result.add(Row(what, short, "values short", 1))
        else:
            result.add(Row(what, min(cell["found"] / max(1, cell["fresh"]) for cell in cells), "x", BAR, at_least=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=STORE_MIB, help=f"of each store (default: {STORE_MIB})")
    parser.add_argument("--latency-mib", type=int, default=LATENCY_MIB, help=f"(default: {LATENCY_MIB})")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: bench/results")
    args = parser.parse_args()
    whole = (args.mib, args.latency_mib) == (STORE_MIB, LATENCY_MIB)
    result = Result("reuse", whole, args.results, details={"mib": args.mib})
    times = sorted(puts_that_make_room(args.latency_mib * MIB))
    for percent in (50, 99, 100):
        at = min(len(times) - 1, len(times) * percent // 100)
        figure = times[at] * 1e3
        result.add(Row(f"a put of 500 KB that has to make room, of {len(times)}: p{percent}", figure, "ms"))
    for on_full in ("error", "evict"):
        add_changes(result, args.mib * MIB, on_full)
    result.write()


if __name__ == "__main__":
    main()

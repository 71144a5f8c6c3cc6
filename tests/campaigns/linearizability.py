"""Recorded histories of several processes, some of them killed: each could be that of one process alone."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from building import Builder
from checker import NEVER, History, UndecidedError, explain, histories_in

from .campaign import Campaign, Figures, join
from .programs import run_program

CHUNK = 50  # histories that are recorded by one run of the program
FIRST = 1_000_000  # seeds of the long run begin here


def record(path: Path, flavour: str, seed: int, count: int) -> list[History]:
    """Histories of the seeds `seed` to `seed + count - 1`, by tests/core/history.c."""
    histories = list(histories_in(run_program(path, flavour, seed, count, limit=60 + count)))
    assert [history.seed for history in histories] == list(range(seed, seed + count)), "histories are missing"
    return histories


def record_chunks(path: Path, flavour: str, seed: int, count: int) -> Iterator[list[History]]:
    """The same in chunks; each is recorded while the one before is checked."""
    chunks = [(seed + first, min(CHUNK, count - first)) for first in range(0, count, CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(record, path, flavour, *chunks[0])
        for chunk in chunks[1:]:
            some = coming.result()
            coming = pool.submit(record, path, flavour, *chunk)
            yield some
        yield coming.result()


def judge(histories: Iterable[History], where: str) -> Figures:
    """Checks each; AssertionError with the operations that have no place."""
    figures = Figures(histories=0, operations=0, overlapping_operations=0, killed_operations=0, histories_undecided=0)
    for history in histories:
        operations = history.operations
        figures["histories"] += 1
        figures["operations"] += len(operations)
        figures["killed_operations"] += sum(operation.end == NEVER for operation in operations)
        # Time counts the beginnings and ends of all, so whoever was alone has two numbers that are neighbours.
        figures["overlapping_operations"] += sum(operation.end != operation.begin + 1 for operation in operations)
        try:
            fault = explain(operations)
        except UndecidedError:
            figures["histories_undecided"] += 1
        else:
            assert fault is None, f"history {history.seed} ({where}) is not linearizable: {fault}"
    return figures


def linearizability(scratch: Path, seed: int, counts: dict[str, int], *flags: str) -> Figures:
    """So many histories of each flavour; `flags` are for the compiler."""
    builder, figures = Builder(scratch), Figures()
    start = time.monotonic()
    for flavour, count in counts.items():
        path = builder.program("history", flavour, *flags)
        for some in record_chunks(path, flavour, seed, count):
            figures = join(figures, judge(some, flavour))
        seed += count
    return {**figures, "seconds": round(time.monotonic() - start)}


def run(part: int, scratch: Path) -> Figures:
    return linearizability(scratch, FIRST + 10_000 * part, {"points": 1000, "plain": 200, "asan": 50})


CAMPAIGN = Campaign(
    name="linearizability",
    claim="Every operation takes effect at one instant between its call and its return, batches and snapshots too",
    how="Several processes, some with two threads, ask one store at once for get, put, add, replace, cas, delete, "
    "incr, put_many, get_many, delete_many, a walk of a bucket and clear, on three to five keys; they pause and die at "
    "any step inside these. Each history of 200 operations is searched for an order in which one process alone would "
    "have got the same answers (Wing and Gong 1993, Lowe 2017)",
    parts=8,
    run=run,
    at_least={
        "histories": 5_000,
        "operations": 1_000_000,
        "overlapping_operations": 200_000,
        "killed_operations": 1_000,
    },
    at_most={"histories_undecided": 0},
    commands={"cc": "gcc"},
)

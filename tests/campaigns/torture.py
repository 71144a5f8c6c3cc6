"""Many processes in one store, killed and stopped at random: nothing acknowledged is lost, nobody hangs."""

from __future__ import annotations

import time
from pathlib import Path

from building import Builder

from .campaign import Campaign, Figures, join
from .programs import figures_in, run_module, run_program

LIMIT_FACTOR = 2  # a round that has begun ends, and sanitizers are slow
LIMIT_MORE = 60


def storm(builder: Builder, flavour: str, seed: int, seconds: float, *flags: str) -> Figures:
    """tests/core/torture.c in one flavour; `flags` are for the compiler."""
    program = builder.program("torture", flavour, *flags)
    limit = LIMIT_FACTOR * seconds + LIMIT_MORE
    return figures_in(run_program(program, flavour, seed, seconds, limit=limit))


def python_storm(seed: int, seconds: float) -> Figures:
    """The same through `shmkv.Store`; its figures are counted twice, once under names of their own."""
    limit = LIMIT_FACTOR * seconds + LIMIT_MORE
    own = figures_in(run_module("campaigns.python_torture", seed, seconds, limit=limit))
    return {**own, **{name.removeprefix("python_"): value for name, value in own.items()}}


def torture(scratch: Path, seed: int, plain: float, points: float, python: float, asan: float = 0) -> Figures:
    """So many seconds of each; a violation says the seed."""
    builder, figures = Builder(scratch), Figures()
    start = time.monotonic()
    try:
        figures = join(figures, storm(builder, "plain", seed, plain))
        figures = join(figures, storm(builder, "points", seed + 1, points))
        if asan:
            figures = join(figures, storm(builder, "asan", seed + 2, asan))
        figures = join(figures, python_storm(seed + 3, python))
    except AssertionError as error:
        raise AssertionError(f"torture with seed {seed}: {error}") from error
    return {**figures, "seconds": round(time.monotonic() - start)}


def run(part: int, scratch: Path) -> Figures:
    return torture(scratch, 1000 + 10 * part, plain=50, points=20, python=9, asan=10)


CAMPAIGN = Campaign(
    name="torture",
    claim="Whatever dies, nothing acknowledged is lost, nothing is torn, stale or there twice, and nobody hangs",
    how="Processes with threads write keys of their own and common ones, in stores so small that they fill, evict and "
    "evacuate all the time; they fork in the middle, lose all their descriptors, and are killed and stopped at random. "
    "Each value tells whose it is and which step wrote it; each step is noted before and after its call in memory that "
    "outlives it. Readers judge all that they see; at the end of each round the store is checked, compacted and empty",
    parts=10,
    run=run,
    at_least={"kills": 10_000, "operations": 100_000_000, "python_kills": 500, "stops_for_seconds": 50},
    at_most={"largest_reader_p999_us": 1_000},
    commands={"cc": "gcc"},
)

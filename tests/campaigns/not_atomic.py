"""The recorder and the checker of histories themselves: an engine that is not atomic does not pass."""

from __future__ import annotations

from pathlib import Path

from building import Builder
from mutants import BREAK_ATOMICITY, MUTANTS, Mutant

from .campaign import Campaign, Figures
from .linearizability import judge, record_chunks
from .mutants import mutated_engine

HISTORIES = 2_000  # at most; most faults show in the first hundred
FLAVOUR = "points"
BREAKING = [mutant for mutant in MUTANTS if mutant.name in BREAK_ATOMICITY]


def show(mutant: Mutant, seed: int, scratch: Path) -> str:
    """Why a history of an engine with the fault cannot be; AssertionError if all could be."""
    program = Builder(scratch, mutated_engine(mutant, scratch)).program("history", FLAVOUR)
    try:
        for some in record_chunks(program, FLAVOUR, seed, HISTORIES):
            judge(some, FLAVOUR)
    except AssertionError as error:
        return str(error)
    raise AssertionError(f"{mutant.name} ({mutant.fault}) is in no history of {HISTORIES}")


def run(part: int, scratch: Path) -> Figures:
    mutant = BREAKING[part]
    why = show(mutant, 1, scratch)
    print(f"{mutant.name}: {why.splitlines()[0]}")
    checked = "is not linearizable" in why
    return {"faults": 1, "found_by_the_checker": checked, "found_by_the_recorder": not checked}


CAMPAIGN = Campaign(
    name="not_atomic",
    claim="A store that is not atomic would not pass for one that is.",
    how="Each fault of `tests/mutants.py` that breaks atomicity is compiled into a copy of the engine, and histories "
    "are recorded as for `linearizability`, until one shows it: no order explains its answers, or its recorder met a "
    "torn value, a broken invariant, or a lock that nobody gives back.",
    parts=len(BREAKING),
    run=run,
    at_least={"faults": len(BREAK_ATOMICITY)},
    commands={"cc": "gcc"},
)

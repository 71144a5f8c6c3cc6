"""Campaign: every call of the Python API, by several handles and processes at once on one store, against a dict."""

from __future__ import annotations

import functools
from pathlib import Path

from helpers import Forked
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from machine.actors import Spawned
from machine.rules import Machine

from .campaign import Campaign, Figures, join

STEPS_OF_A_STORE = 400
# A store ends earlier, after as many choices as hypothesis makes in one example: 230 to 320 steps on average.
USUAL_STEPS = 300
STORES_OF_A_PART = 450
WALK_SECONDS = 600


def walk(number: int, stores: int, shrink: bool = False) -> Figures:
    """So many stores, one after the other; all choices follow from the number.

    A failure prints the steps of its store; with `shrink`, after minutes, as few of them as still fail.
    """

    @seed(number)
    class Walk(Machine):
        spawned = Spawned()

    profile = settings(
        max_examples=stores,
        stateful_step_count=STEPS_OF_A_STORE,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(Walk, settings=profile)
    finally:
        Walk.spawned.end()
    return {
        "api_steps": Walk.steps,
        "api_stores": stores,
        "api_checks": stores + Walk.checks,
        "api_full_stores_met": Walk.full,
    }


def run(part: int, scratch: Path) -> Figures:
    return walk(part, STORES_OF_A_PART, shrink=True)


def walk_steps(number: int, steps: int) -> Figures:
    """At least so many steps, in as many walks as that takes."""
    figures = walk(number, steps // USUAL_STEPS)
    while figures["api_steps"] < steps:
        number += 1 << 40  # other choices than those of any other walk
        missing = steps - figures["api_steps"]
        figures = join(figures, walk(number, missing // USUAL_STEPS + 1))
    return figures


def walk_beside(number: int, steps: int, walks: int) -> Figures:
    """As `walk_steps`, in several processes at once."""
    apart = 1 << 50
    children = [Forked(walk_steps, number + apart * turn, -(-steps // walks)) for turn in range(walks)]
    return functools.reduce(join, (child.result(WALK_SECONDS) for child in children), {})


CAMPAIGN = Campaign(
    name="machine",
    claim="Every call of the Python API does what a dict with expiry would, whoever makes it and whatever the time.",
    how="A state machine draws calls, arguments and callers (handles here, in a spawned and in a forked process, "
    "pickled ones, read-only ones); each answer and each error is compared with a dict.",
    parts=20,
    run=run,
    at_least={"api_steps": 2_000_000},
    commands={"cc": "gcc"},
)

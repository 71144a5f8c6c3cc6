"""Every call of the Python API against a dict: a tenth of the campaign `machine`, ten times 20,000 steps or more."""

from __future__ import annotations

import pytest
from campaigns.machine import walk_beside

pytestmark = pytest.mark.slow

STEPS = 20_000
PROCESSES = 2
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_steps_against_a_dict(seed: int, part: int) -> None:
    figures = walk_beside(seed * PARTS + part, STEPS, PROCESSES)
    print(figures)
    assert figures["api_steps"] >= STEPS

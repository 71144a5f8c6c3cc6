"""Every call of the Python API against a dict: a twentieth of the campaign `machine`, five times 20,000 steps."""

from __future__ import annotations

import pytest
from campaigns.machine import walk_beside

STORES = 86  # of about 250 steps each
PROCESSES = 2


@pytest.mark.parametrize("part", range(5))
def test_steps_against_a_dict(seed: int, part: int) -> None:
    figures = walk_beside(seed * 5 + part, STORES, PROCESSES)
    print(figures)
    assert figures["api_steps"] >= 20_000

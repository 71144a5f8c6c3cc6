"""Every call of the Python API against a dict: a tenth of the campaign `machine`, four times 50,000 steps."""

from __future__ import annotations

import pytest
from campaigns.machine import walk_beside

STORES = 226  # of about 240 steps each
PROCESSES = 2


@pytest.mark.parametrize("quarter", range(4))
def test_steps_against_a_dict(seed: int, quarter: int) -> None:
    figures = walk_beside(seed * 4 + quarter, STORES, PROCESSES)
    print(figures)
    assert figures["api_steps"] >= 50_000
    assert figures["api_full_stores_met"] > 0

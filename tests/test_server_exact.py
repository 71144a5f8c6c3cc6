"""A part of the serving campaign: exact metrics over workers and processes, and kills that lose nothing."""

from __future__ import annotations

import os

import pytest
from campaigns.serving import exact

pytestmark = pytest.mark.slow

LONG = bool(os.environ.get("SHMKV_LONG"))


def test_metrics_are_exact(seed: int) -> None:
    figures = exact(100_000 if LONG else 2_000, 0, seed)
    print(figures)
    assert figures["requests"] >= (100_000 if LONG else 2_000)
    assert figures["requests_without_an_answer"] == 0


@pytest.mark.parametrize("kills", [100 if LONG else 3])
def test_kills_of_workers_lose_nothing_that_was_acknowledged(seed: int, kills: int) -> None:
    figures = exact(2_000, kills, seed)
    print(figures)
    assert figures["worker_kills"] == kills

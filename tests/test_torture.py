"""A part of the torture campaign: a tenth of its kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import CannotBuildError
from campaigns.campaign import Figures
from campaigns.torture import CAMPAIGN, torture


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Figures:
    if CAMPAIGN.missing():
        pytest.skip(f"needs the Debian packages {' '.join(CAMPAIGN.missing())}")
    scratch: Path = tmp_path_factory.mktemp("torture")
    try:
        return torture(scratch, seed, plain=18, points=9, python=9)
    except CannotBuildError as error:
        pytest.skip(str(error))


def test_nothing_acknowledged_is_lost(figures: Figures) -> None:
    print(figures)
    assert figures["kills"] >= 1_000
    assert figures["python_kills"] >= 50
    assert figures["forks_in_the_middle"] >= 50
    assert figures["operations"] >= 1_000_000


def test_readers_do_not_wait_for_writers_that_are_stopped_for_seconds(figures: Figures) -> None:
    assert figures["stops_for_seconds"] >= 4
    assert 0 < figures["largest_reader_p999_us"] < CAMPAIGN.at_most["largest_reader_p999_us"]

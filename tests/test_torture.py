"""A part of the torture campaign: a tenth of its kills."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import CannotBuildError
from campaigns.campaign import Figures, join
from campaigns.torture import CAMPAIGN, torture

pytestmark = pytest.mark.slow

FLOORS = {
    "kills": 1_000,
    "python_kills": 50,
    "forks_in_the_middle": 50,
    "operations": 1_000_000,
    "stops_for_seconds": 4,
}
ROUNDS = 3  # at most: a machine that is slow, or busy, takes longer to kill so many


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Figures:
    if CAMPAIGN.missing():
        pytest.skip(f"needs the Debian packages {' '.join(CAMPAIGN.missing())}")
    scratch: Path = tmp_path_factory.mktemp("torture")
    counted: Figures = {}
    try:
        for round_ in range(ROUNDS):
            counted = join(counted, torture(scratch, seed + 10 * round_, plain=18, points=9, python=9))
            if all(counted[name] >= least for name, least in FLOORS.items()):
                break
    except CannotBuildError as error:
        pytest.skip(str(error))
    return counted


def test_nothing_acknowledged_is_lost(figures: Figures) -> None:
    print(figures)
    assert {name: figures[name] for name, least in FLOORS.items() if figures[name] < least} == {}


def test_readers_do_not_wait_for_writers_that_are_stopped_for_seconds(figures: Figures) -> None:
    assert 0 < figures["largest_reader_p999_us"] < CAMPAIGN.at_most["largest_reader_p999_us"]

"""Faults that are put into the engine are found: a few here, chosen by the seed, all of them in the long run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from building import ENGINE, CannotBuildError
from campaigns.mutants import find_killer
from mutants import MUTANTS, Mutant

pytestmark = pytest.mark.slow

CHOSEN = 2


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_place_is_still_in_the_engine(mutant: Mutant) -> None:
    assert (ENGINE / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new


@pytest.mark.parametrize("turn", range(CHOSEN))
def test_some_are_found(turn: int, seed: int, tmp_path: Path) -> None:
    mutant = random.Random(f"{seed}:mutants").sample(MUTANTS, CHOSEN)[turn]
    try:
        killer, why = find_killer(mutant, tmp_path)
    except CannotBuildError as error:
        pytest.skip(str(error))
    print(f"{mutant.name}: {killer}: {why}")
    assert killer == mutant.killer, f"{mutant.name} was expected to be found by {mutant.killer}"

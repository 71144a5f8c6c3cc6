"""Kill at every instruction (campaigns/every_instruction.py): all of the short operations, some of the longer ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import CannotBuildError
from campaigns import every_instruction
from campaigns.every_instruction import CAMPAIGN, LEAKS, LIMIT_MS, SHARES, Job

pytestmark = pytest.mark.slow

SECONDS = 120

# Every how manieth instruction is fatal for real: about as many as three seconds allow.  For the others the images,
# which are judged after all instructions of a scene, have to do here.
STRIDES = {
    "put_new": 1,
    "put_over": 1,
    "delete": 1,
    "put_over_shared": 40,
    "growth_of_table": 60,
    "growth_of_region": 4000,
    "put_many": 40,
    "put_many_growing": 160,
    "delete_many": 120,
    "clear": 400,
    "evacuation": 80,
    "delete_units": 40,
    "delete_run": 30,
    "attach": 400,
    "detach": 100,
    "detach_shared": 100,
    "create": 3000,
    "repair_of_put": 80,
    "repair_of_announced_batch": 80,
    "repair_of_committed_batch": 2000,
    "repair_of_pages": 160,
    "reclaim": 15000,
}
LONG_RUN_ONLY = {"compact", "put_run", "put_units", "reclaim_shared", "repair_of_growth"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := CAMPAIGN.missing():
        pytest.skip(f"Debian packages are missing: {' '.join(missing)}")
    try:
        built = every_instruction.build(tmp_path_factory.mktemp("every_instruction"))
        every_instruction.scenes(built)
    except CannotBuildError as error:
        pytest.skip(str(error))
    return built


@pytest.mark.parametrize("scene", STRIDES)
def test_deaths(program: Path, scene: str, seed: int) -> None:
    stride = STRIDES[scene]
    first = seed % stride
    figures = every_instruction.run_job(program, Job(scene, first, stride), SECONDS)
    assert figures["kills"] >= 1
    assert figures[f"largest_leak_{scene}"] <= LEAKS.get(scene, figures[f"largest_leak_{scene}"])
    assert figures["longest_recovery_ms"] <= LIMIT_MS
    if stride == 1:  # one before the first instruction, and one after each
        assert figures["kills"] == figures["instructions"] + 1


def test_every_scene_has_its_parts(program: Path) -> None:
    assert sorted(every_instruction.scenes(program)) == sorted(SHARES)
    assert {job.scene for job in every_instruction.JOBS} == set(SHARES)
    assert set(STRIDES) == set(SHARES) - LONG_RUN_ONLY


def test_the_parts_leave_no_instruction_out() -> None:
    for scene in set(SHARES) - set(every_instruction.SAMPLED) - set(every_instruction.RUN_OF):
        deaths = sorted(n for job in every_instruction.jobs_of(scene) for n in range(job.first, 1000, job.stride))
        assert deaths == list(range(1000)), scene

"""Every surrounding, in short (campaigns/surroundings.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from campaigns import surroundings
from campaigns.campaign import Figures
from helpers import MIB
from surroundings.scene import Scene, call, judge, module, stage, start

from shmkv import Store

pytestmark = pytest.mark.slow

CALLS = 24


def parameter(scene: Scene) -> Any:
    return pytest.param(scene, id=scene.name, marks=[pytest.mark.slow] if scene.slow else [])


@pytest.mark.parametrize("scene", [parameter(scene) for scene in surroundings.SCENES])
def test_a_surrounding(scene: Scene, tmp_path: Path) -> None:
    if missing := scene.missing():
        pytest.skip(missing)
    assert scene.play(tmp_path, CALLS)


# ---- A scene can fail -----------------------------------------------------------------------------


def test_a_call_that_was_lost_is_seen(store: Store) -> None:
    start(store)
    for number in range(3):
        call(store, number)
    judge(store, 3)
    judge(store, 2, more=1)
    for calls, more in ((4, 0), (2, 0), (1, 1)):
        with pytest.raises(AssertionError, match="3 calls counted"):
            judge(store, calls, more)


def test_a_batch_that_is_torn_is_seen(store: Store) -> None:
    start(store)
    store["batch 3"] = 1
    with pytest.raises(AssertionError, match="a batch is torn"):
        judge(store, 0)


def test_what_a_store_keeps_is_seen() -> None:
    with pytest.raises(AssertionError, match="kept"), stage() as store:
        store["left"] = b"x" * (3 * MIB)


def test_a_scene_that_cannot_be_played_here_is_counted_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(scratch: Path, calls: int) -> Figures:
        assert calls < 0, "it was played"
        return {"calls": calls}

    lacking = Scene("no such (thing), at all", "nothing", play, (module("no_such_module"),))
    monkeypatch.setattr(surroundings, "SCENES", [lacking, Scene("here", "nothing", play)])
    assert "shmkv[surroundings]" in lacking.missing()
    assert surroundings.run(0, tmp_path) == {"left_out": 1, "left_out_no_such_thing_at_all": 1}
    with pytest.raises(AssertionError, match="here: it was played"):
        surroundings.run(1, tmp_path)


def test_each_scene_has_a_name_of_its_own() -> None:
    names = [scene.name for scene in surroundings.SCENES]
    assert sorted(set(names)) == sorted(names)

"""Every surrounding, in short (campaigns/surroundings.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import surroundings
from surroundings.scene import Scene

CALLS = 24


@pytest.mark.parametrize("scene", [pytest.param(scene, id=scene.name) for scene in surroundings.SCENES])
def test_a_surrounding(scene: Scene, tmp_path: Path) -> None:
    if missing := scene.missing():
        pytest.skip(missing)
    assert scene.play(tmp_path, CALLS)

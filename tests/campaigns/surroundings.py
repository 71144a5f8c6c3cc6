"""Campaign: the surroundings that programs live in; tests/surroundings has the scenes."""

from __future__ import annotations

import re
from pathlib import Path

from surroundings import callers, clocks, disks, endings, frameworks, limits, loader, namespaces, pools, shared, stopped
from surroundings.scene import EXTRA

from .campaign import Campaign, Figures

SCENES = [
    *pools.SCENES,
    *loader.SCENES,
    *frameworks.SCENES,
    *endings.SCENES,
    *callers.SCENES,
    *stopped.SCENES,
    *namespaces.SCENES,
    *shared.SCENES,
    *limits.SCENES,
    *disks.SCENES,
    *clocks.SCENES,
]
CALLS = 400  # of a scene, about


def run(part: int, scratch: Path) -> Figures:
    """One scene; one that cannot be played here is counted by its name."""
    scene = SCENES[part]
    if scene.missing():
        return {"left_out": 1, "left_out_" + re.sub(r"\W+", "_", scene.name): 1}
    try:
        return {"scenes": 1, **scene.play(scratch, CALLS)}
    except AssertionError as error:
        raise AssertionError(f"{scene.name}: {error}") from error


CAMPAIGN = Campaign(
    name="surroundings",
    claim="Whatever starts, recycles, limits and ends the processes that use a store: every call that was answered is "
    "counted once, no batch is torn, what was refused says why, and nothing is left behind.",
    how="A small program is run in each surrounding, and the store is judged afterwards: its counters, every value it "
    "has to hold, check(), what it keeps for processes that have ended; names, descriptors and memory beside it.",
    parts=len(SCENES),
    run=run,
    at_least={"scenes": len(SCENES)},
    modules=dict.fromkeys(("celery", "django", "gevent", "gunicorn", "joblib", "uvicorn"), EXTRA),
    table=[("surrounding", "judged"), *((scene.name, scene.judged) for scene in SCENES)],
)

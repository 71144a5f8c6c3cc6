"""Campaign: how much of shmkv the tests run, and why they do not run the rest."""

from __future__ import annotations

from pathlib import Path

from covering import ENGINE_BRANCHES, ENGINE_LINES, PYTHON_LINES, measure

from .campaign import Campaign, Figures


def run(part: int, scratch: Path) -> Figures:
    """All in one part: what one test runs another need not."""
    result = measure(scratch, [])
    faults = result.faults()
    assert not faults, "\n".join([*faults, str(result.figures())])
    return result.figures()


CAMPAIGN = Campaign(
    name="covered",
    claim="The tests run nearly every line and branch; each line of the engine that they do not run has its reason.",
    how="The engine is compiled so that it counts; the suite and the C programs run; gcov and coverage.py tell.",
    parts=1,
    run=run,
    at_least={
        "engine_lines_percent": ENGINE_LINES,
        "engine_branches_percent": ENGINE_BRANCHES,
        "python_lines_percent": PYTHON_LINES,
    },
    commands={"gcov": "gcc"},
)

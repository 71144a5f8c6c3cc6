"""Cutting the power under a log, after each change of the disk."""

from __future__ import annotations

from pathlib import Path

from building import Builder

from .campaign import Campaign, Figures
from .programs import figures_in, run_program

FIRST = 1000  # seeds of the long run begin here
CUTS = 20  # after each change


def run(part: int, scratch: Path) -> Figures:
    program = Builder(scratch).program("test_wal", "points")
    output = run_program(program, "points", FIRST + part, CUTS, "power_cuts", limit=600)
    return figures_in(output)


CAMPAIGN = Campaign(
    name="power",
    claim="Whatever a power cut leaves of what was not synced, the log can be opened; what was acknowledged as synced "
    "is there, and what is there is the beginning of what was appended.",
    how="A log writes to a disk in memory. After each write, sync, cut, new or removed name the power goes, many times "
    "over: of each file, any 512-byte sectors that were not synced are lost, the size is any since the last sync, and "
    "the latest changes of names are lost. Each state is recovered; some are gone on with, and cut again.",
    parts=16,
    run=run,
    at_least={"power_cuts": 500_000},
    commands={"cc": "gcc"},
)

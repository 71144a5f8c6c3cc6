"""Cutting the power under a log, after each change of the disk."""

from __future__ import annotations

from pathlib import Path

from building import Builder

from .campaign import Campaign, Figures
from .programs import figures_in, run_program

FIRST = 1000  # seeds of the long run begin here
# The log by itself, and a durable store: program, and cuts after each change of the disk.
PARTS = [("test_wal", 20)] * 16 + [("test_durable", 60)] * 8


def run(part: int, scratch: Path) -> Figures:
    name, cuts = PARTS[part]
    program = Builder(scratch).program(name, "points")
    output = run_program(program, "points", FIRST + part, cuts, "power_cuts", limit=600)
    return figures_in(output)


CAMPAIGN = Campaign(
    name="power",
    claim="Whatever a power cut leaves of what was not synced, the log can be opened; what was acknowledged as synced "
    "is there, and what is there is the beginning of what was appended; batches are whole.",
    how="A log writes to a disk in memory. After each write, sync, cut, new or removed name the power goes, many times "
    "over: of each file, any 512-byte sectors that were not synced are lost, the size is any since the last sync, and "
    "the latest changes of names are lost. Each state is recovered; some are gone on with, and cut again. Then the "
    "same under a durable store: single changes, batches, clear and snapshots, each acknowledged as synced.",
    parts=len(PARTS),
    run=run,
    at_least={"power_cuts": 600_000},
    commands={"cc": "gcc"},
)

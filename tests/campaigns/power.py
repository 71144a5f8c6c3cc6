"""Cutting the power: under a log and a durable store in C, on a disk in memory, and under whole processes."""

from __future__ import annotations

from pathlib import Path

from building import Builder
from outage import datastore, durable
from outage.trial import Subject, judge_runs

from .campaign import Campaign, Figures
from .programs import figures_in, run_program

FIRST = 1000  # seeds of the long run begin here
# Program, and cuts after each change of the disk; kind of store, value of `sync`, steps of a run.
PROGRAMS = [("test_wal", 20)] * 16 + [("test_durable", 60)] * 8
MODES = ("always", "interval", "none")
PROCESSES: list[tuple[Subject, str, int]] = [
    *[(datastore.SUBJECT, sync, 600) for sync in MODES * 4],
    *[(durable.SUBJECT, sync, 200) for sync in MODES * 4],
]


def run(part: int, scratch: Path) -> Figures:
    if part >= len(PROGRAMS):
        subject, sync, steps = PROCESSES[part - len(PROGRAMS)]
        return judge_runs(subject, FIRST + part, sync, steps)
    name, cuts = PROGRAMS[part]
    program = Builder(scratch).program(name, "points")
    output = run_program(program, "points", FIRST + part, cuts, "power_cuts", limit=600)
    return figures_in(output)


CAMPAIGN = Campaign(
    name="power",
    claim="Whatever a power cut leaves of what was not synced, a durable store and a `DataStore` can be opened; what "
    "was acknowledged as synced is there, and what is there is the beginning of what was done; batches are whole.",
    how="A log writes to a disk in memory. After each write, sync, cut, new or removed name the power goes, many times "
    "over: of each file, any 512-byte sectors that were not synced are lost, the size is any since the last sync, and "
    "changes of names are lost, the latest or any. Each state is recovered; some are gone on with, and cut again. The "
    "same under a durable store: single changes, batches, clear and snapshots, each acknowledged as synced. And under "
    "whole Python processes with a `DataStore` or a durable `Store`, whose calls to the system are recorded "
    "(tests/outage), with their opening, closing, the emptying of segments, and a second life after a cut.",
    parts=len(PROGRAMS) + len(PROCESSES),
    run=run,
    at_least={"power_cuts": 600_000, "datastore_states": 15_000, "durable_states": 15_000},
    commands={"cc": "gcc"},
)

"""Faults in the engine (tests/mutants.py): each is compiled in, and a test has to fail."""

from __future__ import annotations

import shutil
from pathlib import Path

from building import ENGINE, Builder
from mutants import ALL, MUTANTS, Killer, Mutant

from .campaign import Campaign, Figures
from .programs import run_program

KILLER_SECONDS = 90  # a program that hangs has failed


def mutated_engine(mutant: Mutant, folder: Path) -> Path:
    """A copy of the engine with the fault in it."""
    copy = Path(shutil.copytree(ENGINE, folder / "engine", ignore=shutil.ignore_patterns("binding")))
    source = copy / mutant.file
    text = source.read_text()
    assert text.count(mutant.old) == 1, (
        f"{mutant.name}: its text occurs {text.count(mutant.old)} times in {mutant.file}"
    )
    source.write_text(text.replace(mutant.old, mutant.new))
    return copy


def why_it_fails(builder: Builder, killer: Killer) -> str:
    """The line that says why the run failed; empty if it did not."""
    program = builder.program(killer.program, killer.flavour)
    try:
        run_program(program, killer.flavour, *killer.arguments.split(), limit=KILLER_SECONDS)
    except AssertionError as error:
        told = [line for line in str(error).splitlines() if line and not line.startswith(("ok ", "killed "))]
        return told[min(1, len(told) - 1)]
    return ""


def find_killer(mutant: Mutant, folder: Path) -> tuple[Killer, str]:
    """Who catches it, the expected one first, and what it says."""
    builder = Builder(folder, mutated_engine(mutant, folder))
    for killer in (mutant.killer, *(other for other in ALL if other != mutant.killer)):
        why = why_it_fails(builder, killer)
        if why:
            return killer, why
    raise AssertionError(f"{mutant.name} ({mutant.fault}) is caught by no test")


def run(part: int, scratch: Path) -> Figures:
    mutant = MUTANTS[part]
    killer, why = find_killer(mutant, scratch)
    print(f"{mutant.name}: {killer}: {why}")
    return {"faults": 1, "caught": 1, "by_the_expected_test": killer == mutant.killer}


CAMPAIGN = Campaign(
    name="mutants",
    claim="A fault in the engine does not go unnoticed.",
    how="Each of the faults in `tests/mutants.py` (an order swapped, a fence removed, a bound dropped, a counter not "
    "repaired, a lock not taken) is compiled into a copy of the engine, and a program of `tests/core` has to fail.",
    parts=len(MUTANTS),
    run=run,
    table=[("fault", "what is wrong", "the test that finds it"), *((m.name, m.fault, str(m.killer)) for m in MUTANTS)],
    at_least={"faults": 40, "caught": len(MUTANTS), "by_the_expected_test": len(MUTANTS)},
)

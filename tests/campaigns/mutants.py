"""Faults in the engine (tests/mutants.py): each is compiled in, and a test has to fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from .campaign import Campaign, Figures

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from building import ENGINE, ENVIRONMENT, Builder, run_prefix
from mutants import ALL, MUTANTS, Killer, Mutant

KILLER_SECONDS = 90  # a program that hangs has failed
TABLE = Path(__file__).resolve().parents[2] / "docs" / "mutants.md"


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


def fails(builder: Builder, killer: Killer) -> str:
    """The first line that says why the run failed; empty if it did not."""
    program = builder.program(killer.program, killer.flavour)
    command = [*run_prefix(killer.flavour), str(program), *killer.arguments.split()]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        output, _ = process.communicate(timeout=KILLER_SECONDS)
    except subprocess.TimeoutExpired:
        output = f"did not end within {KILLER_SECONDS} s"
    finally:
        _end(process)
    if process.returncode == 0:
        return ""
    told = [line for line in output.splitlines() if line and not line.startswith(("ok ", "killed "))]
    return told[0] if told else f"ended with {process.returncode}"


def _end(process: subprocess.Popen[str]) -> None:
    """The program, its children and its regions."""
    if process.poll() != 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    for region in Path("/dev/shm").glob(f"shmkv-core-{process.pid}-*"):
        region.unlink(missing_ok=True)


def find_killer(mutant: Mutant, folder: Path) -> tuple[Killer, str]:
    """Who catches it, the expected one first, and what it says."""
    builder = Builder(folder, mutated_engine(mutant, folder))
    for killer in (mutant.killer, *(other for other in ALL if other != mutant.killer)):
        why = fails(builder, killer)
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
    at_least={"faults": 40, "caught": len(MUTANTS), "by_the_expected_test": len(MUTANTS)},
)

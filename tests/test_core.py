"""The engine's C programs (tests/core): built with every warning an error, plain and under sanitizers, and run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from building import ENGINE, PROGRAMS, Builder, CannotBuildError
from campaigns.programs import run_program

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    program: str
    flavour: str
    arguments: str = ""  # {seed} is replaced
    limit: int = 60  # seconds

    def __str__(self) -> str:
        return f"{self.program}-{self.flavour}"

    @property
    def is_whole(self) -> bool:
        """All tests of the program: not those that are named, nor a part that the seed chooses (a last 0)."""
        arguments = self.arguments.split()
        return len(arguments) <= 2 and arguments[-1:] != ["0"]


RUNS = [
    Run("test_hash", "plain"),
    Run("test_hash", "asan"),
    Run("test_check", "plain", "{seed}"),
    Run("test_check", "asan", "{seed}", 120),
    Run("test_check", "tsan", "{seed} 0", 120),  # its damage has one thread
    Run("test_store", "plain", "{seed}"),
    Run("test_store", "asan", "{seed}", 180),
    Run("test_threads", "plain", "{seed} 3"),
    Run("test_threads", "asan", "{seed} 2"),
    Run("test_threads", "tsan", "{seed} 4", 120),
    Run("test_processes", "plain", "{seed} 3", 90),
    Run("test_processes", "asan", "{seed} 3", 120),
    Run("test_races", "points"),
    Run("test_races", "asan", "", 120),
    Run("test_orders", "traced"),
    Run("test_hostile", "plain", "1 40"),
    Run("test_hostile", "asan", "1 20", 90),
    Run("test_failures", "plain", "", 120),
    Run("test_bounds", "plain"),
    Run("test_bounds", "asan"),
    Run("test_frame", "plain", "{seed}"),
    Run("test_frame", "asan", "{seed}"),
    Run("test_files", "plain"),
    Run("test_handles", "plain"),
    Run("test_handles", "asan"),
    Run("test_wal", "points", "{seed} 12", 120),
    Run("test_wal", "asan", "{seed} 3", 120),
    Run("test_wal", "tsan", "{seed} 1 group_commit"),
    Run("test_durable", "points", "{seed} 2", 120),
    Run("test_durable", "asan", "{seed} 1 restoring failing power times", 120),
    Run("test_durable_evict", "points", "{seed}", 120),
    Run("test_durable_evict", "asan", "{seed} follows full smaller stopped", 120),
    Run("test_limits", "plain"),
    Run("test_limits", "asan"),
    Run("test_header", "plain"),
    Run("test_header", "asan"),
    Run("test_crash", "points", "{seed} 4", 120),
    Run("test_crash", "asan", "{seed} 0", 180),
]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """`build(program, flavour)`: the path of the program."""
    try:
        builder = Builder(tmp_path_factory.mktemp("core"))
    except CannotBuildError as error:
        pytest.skip(str(error))

    def program(name: str, flavour: str) -> Path:
        try:
            return builder.program(name, flavour)
        except CannotBuildError as error:
            pytest.skip(str(error))

    return program


# Which program kills at a crash point, by how its name begins; test_crash at all others.
OWNERS = {
    "test_durable_evict": ("journal.nameless", "journal.appended"),
    "test_durable": (
        "journal.", "logged.", "checkpoint.", "restore.", "wal.counted", "wal.voided", "wal.laid_out",
        "wal.shortened", "repair.decided",
        "batch.withdrawn",
    ),
    "test_wal": ("wal.",),
    "test_crash": ("",),
}  # fmt: skip


def _owner(point: str) -> str:
    return next(program for program, names in OWNERS.items() if point.startswith(names))


def _crash_points() -> set[str]:
    text = "".join(source.read_text() for source in ENGINE.glob("*.[ch]"))
    return set(re.findall(r'SKV_CRASH\("([^"]+)"\)', text))


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_program(run: Run, build: Callable[[str, str], Path], seed: int) -> None:
    arguments = run.arguments.format(seed=seed).split()
    output = run_program(build(run.program, run.flavour), run.flavour, *arguments, limit=run.limit)
    if run.program in OWNERS and run.is_whole:
        killed = {name for name, times in re.findall(r"^killed (\S+) (\d+)$", output, re.MULTILINE) if int(times)}
        its_own = {name for name in _crash_points() if _owner(name) == run.program}
        assert its_own - killed == set(), "crash points at which nothing was killed"


def test_every_program_is_run() -> None:
    sources = {source.stem for source in PROGRAMS.glob("test_*.c")}
    assert sources == {run.program for run in RUNS}

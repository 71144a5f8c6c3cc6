"""The engine's C programs (tests/core): built with every warning an error, plain and under sanitizers, and run.

plain   as it is shipped
points  with crash points, at which a process can be killed
asan    AddressSanitizer and UndefinedBehaviorSanitizer, with crash points
tsan    ThreadSanitizer; for the programs whose threads share memory (it does not see other processes)
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ENGINE = HERE.parent / "shmkv" / "_core"
PROGRAMS = HERE / "core"
COMPILER = os.environ.get("CC") or "cc"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
NOT_ENGINE = {"import.c"}  # the loader of files: it has tests of its own in Python

FLAVOURS = {
    "plain": ["-O2"],
    "points": ["-O2", "-DSKV_CRASH_POINTS"],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSKV_CRASH_POINTS"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
}
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}

# Crash points at which no test kills a process, each with its reason.
NEVER_KILLED: dict[str, str] = {}


@dataclass(frozen=True)
class Run:
    program: str
    flavour: str
    arguments: str = ""  # {seed} is replaced
    limit: int = 60  # seconds

    def __str__(self) -> str:
        return f"{self.program}-{self.flavour}"


RUNS = [
    Run("test_hash", "plain"),
    Run("test_hash", "asan"),
    Run("test_check", "plain", "{seed}"),
    Run("test_check", "asan", "{seed}", 120),
    Run("test_check", "tsan", "{seed}", 120),
    Run("test_store", "plain", "{seed}"),
    Run("test_store", "asan", "{seed}", 180),
    Run("test_threads", "plain", "{seed} 3"),
    Run("test_threads", "asan", "{seed} 2"),
    Run("test_threads", "tsan", "{seed} 4", 120),
    Run("test_processes", "plain", "{seed} 5", 90),
    Run("test_processes", "asan", "{seed} 3", 120),
    Run("test_races", "points"),
    Run("test_races", "asan", "", 120),
    Run("test_hostile", "plain", "1 40"),
    Run("test_hostile", "asan", "1 20", 90),
    Run("test_crash", "points", "{seed} 4", 120),
    Run("test_crash", "asan", "{seed} 1", 180),
]


def _compile(arguments: list[str]) -> None:
    done = subprocess.run(
        [COMPILER, "-std=c11", "-D_GNU_SOURCE", f"-I{ENGINE}", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def _works(flavour: str, folder: Path) -> bool:
    """Can a program be built, linked and run in this flavour?"""
    source = folder / f"empty-{flavour}.c"
    source.write_text("int main(void) { return 0; }\n")
    try:
        _compile([*FLAVOURS[flavour], str(source), "-o", str(source.with_suffix(""))])
    except AssertionError:
        return False
    return subprocess.run([*_prefix(flavour), str(source.with_suffix(""))], timeout=60).returncode == 0


def _prefix(flavour: str) -> list[str]:
    """ThreadSanitizer wants its shadow where a kernel with much address randomisation may have mapped something."""
    return ["setarch", "-R"] if flavour == "tsan" and shutil.which("setarch") else []


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """`build(program, flavour)`: the path of the program; the engine is compiled once for each flavour."""
    if not shutil.which(COMPILER):
        pytest.skip(f"no C compiler ({COMPILER}) to build the engine's test programs with")
    folder = tmp_path_factory.mktemp("core")
    engines: dict[str, list[str]] = {}

    def engine(flavour: str) -> list[str]:
        if flavour not in engines:
            if not _works(flavour, folder):
                pytest.skip(f"{COMPILER} cannot build and run programs with {' '.join(FLAVOURS[flavour])} here")
            sources = [source for source in sorted(ENGINE.glob("*.c")) if source.name not in NOT_ENGINE]
            if "-DSKV_CRASH_POINTS" in FLAVOURS[flavour]:
                sources.append(PROGRAMS / "crash_hook.c")
            (folder / flavour).mkdir()
            objects = [folder / flavour / f"{source.stem}.o" for source in sources]
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                jobs = [
                    pool.submit(_compile, [*WARNINGS, *FLAVOURS[flavour], "-c", str(source), "-o", str(made)])
                    for source, made in zip(sources, objects, strict=True)
                ]
            for job in jobs:
                job.result()
            engines[flavour] = [str(made) for made in objects]
        return engines[flavour]

    def program(name: str, flavour: str) -> Path:
        path = folder / flavour / name
        objects = engine(flavour)
        _compile([*WARNINGS, *FLAVOURS[flavour], str(PROGRAMS / f"{name}.c"), *objects, "-o", str(path), "-lpthread"])
        return path

    return program


def _execute(path: Path, run: Run, seed: int) -> str:
    """The program's output; it, its children and its regions are gone afterwards, whatever happens."""
    command = [*_prefix(run.flavour), str(path), *run.arguments.format(seed=seed).split()]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **ENVIRONMENT},
    )
    try:
        output, _ = process.communicate(timeout=run.limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        pytest.fail(f"{' '.join(command)} did not end within {run.limit} s:\n{output}")
    finally:
        if process.poll() != 0:
            _kill_group(process.pid)
        left = list(Path("/dev/shm").glob(f"shmkv-core-{process.pid}-*"))
        for region in left:
            region.unlink(missing_ok=True)
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
    assert not left, "it left regions behind"
    return output


def _kill_group(group: int) -> None:
    """What a failed program started (its session is its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _crash_points() -> set[str]:
    text = "".join(source.read_text() for source in ENGINE.glob("*.[ch]"))
    return set(re.findall(r'SKV_CRASH\("([^"]+)"\)', text))


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_program(run: Run, build: Callable[[str, str], Path], seed: int) -> None:
    output = _execute(build(run.program, run.flavour), run, seed)
    if run.program == "test_crash":
        killed = {name for name, times in re.findall(r"^killed (\S+) (\d+)$", output, re.MULTILINE) if int(times)}
        missed = _crash_points() - killed
        assert missed == set(NEVER_KILLED), "crash points at which nothing was killed, and those that may be"


def test_every_program_is_run() -> None:
    sources = {source.stem for source in PROGRAMS.glob("test_*.c")}
    assert sources == {run.program for run in RUNS}

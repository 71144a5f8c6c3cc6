"""Every resource fails, at every point of every operation: tests/core/resources.c, and failing_calls.py for Python."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from building import PROGRAMS, WARNINGS, Builder, compile_c

from .campaign import Campaign, Figures

# What tests/core/failures.h can make fail.
MEMORY = ["malloc", "calloc", "realloc", "aligned_alloc"]
WRAPPED = [*MEMORY, "fallocate", "mmap", "madvise", "ftruncate", "fstat", "pread", "open", "fcntl", "syscall"]
LINK = [f"-Wl,--wrap={name}" for name in WRAPPED]
OPERATIONS = re.compile(r'^    \{"(\w+)", run_', re.MULTILINE)
TMPFS = "16m"


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """As long as this process runs."""
    return tempfile.TemporaryDirectory(prefix="shmkv-resources-")


def _folder() -> Path:
    return Path(_kept().name)


@functools.cache
def _builder() -> Builder:
    return Builder(_folder())


@functools.cache
def program() -> Path:
    """With crash points, at which the file system fills up."""
    return _builder().program("resources", "points", *LINK)


@functools.cache
def small_dev_shm() -> tuple[str, ...]:
    """A command prefix that gives a /dev/shm of 16 MiB of one's own; () where that is not allowed."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return ()
    prefix = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={TMPFS} tmpfs /dev/shm && exec "$@"', "sh")
    return prefix if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0 else ()


def _remove_regions_of_the_dead() -> None:
    for region in Path("/dev/shm").glob("shmkv-core-*"):
        if not Path("/proc", region.name.split("-")[2]).exists():
            region.unlink(missing_ok=True)


def run_program(mode: str, stride: int, *operations: str, before: tuple[str, ...] = ()) -> Figures:
    """`mode` "nth" or "full"; a violation is an AssertionError with what the program said."""
    command = [*before, str(program()), mode, str(stride), *operations]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    _remove_regions_of_the_dead()
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    figures = re.search(r"^tries=(\d+) failed=(\d+)$", done.stdout, re.MULTILINE)
    assert figures, done.stdout
    return {f"{mode}_tries": float(figures[1]), f"{mode}_failures": float(figures[2])}


# ---- Through Python ------------------------------------------------------------------------------


@functools.cache
def preloaded() -> Path:
    """The library that makes calls of the extension module fail."""
    path = _folder() / "fail_calls.so"
    compile_c([*WARNINGS, "-O2", "-shared", "-fPIC", str(PROGRAMS / "fail_calls.c"), "-o", str(path), "-ldl"])
    return path


def run_python(stride: int, *operations: str) -> Figures:
    """tests/campaigns/failing_calls.py in a process of its own."""
    script = Path(__file__).with_name("failing_calls.py")
    environment = {**os.environ, "LD_PRELOAD": str(preloaded()), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(preloaded()), str(stride), *operations]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    figures = re.search(r"^tries=(\d+) failed=(\d+)$", done.stdout, re.MULTILINE)
    assert figures, done.stdout
    return {"python_tries": float(figures[1]), "python_failures": float(figures[2])}


def run(part: int, scratch: Path) -> Figures:
    """Each part is all of it; the file system fills at other steps each time."""
    figures = run_program("nth", 1) | run_python(1)
    if small_dev_shm():
        figures |= run_program("full", 1 + part, before=small_dev_shm())
    return figures


CAMPAIGN = Campaign(
    name="resources",
    claim="When memory, descriptors, mappings or room in the file system run out, at any point of any operation, the "
    "operation is done or says why it is not, and has changed nothing; the store is usable, and check() is clean.",
    how="The n-th call of each function that can fail is made to fail, for n = 1, 2, 3, ... until none does, once and "
    "for good; a tmpfs of 16 MiB is filled up by somebody else at each step of each operation.",
    parts=4,
    run=run,
    at_least={"nth_tries": 3000, "full_tries": 2000, "python_tries": 1000},
    commands={"cc": "gcc", "unshare": "util-linux"},
)

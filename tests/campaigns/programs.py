"""Running a program in a campaign: nothing of it is left behind, and its figures are read."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from building import ENVIRONMENT, run_prefix
from helpers import NAME_PREFIX, python_environment

from .campaign import Figures


class ProgramError(AssertionError):
    """A program ended with another status than 0."""

    def __init__(self, command: list[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {status}:\n{output}")
        self.status = status
        self.output = output


def run_program(path: Path, flavour: str, *arguments: object, limit: float) -> str:
    """What the program printed.

    Raises:
        ProgramError: it failed.
        AssertionError: it ran longer than `limit` seconds, or left a region behind.
    """
    return _run([*run_prefix(flavour), str(path), *map(str, arguments)], limit, dict(os.environ))


def run_module(name: str, *arguments: object, limit: float) -> str:
    """The same for `python -m NAME`, with what tests import."""
    return _run([sys.executable, "-m", name, *map(str, arguments)], limit, python_environment())


def _run(command: list[str], limit: float, environment: dict[str, str]) -> str:
    start = time.time()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**environment, **ENVIRONMENT},
    )
    in_time = True
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        in_time = False
        _end(process, start)
        output, _ = process.communicate()
    finally:
        left = _end(process, start)
    assert in_time, f"{' '.join(command)} did not end within {limit} s:\n{output}"
    if process.returncode:
        raise ProgramError(command, process.returncode, output)
    assert not left, f"{' '.join(command)} left regions behind: {', '.join(left)}"
    return output


def _end(process: subprocess.Popen[str], start: float) -> list[str]:
    """The children of a program that failed end with it; what was left in /dev/shm is named after it, and goes.

    Names tell no more than a pid, which an earlier process may have had too.
    """
    if process.poll() != 0:
        with contextlib.suppress(ProcessLookupError):  # its session is its own
            os.killpg(process.pid, signal.SIGKILL)
    patterns = (f"shmkv-core-{process.pid}-*", f"shmkv.*.{NAME_PREFIX}-{process.pid}-*")
    named = [region for pattern in patterns for region in Path("/dev/shm").glob(pattern)]
    left = [region for region in named if region.stat().st_ctime >= start]
    for region in left:
        region.unlink(missing_ok=True)
    return [region.name for region in left]


def figures_in(output: str) -> Figures:
    """The lines "figure NAME VALUE"."""
    return {name: float(value) for name, value in re.findall(r"^figure (\S+) (\S+)$", output, re.MULTILINE)}

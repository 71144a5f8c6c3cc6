"""Running a program in a campaign: nothing of it is left behind, and its figures are read."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from building import ENVIRONMENT, run_prefix
from helpers import NAME_PREFIX, python_environment

from .campaign import Figures


def run_program(path: Path, flavour: str, *arguments: object, limit: float) -> str:
    """What the program printed; AssertionError with it if the program fails, or runs longer than `limit` seconds."""
    return _run([*run_prefix(flavour), str(path), *map(str, arguments)], limit, dict(os.environ))


def run_module(name: str, *arguments: object, limit: float) -> str:
    """The same for `python -m NAME`, with what tests import."""
    return _run([sys.executable, "-m", name, *map(str, arguments)], limit, python_environment())


def _run(command: list[str], limit: float, environment: dict[str, str]) -> str:
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
        _end(process)
        output, _ = process.communicate()
    finally:
        _end(process)
    assert in_time, f"{' '.join(command)} did not end within {limit} s:\n{output}"
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}:\n{output}"
    return output


def _end(process: subprocess.Popen[str]) -> None:
    """The children of a program end with it; what they left in /dev/shm is named after it."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    for pattern in (f"shmkv-core-{process.pid}-*", f"shmkv.*.{NAME_PREFIX}-{process.pid}-*"):
        for region in Path("/dev/shm").glob(pattern):
            region.unlink(missing_ok=True)


def figures_in(output: str) -> Figures:
    """The lines "figure NAME VALUE"."""
    return {name: float(value) for name, value in re.findall(r"^figure (\S+) (\S+)$", output, re.MULTILINE)}

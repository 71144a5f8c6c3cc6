"""Campaign: the suite is green again and again, also on a machine that has far too much to do."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .campaign import Campaign, Figures

ROOT = Path(__file__).resolve().parents[2]
TIMES = 3
LOAD = 6  # processes that do nothing but work
QUICK_SECONDS, WHOLE_SECONDS = 3600, 5400


@contextlib.contextmanager
def load(count: int) -> Iterator[None]:
    """Busy processes; each ends by itself when its time is over, whatever becomes of this one."""
    work = f"import time\nend = time.monotonic() + {QUICK_SECONDS}\nwhile time.monotonic() < end: pass"
    busy = [subprocess.Popen([sys.executable, "-c", work]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run_suite(words: list[str], seconds: float) -> Figures:
    """What pytest's last line counts."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SHMKV_"))}
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "pytest", "-q", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=seconds
        )
        output.seek(0)
        told = output.read()
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{told[-4000:]}"
    [(passed, took)] = re.findall(r"(\d+) passed.* in ([0-9.]+)s", told)
    return {"passed": float(passed), "seconds": float(took)}


def run(part: int, scratch: Path) -> Figures:
    seed = ["--seed", str(1000 + part)]
    if part < TIMES:
        with load(LOAD):
            told = run_suite(seed, QUICK_SECONDS)
        return {"quick_tests_beside_the_load": told["passed"], "longest_quick_run_beside_the_load_s": told["seconds"]}
    if part < 2 * TIMES:
        told = run_suite(seed, QUICK_SECONDS)
        return {"quick_tests_alone": told["passed"], "longest_quick_run_alone_s": told["seconds"]}
    told = run_suite(["--all", "-n", "2", *seed], WHOLE_SECONDS)
    return {"tests": told["passed"], "longest_run_s": told["seconds"]}


CAMPAIGN = Campaign(
    name="suite",
    claim="The suite is green on an idle machine and beside a load, and its quick part is quick.",
    how=f"`pytest` {TIMES} times beside {LOAD} busy processes and {TIMES} times alone, then `pytest --all` {TIMES} "
    "times alone, each with a seed of its own.",
    parts=3 * TIMES,
    run=run,
)

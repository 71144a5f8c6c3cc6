"""Kill at every instruction: whatever a process was doing, after whichever instruction it dies, nothing is lost.

tests/core/every_instruction.c says how.  The long run kills a process after each single instruction of each operation,
for real; `compact` and the reclaiming of slots alone are sampled, as they have half a million of them.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from building import Builder, CannotBuildError

from .campaign import Campaign, Figures
from .programs import ProgramError, run_program

NAME = "every_instruction"
CANNOT_STEP = 77  # exit code of the program: its output says why
SECONDS = 900  # for one run of the program
LIMIT_MS = 100

# Scene -> among how many parts of the long run its deaths are shared out: a minute and a half for each, or less.
SHARES = {
    "put_new": 1,
    "put_over": 1,
    "put_over_shared": 1,
    "delete": 1,
    "growth_of_table": 1,
    "growth_of_region": 12,
    "put_many": 2,
    "put_many_growing": 2,
    "delete_many": 1,
    "clear": 1,
    "evacuation": 1,
    "put_units": 1,
    "delete_units": 1,
    "put_run": 1,
    "delete_run": 1,
    "attach": 2,
    "detach": 1,
    "detach_shared": 1,
    "create": 14,
    "repair_of_put": 1,
    "repair_of_announced_batch": 1,
    "repair_of_committed_batch": 5,
    "repair_of_pages": 1,
    "repair_of_growth": 15,
    "compact": 2,
    "reclaim": 28,
    "reclaim_shared": 22,
}
# Scene -> of its instructions, each so manieth is fatal in the long run.
SAMPLED = {"compact": 500}
# Scene -> so many of its shares are run.
RUN_OF = {"reclaim": 4, "reclaim_shared": 4}

# Blocks that may leak: what the killed call had allocated, or had replaced and not freed yet.  Of the repairs, in which
# two processes die, the program knows it.
RECORDS_OF_BATCH = 8
LEAKS = {
    "put_new": 1,
    "put_over": 1,
    "put_over_shared": 1,
    "delete": 1,
    "growth_of_table": 1 + 1,
    "growth_of_region": 1,
    "put_many": RECORDS_OF_BATCH + 1,
    "put_many_growing": RECORDS_OF_BATCH + 1 + RECORDS_OF_BATCH,
    "delete_many": RECORDS_OF_BATCH,
    "evacuation": 1,
    "attach": 0,
    "create": 0,
}


@dataclass(frozen=True)
class Job:
    """One scene, and the deaths after instructions `first`, `first + stride`, ..."""

    scene: str
    first: int
    stride: int


def jobs_of(scene: str) -> list[Job]:
    stride = SHARES[scene] * SAMPLED.get(scene, 1)
    return [Job(scene, share, stride) for share in range(RUN_OF.get(scene, SHARES[scene]))]


# The first share of every scene comes first, so that a run that is cut short has been everywhere.
JOBS = sorted((job for scene in SHARES for job in jobs_of(scene)), key=lambda job: job.first)


def build(folder: Path) -> Path:
    """The program.  On aarch64 with the machine's own atomic instructions: others cannot be stepped through."""
    flags = ["-march=armv8.1-a"] if platform.machine() == "aarch64" else []
    return Builder(folder).program(NAME, "plain", *flags)


def scenes(program: Path) -> list[str]:
    return _output(program, "list", limit=60).split()


def run_job(program: Path, job: Job, limit: int = SECONDS) -> Figures:
    """Images after all instructions of the scene, and the deaths of the job.

    Raises:
        AssertionError: something was lost, blocked, leaked or slow; it says where.
        CannotBuildError: no process can be stepped through here.
    """
    output = _output(program, job.scene, job.first, job.stride, limit=limit)
    name, *words = output.split()
    assert name == job.scene, output
    figures = {words[i]: float(words[i + 1]) for i in range(0, len(words), 2)}
    counted = {
        "images": figures["images"],
        "kills": figures["kills"],
        f"kills_{name}": figures["kills"],
        "kills_beside_their_instruction": figures["drifted"],
        "longest_recovery_ms": figures["longest_recovery_ms"],
        f"largest_leak_{name}": figures["largest_leak"],
    }
    if job.first == 0:  # once for each scene
        counted |= {"instructions": figures["instructions"], f"instructions_{name}": figures["instructions"]}
    return counted


def _output(program: Path, *arguments: object, limit: int) -> str:
    try:
        return run_program(program, "plain", *arguments, limit=limit)
    except ProgramError as error:
        if error.status == CANNOT_STEP:
            raise CannotBuildError(error.output.strip()) from None
        raise AssertionError(_with_places(program, str(error))) from None


def _with_places(program: Path, output: str) -> str:
    """The output, and after it the function and line of each instruction that it names."""
    if not shutil.which("addr2line"):
        return output
    for place in sorted(set(re.findall(r"next: \+(0x[0-9a-f]*[1-9a-f][0-9a-f]*)", output))):
        told = subprocess.run(
            ["addr2line", "-f", "-s", "-e", str(program), place], capture_output=True, text=True, timeout=60
        )
        output += f"\n+{place} is in " + " at ".join(told.stdout.split("\n")[:2])
    return output


def run(part: int, scratch: Path) -> Figures:
    return run_job(build(scratch), JOBS[part])


CAMPAIGN = Campaign(
    name="every_instruction",
    claim="A process may be killed after any instruction of a put, delete, put_many, growth, evacuation, attach, create"
    " or repair: another one goes on within 100 ms, and all that was acknowledged is there.",
    how="ptrace: after each single instruction the region as a death leaves it is judged in a copy, and a process is"
    " killed there for real.",
    parts=len(JOBS),
    run=run,
    at_least={"instructions": 450_000, "images": 3_000, "kills": 250_000},
    at_most={"longest_recovery_ms": LIMIT_MS, **{f"largest_leak_{scene}": most for scene, most in LEAKS.items()}},
    commands={"cc": "gcc"},
)

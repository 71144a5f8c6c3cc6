"""The engine compiled for C programs: plain, with crash points, under sanitizers, with faults put in.

plain   as it is shipped
points  with crash points, at which a process can be killed
asan    AddressSanitizer and UndefinedBehaviorSanitizer, with crash points
tsan    ThreadSanitizer; for the programs whose threads share memory (it does not see other processes)
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINE = HERE.parent / "shmkv" / "_core"
PROGRAMS = HERE / "core"
COMPILER = os.environ.get("CC") or "cc"
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]

FLAVOURS = {
    "plain": ["-O2"],
    "points": ["-O2", "-DSKV_CRASH_POINTS"],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSKV_CRASH_POINTS"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
}
# For the run of a program under sanitizers.
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


class CannotBuildError(Exception):
    """The machine lacks something; the message says what."""


def compile_c(arguments: list[str]) -> None:
    done = subprocess.run(
        [COMPILER, "-std=c11", "-D_GNU_SOURCE", f"-I{ENGINE}", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def run_prefix(flavour: str) -> list[str]:
    """ThreadSanitizer wants its shadow where a kernel with much address randomisation may have mapped something."""
    return ["setarch", "-R"] if flavour == "tsan" and shutil.which("setarch") else []


class Builder:
    """Programs of tests/core; the engine is compiled once for each flavour and set of extra flags."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[tuple[str, ...], list[str]] = {}
        if not shutil.which(COMPILER):
            raise CannotBuildError(f"no C compiler ({COMPILER}) to build the engine's test programs with")

    def program(self, name: str, flavour: str, *extra: str) -> Path:
        """The path of tests/core/NAME.c, built; `extra` flags go to the engine and to the program."""
        objects = self._engine(flavour, extra)
        path = Path(objects[0]).parent / name
        source = str(PROGRAMS / f"{name}.c")
        compile_c([*WARNINGS, *FLAVOURS[flavour], *extra, source, *objects, "-o", str(path), "-lpthread"])
        return path

    def _engine(self, flavour: str, extra: tuple[str, ...]) -> list[str]:
        key = (flavour, *extra)
        if key not in self._engines:
            self._require_working(flavour)
            where = self._folder / "-".join(key).replace("/", "_")
            where.mkdir(parents=True)
            sources = sorted(ENGINE.glob("*.c"))
            if "-DSKV_CRASH_POINTS" in FLAVOURS[flavour]:
                sources.append(PROGRAMS / "crash_hook.c")
            objects = [where / f"{source.stem}.o" for source in sources]
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                jobs = [
                    pool.submit(compile_c, [*WARNINGS, *FLAVOURS[flavour], *extra, "-c", str(source), "-o", str(made)])
                    for source, made in zip(sources, objects, strict=True)
                ]
            for job in jobs:
                job.result()
            self._engines[key] = [str(made) for made in objects]
        return self._engines[key]

    def _require_working(self, flavour: str) -> None:
        """A program can be built, linked and run in this flavour."""
        source = self._folder / f"empty-{flavour}.c"
        source.write_text("int main(void) { return 0; }\n")
        program = str(source.with_suffix(""))
        try:
            compile_c([*FLAVOURS[flavour], str(source), "-o", program])
            subprocess.run([*run_prefix(flavour), program], timeout=60, check=True)
        except (AssertionError, subprocess.CalledProcessError):
            raise CannotBuildError(
                f"{COMPILER} cannot build and run programs with {' '.join(FLAVOURS[flavour])} here"
            ) from None

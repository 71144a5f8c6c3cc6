"""The engine compiled for C programs: plain, with crash points, under sanitizers, with faults put in.

plain   as it is shipped
points  with crash points, at which a process can be killed
asan    AddressSanitizer and UndefinedBehaviorSanitizer, with crash points
tsan    ThreadSanitizer; for the programs whose threads share memory (it does not see other processes)
traced  with a hook at each atomic operation and copy (tests/core/traced.h), and crash points
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINE = HERE.parent / "shmkv" / "_core"
PROGRAMS = HERE / "core"
COMPILER = os.environ.get("CC") or "cc"
CACHE_VARIABLE = "SHMKV_TEST_OBJECTS"
KEPT_SECONDS = 3 * 24 * 3600
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]

FLAVOURS = {
    "plain": ["-O2", "-g"],
    "points": ["-O2", "-g", "-DSKV_CRASH_POINTS"],
    "asan": ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSKV_CRASH_POINTS"],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
    "traced": ["-O1", "-DSKV_CRASH_POINTS", "-include", str(PROGRAMS / "traced.h")],
}
# What a flavour's programs are linked with.
PARTS = {
    "points": ["crash_hook.c"],
    "asan": ["crash_hook.c", "fork_safe.c"],
    "traced": ["crash_hook.c"],
}
LINK = {"asan": [f"-Wl,--wrap={name}" for name in ("malloc", "calloc", "realloc", "aligned_alloc", "free")]}
# For the run of a program under sanitizers.
ENVIRONMENT = {
    "ASAN_OPTIONS": "abort_on_error=0:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


class CannotBuildError(Exception):
    """The machine lacks something; the message says what."""


def compile_c(arguments: list[str], engine: Path = ENGINE) -> None:
    done = subprocess.run(
        [COMPILER, "-std=c11", "-D_GNU_SOURCE", f"-I{engine}", *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def run_prefix(flavour: str) -> list[str]:
    """ThreadSanitizer wants its shadow where a kernel with much address randomisation may have mapped something."""
    return ["setarch", "-R"] if flavour == "tsan" and shutil.which("setarch") else []


@functools.cache
def object_cache() -> Path:
    """A folder for object files: in build/, where the next run finds them, or, where the tree may not be written to,
    one for this process and those that it starts, gone at its end."""
    if CACHE_VARIABLE not in os.environ:
        kept = HERE.parent / "build" / "test-objects"
        if os.access(HERE.parent, os.W_OK):
            kept.mkdir(parents=True, exist_ok=True)
            _remove_old(kept)
            os.environ[CACHE_VARIABLE] = str(kept)
        else:
            os.environ[CACHE_VARIABLE] = folder = tempfile.mkdtemp(prefix="shmkv-objects-")
            atexit.register(_remove_cache, folder, os.getpid())
    return Path(os.environ[CACHE_VARIABLE])


def _remove_cache(folder: str, maker: int) -> None:
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_old(folder: Path) -> None:
    """What no run has used for days belongs to a text that is gone."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another run does the same
            if time.time() - path.stat().st_mtime > KEPT_SECONDS:
                path.unlink()


@functools.cache
def compiler_version() -> bytes:
    """Objects of another compiler are others, whatever its name."""
    return subprocess.run([COMPILER, "--version"], capture_output=True, check=True).stdout


def cached(name: str, parts: Iterable[bytes], make: Callable[[Path], None]) -> Path:
    """A file that follows from its parts alone: `make(path)` is called once, whoever else asks for it meanwhile."""
    told = hashlib.sha256()
    for part in parts:
        told.update(b"%d:" % len(part) + part)
    stem, suffix = os.path.splitext(name)
    made = object_cache() / f"{stem}-{told.hexdigest()[:24]}{suffix}"
    with made.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            fresh = made.with_suffix(f".new{suffix}")
            make(fresh)
            fresh.replace(made)
        os.utime(made)
    return made


def _folder_name(key: tuple[str, ...]) -> str:
    return "-".join(key).replace("/", "_")


class Builder:
    """Programs of tests/core; the engine (of `engine`, a folder) is compiled once for each flavour and set of flags."""

    def __init__(self, folder: Path, engine: Path = ENGINE) -> None:
        self._folder = folder
        self._source = engine
        self._engines: dict[tuple[str, ...], list[str]] = {}
        if not shutil.which(COMPILER):
            raise CannotBuildError(f"no C compiler ({COMPILER}) to build the engine's test programs with")

    def program(self, name: str, flavour: str, *extra: str) -> Path:
        """The path of tests/core/NAME.c, built; `extra` flags go to the engine and to the program."""
        objects = self._engine(flavour, extra)
        path = self._folder / _folder_name((flavour, *extra)) / name
        source = str(PROGRAMS / f"{name}.c")
        flags = [*WARNINGS, *FLAVOURS[flavour], *extra]
        compile_c([*flags, source, *objects, *LINK.get(flavour, ()), "-o", str(path), "-lpthread"], self._source)
        return path

    def _engine(self, flavour: str, extra: tuple[str, ...]) -> list[str]:
        key = (flavour, *extra)
        if key not in self._engines:
            self._require_working(flavour)
            (self._folder / _folder_name(key)).mkdir(parents=True)
            sources = [*sorted(self._source.glob("*.c")), *(PROGRAMS / part for part in PARTS.get(flavour, ()))]
            flags = [*WARNINGS, *FLAVOURS[flavour], *extra]
            object_cache()  # now: two threads that ask for it at once would make two
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                self._engines[key] = list(pool.map(lambda source: self._object(source, flags), sources))
        return self._engines[key]

    def _object(self, source: Path, flags: list[str]) -> str:
        """Compiled once for each text and each set of flags: one fault in one file leaves the others as they are."""
        texts = (source, *sorted(self._source.glob("*.h")), *sorted(PROGRAMS.glob("*.h")))
        parts = [" ".join([COMPILER, *flags]).encode(), compiler_version(), *(text.read_bytes() for text in texts)]

        def make(path: Path) -> None:
            compile_c([*flags, "-c", str(source), "-o", str(path)], self._source)

        return str(cached(f"{source.stem}.o", parts, make))

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

"""Damaged and hostile regions, and text of any kind, under libFuzzer with sanitizers (tests/core/fuzz_*.c).

Inputs are short (see the programs for what they mean); those that reach something of their own are kept in
tests/corpus/ as text, one line each, and every run starts from them.  A run is reproducible from its seed and number
of executions.
"""

from __future__ import annotations

import base64
import concurrent.futures
import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from building import ENGINE, PROGRAMS, WARNINGS, cached, object_cache

from .campaign import Campaign, Figures

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
CLANG = "clang"
# As shipped, so without asserts: some are about words that a hostile process may change under our lock.
FAKE_CLOCK = [f"-D{name}=box_{name}" for name in ("clock_gettime", "nanosleep", "sched_yield")]
FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    f"-I{ENGINE}",
    *WARNINGS,
    "-O2",
    "-g",
    "-DNDEBUG",
    "-DSKV_CRASH_POINTS",
    *FAKE_CLOCK,
]
SANITIZERS = "address,undefined"
MALLOC_MIB = 64  # of one allocation; the regions have 3 MiB at most
RSS_MIB = 1500
HANG_SECONDS = 20  # of wall time; the programs themselves insist on less than a second of processor time
INPUT_BYTES = {"fuzz_region": 200, "fuzz_import": 400, "fuzz_log": 80}


def is_missing() -> str:
    """Why fuzzing cannot be done here, with the Debian packages that are needed; "" if it can."""
    if not shutil.which(CLANG):
        return "clang is missing (Debian packages: clang, libclang-rt-dev)"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("#include <stddef.h>\nint LLVMFuzzerTestOneInput(const char *, size_t);\n"
                          "int LLVMFuzzerTestOneInput(const char *d, size_t n) { return d && n && 0; }\n")  # fmt: skip
        command = [CLANG, f"-fsanitize=fuzzer,{SANITIZERS}", str(source), "-o", str(source.with_suffix(""))]
        works = subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0
    return "" if works else "clang has no libFuzzer or sanitizers here (Debian package: libclang-rt-dev)"


def _compile(arguments: list[str]) -> None:
    done = subprocess.run([CLANG, *FLAGS, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def _instrument(source: Path) -> Path:
    flags = [f"-fsanitize=fuzzer-no-link,{SANITIZERS}", "-fno-sanitize-recover=all", "-fno-sanitize-coverage=trace-cmp"]
    texts = (source, *sorted(ENGINE.glob("*.h")), *sorted(PROGRAMS.glob("*.h")))
    parts = [" ".join([CLANG, *FLAGS, *flags]).encode(), *(text.read_bytes() for text in texts)]
    return cached(f"{source.stem}.o", parts, lambda made: _compile([*flags, "-c", str(source), "-o", str(made)]))


@functools.cache
def engine() -> list[Path]:
    """The engine without the operating system's part, instrumented; compiled once for all that this process runs."""
    sources = [source for source in sorted(ENGINE.glob("*.c")) if not source.name.startswith("os")]
    object_cache()  # now: two threads that ask for it at once would make two
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_instrument, [*sources, PROGRAMS / "crash_hook.c"]))


@functools.cache
def built(program: str) -> Path:
    """tests/core/PROGRAM.c with the engine."""
    objects = [str(made) for made in (*engine(), _instrument(PROGRAMS / f"{program}.c"))]

    def link(path: Path) -> None:
        _compile([f"-fsanitize=fuzzer,{SANITIZERS}", *objects, "-o", str(path), "-lpthread"])

    return cached(program, [" ".join(objects).encode()], link)


def unpack_corpus(program: str, folder: Path) -> int:
    """Writes the kept inputs into a folder, as libFuzzer wants them; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (CORPUS / f"{program}.txt").read_text().splitlines()
    inputs = [base64.b64decode(line) for line in lines if line and not line.startswith("#")]
    for number, data in enumerate(inputs):
        (folder / f"{number:04d}").write_bytes(data)
    return len(inputs)


def pack_corpus(program: str, folder: Path) -> None:
    """The other way round, after `-merge=1` of a long run."""
    lines = sorted(base64.b64encode(path.read_bytes()).decode() for path in folder.iterdir())
    head = f"# Inputs of tests/core/{program}.c that reach something of their own, base64, one a line."
    (CORPUS / f"{program}.txt").write_text("\n".join([head, *lines]) + "\n")


def fuzz(program: Path, runs: int, seed: int, scratch: Path) -> Figures:
    """So many executions; a violation is an AssertionError with the input that shows it."""
    name = program.name.partition("-")[0]
    kept, found = scratch / "kept", scratch / "found"
    found.mkdir(parents=True)
    unpack_corpus(name, kept)
    options = {
        "runs": runs,
        "seed": seed + 1,
        "timeout": HANG_SECONDS,
        "len_control": 0,
        "max_len": INPUT_BYTES[name],
        "entropic": 0,  # as the next: weighing inputs by what they reach took a quarter of the time
        "use_counters": 0,
        "malloc_limit_mb": MALLOC_MIB,
        "rss_limit_mb": RSS_MIB,
        "verbosity": 0,
        "artifact_prefix": f"{scratch}/",
    }
    command = [str(program), *(f"-{option}={value}" for option, value in options.items()), str(found), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=3600, check=False)
    told = done.stderr[-6000:]
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{told}"
    figures = re.search(r"^fuzz: executions=(\d+) opened=(\d+) longest_ms=([\d.]+)$", done.stderr, re.MULTILINE)
    assert figures, told
    return {
        f"{name}_executions": float(figures[1]),
        f"{name}_opened": float(figures[2]),
        f"longest_{name}_ms": float(figures[3]),
    }


def run(part: int, scratch: Path) -> Figures:
    figures = fuzz(built("fuzz_region"), 175_000, part, scratch / "region")
    figures |= fuzz(built("fuzz_import"), 175_000, part, scratch / "import")
    return figures | fuzz(built("fuzz_log"), 175_000, part, scratch / "log")


CAMPAIGN = Campaign(
    name="fuzz",
    claim="A region that is damaged or hostile gives wrong values and errors, never a crash, a hang, a look beyond "
    "what is committed, or memory out of all proportion; the loader of text does with any bytes what its format says; "
    "whatever is done to the files of a log, they are recovered, or the damage is told.",
    how="libFuzzer, with AddressSanitizer and UndefinedBehaviorSanitizer: words of regions are changed before and "
    "during the use of all operations (tests/core/fuzz_region.c); what is loaded is compared with a second loader "
    "(tests/core/fuzz_import.c); files are changed, with checksums that fit or do not (tests/core/fuzz_log.c).",
    parts=62,
    run=run,
    at_least={
        "fuzz_region_executions": 10_000_000,
        "fuzz_import_executions": 10_000_000,
        "fuzz_log_executions": 10_000_000,
    },
    at_most={"longest_fuzz_region_ms": 1000, "longest_fuzz_import_ms": 1000, "longest_fuzz_log_ms": 1000},
    commands={"clang": "clang"},
)

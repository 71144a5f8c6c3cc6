"""Which lines and branches of shmkv the tests run: `python -m tests.covering [WORD...]`.

What: the engine (at least 95 % of lines, 90 % of branches), its binding (for information), the Python files (95 %).
How:  in a copy of the tree, the engine is compiled once so that it counts, and linked into the extension and into the
      C programs of tests/core; suite and programs run; gcov and coverage.py tell what was counted.  A line of the
      engine that is not run needs a reason in tests/uncovered.json; a reason whose line is run is stale.
      With words, only the test files and programs whose names contain one of them run, and nothing is judged.

What a process had counted when another one killed it is lost.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import building  # noqa: E402
import test_core  # noqa: E402

ROOT = HERE.parent
REASONS = HERE / "uncovered.json"
ENGINE_LINES, ENGINE_BRANCHES, PYTHON_LINES = 95.0, 90.0, 95.0  # percent

# As it is shipped: without asserts, whose other branch nothing can reach, but not optimised, so that lines stay lines.
FLAGS = ["-O0", "-g", "-fPIC", "-DNDEBUG", "-DSKV_CRASH_POINTS", "--coverage", "-fprofile-update=atomic"]

# Test files that a coverage run leaves out, each with its reason.
LEFT_OUT = {
    "test_core.py": "the C programs run by themselves here",
    "test_architecture.py": "reads sources and runs none",
    "test_machine.py": "200,000 steps; the other tests run what they run",
    "test_covered.py": "would measure itself",
    **dict.fromkeys(
        [
            "test_every_instruction.py",
            "test_free_threaded.py",
            "test_fuzz.py",
            "test_linearizability.py",
            "test_models.py",
            "test_mutants.py",
            "test_torture.py",
        ],
        "builds an engine of its own, which does not count here, or kills who counts",
    ),
}
# Reasons that begin so are never stale: the line is run in some runs, when processes meet in the right instant.
BY_CHANCE = "By chance: "

NOT_WHILE_COUNTING = {
    "tests/test_datastore_files.py::test_closed_by_a_signal_handler": "coverage.py hangs after such a handler",
    "tests/test_cli.py::test_help_loads_neither_the_engine_nor_what_draws": "coverage.py loads more",
}
PROCESSES = 2
GROUPS = 8  # of test files, so that both processes are busy to the end
SECONDS = 1500  # for a group, or a program


# ---- Lines and branches --------------------------------------------------------------------


@dataclass
class File:
    """What was counted of one source file."""

    lines: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # number -> times
    branches: dict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    functions: dict[int, str] = field(default_factory=dict)  # line -> the function that it is in

    def uncovered(self) -> list[int]:
        return sorted(line for line, times in self.lines.items() if not times)


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def lines_percent(files: Iterable[File]) -> float:
    times = [count for file in files for count in file.lines.values()]
    return percent(sum(map(bool, times)), len(times))


def branches_percent(files: Iterable[File]) -> float:
    times = [count for file in files for count in file.branches.values()]
    return percent(sum(map(bool, times)), len(times))


class Tree:
    """A copy of the project whose C code counts."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self._objects = folder / "objects"
        self._programs = folder / "programs"
        ignored = shutil.ignore_patterns(".git", "*.so", "__pycache__", ".hypothesis", ".*_cache", ".venv")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        shutil.copy(HERE / "covered" / "sitecustomize.py", self.root)
        folder.chmod(0o711)  # tests become other users, who write their counts beside ours
        counts = folder / "counts"
        counts.mkdir()
        counts.chmod(0o777)
        self.data_file = counts / "python.coverage"
        self._settings = folder / "coveragerc"
        self._settings.write_text(f"[run]\nparallel = true\nsource = {self.root}/shmkv\ndata_file = {self.data_file}\n")
        self.core = self.root / "shmkv" / "_core"

    def build(self) -> None:
        for folder in (self._objects, self._objects / "binding", self._programs):
            folder.mkdir()
        sources = [*sorted(self.core.rglob("*.c")), HERE / "core" / "crash_hook.c", HERE / "covered" / "dump.c"]
        with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
            objects = list(pool.map(self._compile, sources))
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        building.compile_c(["-shared", "--coverage", *objects, "-o", f"{self.core}{suffix}", "-lpthread"])
        self.engine = [made for made in objects if "/binding/" not in made and not made.endswith("/import.o")]

    def _compile(self, source: Path) -> str:
        name = source.relative_to(self.core) if source.is_relative_to(self.core) else Path(source.name)
        made = str(self._objects / name.with_suffix(".o"))
        counting = [] if source.name == "dump.c" else FLAGS
        include = f"-I{sysconfig.get_path('include')}"
        building.compile_c(["-fvisibility=hidden", "-fPIC", *counting, include, "-c", str(source), "-o", made])
        return made

    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join([str(self.root), str(self.root / "tests")])
        # A process of another user cannot write its counts; what libgcov says of it would be in the way.
        extra = {"PYTHONPATH": paths, "COVERAGE_PROCESS_START": str(self._settings), "GCOV_ERROR_FILE": os.devnull}
        return {**os.environ, **extra, "SHMKV_TEST_PATIENCE": "5"}

    # ---- Running ---------------------------------------------------------------------------

    def run_program(self, run: test_core.Run) -> str | None:
        """Build and run a C program; what went wrong, or None."""
        path = self._programs / run.program
        source = str(HERE / "core" / f"{run.program}.c")
        header = str(HERE / "core" / "covered.h")
        made = f"{path}.o"
        building.compile_c(["-include", header, "-O1", "-DSKV_CRASH_POINTS", "-c", source, "-o", made])
        building.compile_c([made, *self.engine, "--coverage", "-o", str(path), "-lpthread"])
        return self._run([str(path), *run.arguments.format(seed=1).split()])

    def run_tests(self, files: list[str]) -> str | None:
        left_out = [f"--deselect={name}" for name in NOT_WHILE_COUNTING]
        chosen = ["-q", "-p", "no:cacheprovider", "--seed", "1", *left_out, *files]
        return self._run([sys.executable, "-m", "pytest", *chosen])

    def _run(self, command: list[str]) -> str | None:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            timeout=SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}" if done.returncode else None

    # ---- What was counted ------------------------------------------------------------------

    def counted_in_c(self) -> dict[str, File]:
        """By path from the project's folder."""
        files: dict[str, File] = defaultdict(File)
        for notes in sorted(self._objects.rglob("*.gcno")):
            command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", str(notes.with_suffix(".o"))]
            text = subprocess.run(command, cwd=self._objects, capture_output=True, text=True, check=True).stdout
            for file in json.loads(text)["files"]:
                path = Path(file["file"])
                if path.is_relative_to(self.root):
                    self._add(files[str(path.relative_to(self.root))], file["lines"])
        return files

    @staticmethod
    def _add(file: File, lines: list[dict[str, Any]]) -> None:
        """Branches are told apart by their place in their line: a header's are the same in each source."""
        for line in lines:
            number = line["line_number"]
            file.lines[number] += line["count"]
            file.functions[number] = line.get("function_name", "")
            for place, branch in enumerate(line["branches"]):
                file.branches[number, len(line["branches"]), place] += branch["count"]

    def counted_in_python(self) -> dict[str, File]:
        import coverage

        with contextlib.redirect_stdout(io.StringIO()):
            data = coverage.Coverage(config_file=str(self._settings), data_file=str(self.data_file))
            data.combine()
        files = {}
        for path in sorted((self.root / "shmkv").rglob("*.py")):
            _, statements, _, missing, _ = data.analysis2(str(path))
            file = files[str(path.relative_to(self.root))] = File()
            file.lines.update({line: int(line not in missing) for line in statements})
        return files


# ---- Reasons -------------------------------------------------------------------------------


def named(path: str, file: File, line: int) -> str:
    """A line by what does not change when others are put before it: its function and its text."""
    text = (ROOT / path).read_text().splitlines()[line - 1].strip()
    return f"{file.functions.get(line, '')}: {text}"


def judge_reasons(files: dict[str, File]) -> list[str]:
    """A sentence for each line of the engine that is not run and has no reason, and for each stale reason."""
    reasons: dict[str, dict[str, str]] = json.loads(REASONS.read_text())
    faults = []
    for path, file in sorted(files.items()):
        known = reasons.pop(path, {})
        missing = {named(path, file, line): line for line in file.uncovered()}
        faults += [f"{path}:{missing[name]}: not run, no reason: {name}" for name in missing.keys() - known.keys()]
        settled = {name for name, reason in known.items() if not reason.startswith(BY_CHANCE)}
        faults += [
            f"{path}: has a reason not to be run, but is run or gone: {name}" for name in settled - missing.keys()
        ]
    return sorted(faults) + [f"{path}: has reasons, but is no file of the engine" for path in reasons]


# ---- The run -------------------------------------------------------------------------------


@dataclass
class Result:
    engine: dict[str, File]
    binding: dict[str, File]
    python: dict[str, File]
    failures: list[str]

    def figures(self) -> dict[str, float]:
        return {
            "engine_lines_percent": round(lines_percent(self.engine.values()), 2),
            "engine_branches_percent": round(branches_percent(self.engine.values()), 2),
            "binding_lines_percent": round(lines_percent(self.binding.values()), 2),
            "python_lines_percent": round(lines_percent(self.python.values()), 2),
        }

    def faults(self) -> list[str]:
        """Why the run is no success; empty if it is."""
        bars = {
            "engine_lines_percent": ENGINE_LINES,
            "engine_branches_percent": ENGINE_BRANCHES,
            "python_lines_percent": PYTHON_LINES,
        }
        figures = self.figures()
        low = [f"{name} is {figures[name]}, not {bar} or more" for name, bar in bars.items() if figures[name] < bar]
        return self.failures + judge_reasons(self.engine) + low


def groups(words: list[str]) -> list[list[str]]:
    """Test files in groups, of which some run beside each other."""
    files = [path for path in sorted(HERE.rglob("test_*.py")) if path.name not in LEFT_OUT]
    chosen = [str(path.relative_to(ROOT)) for path in files if not words or any(word in path.name for word in words)]
    return [group for group in (chosen[turn::GROUPS] for turn in range(GROUPS)) if group]


def programs(words: list[str]) -> list[test_core.Run]:
    """One run of each C program that needs no engine of its own: of the runs of all its tests the last, which does
    least."""
    whole = [run for run in test_core.RUNS if run.flavour not in ("tsan", "traced") and run.is_whole]
    runs = {run.program: run for run in whole}
    return [run for name, run in runs.items() if not words or any(word in name for word in words)]


def measure(folder: Path, words: list[str]) -> Result:
    tree = Tree(folder)
    tree.build()
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        jobs = [pool.submit(tree.run_program, run) for run in programs(words)]
        jobs += [pool.submit(tree.run_tests, group) for group in groups(words)]
        failures = [failure for job in jobs if (failure := job.result())]
    counted = tree.counted_in_c()
    binding = {path: file for path, file in counted.items() if "/binding/" in path}
    engine = {path: file for path, file in counted.items() if path not in binding and path.startswith("shmkv/")}
    return Result(engine, binding, tree.counted_in_python(), failures)


def spans(numbers: list[int]) -> list[str]:
    """3 4 5 9 as 3-5 9."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return [f"{span[0]}-{span[-1]}" if len(span) > 1 else f"{span[0]}" for span in found]


def show(title: str, files: dict[str, File]) -> None:
    print(f"\n{title}")
    for path, file in sorted(files.items()):
        branches = f"{branches_percent([file]):6.1f} %" if file.branches else "        "
        uncovered = " ".join(spans(file.uncovered()))
        print(f"{lines_percent([file]):6.1f} % {branches}  {path}  {uncovered}")


def main(words: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="shmkv-covering-") as folder:
        result = measure(Path(folder), words)
    show("Engine: lines, branches, lines not run", result.engine)
    show("Binding", result.binding)
    show("Python: lines", result.python)
    print(*(f"{name} {value}" for name, value in result.figures().items()), sep="\n")
    faults = result.failures if words else result.faults()
    print(*faults, sep="\n")
    return bool(faults)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

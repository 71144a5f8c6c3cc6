"""Rules of the house (docs/architecture.md) that are tests: who may import, include and know whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import run_python

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "shmkv"
CORE = PACKAGE / "_core"

# ---- Python: imports run one way ---------------------------------------------------------------

# A module may import what stands on a lower level; a package counts as its first name.
LEVELS = {
    "_core": -1, "ending": -1, "errors": -1, "processes": -1, "realthread": -1,
    "failing": 0, "leaving": 0, "objects": 0, "surroundings": 0, "waiting": 0,
    "backup": 1, "codecs": 1, "region": 1, "deepcheck": 1, "folder": 1, "keeper": 1, "walking": 1,
    "claim": 2, "durable": 2, "outside": 2, "replacing": 2, "reports": 2,
    "store": 3,
    "aio": 4, "datastore": 4, "keyvalue": 4, "forms": 4,
    "filling": 4,
    "workload": 5, "counting": 5, "exposition": 5,
    "server": 6,
    "cli": 7,  # of the server only `shmkv serve` knows, and not before it runs
    "__main__": 8,
}  # fmt: skip

MODULES = sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """The first name below shmkv: "store", "cli", ...; "" for shmkv/__init__.py itself."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path, *, top_only: bool = False) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of everything that a file imports; names of `from x import y` included."""
    tree = ast.parse(path.read_text())
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in ast.walk(f)
    }
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree):
        if top_only and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module, node.lineno
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno


def units_imported(path: Path, *, top_only: bool = False) -> Iterator[tuple[str, int]]:
    for module, line in imports(path, top_only=top_only):
        parts = module.split(".")
        if parts[0] == "shmkv" and len(parts) > 1 and parts[1] in LEVELS:
            yield parts[1], line


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    unit = unit_of(path)
    if not unit:
        assert all(LEVELS[other] <= LEVELS["keyvalue"] for other, _ in units_imported(path))
        return
    assert unit in LEVELS, f"shmkv/{unit} has no level yet: give it one in {Path(__file__).name}"
    for other, line in units_imported(path):
        assert other == unit or LEVELS[other] < LEVELS[unit], f"{path.name}:{line}: {unit} must not import {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_bench_or_tests(path: Path) -> None:
    for module, line in imports(path):
        assert module.split(".")[0] not in ("bench", "tests", "helpers", "conftest", "pytest", "hypothesis"), (
            f"line {line}"
        )


def test_init_re_exports_and_nothing_else() -> None:
    """Imports for type checkers, a table of names, and the two functions of PEP 562 that look them up."""
    for node in ast.parse((PACKAGE / "__init__.py").read_text()).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_constant = isinstance(node, (ast.Assign, ast.AnnAssign))
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_lookup = isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")
        assert is_docstring or is_constant or is_import or is_typing or is_lookup, f"line {node.lineno}"


def test_import_shmkv_loads_little() -> None:
    """No server, no command line, no plotting, and none of what takes longer to load than shmkv itself."""
    out = run_python("import sys, shmkv; shmkv.Store; print(*sys.modules)")
    loaded = set(out.split())
    for heavy in (
        "argparse",
        "rich",
        "fastapi",
        "uvicorn",
        "matplotlib",
        "msgspec",
        "psutil",
        "multiprocessing",
        "asyncio",
    ):
        assert heavy not in loaded, heavy
    assert not [name for name in loaded if name.startswith(("shmkv.cli", "shmkv.server", "shmkv.workload"))]


# ---- C: the engine knows no Python, and its parts know each other one way --------------------------

# A file may include headers of its own level and below.
C_LEVELS = {
    # what lies in the region, results, orders of memory
    "layout": 0, "status": 0, "atomics": 0, "hash": 0, "little": 0, "scratch": 0,
    # the surface, and the state of one process
    "store.h": 1, "os.h": 1, "engine": 2,
    # what lies on disk
    "files": 1, "frame": 1, "segment": 2, "again": 2, "recover": 3, "wal": 3, "os_files": 3,
    # the operating system at the edge
    "os": 3, "os_region": 3, "os_create": 3, "os_facts": 3, "os_liveness": 3, "os_family": 3, "os_memory": 3,
    "os_bus": 3, "os_replace": 6,  # it moves items
    # concepts
    "table": 3, "lock": 3, "procs": 3, "intent": 3, "repair": 3, "spare": 3, "journal": 3,
    "pages": 3, "lease": 3, "runs": 3, "grow": 3, "alloc": 3, "free": 3, "kept": 3, "age": 3, "ghost": 3,
    # reading and writing with them
    "read": 4, "write": 4, "logged": 4, "rebuild": 4,
    # operations on many items at once
    "walk": 5, "sweep": 5, "evict": 5, "move": 5, "evacuate": 5, "gather": 5, "window": 5, "shrink": 5, "slide": 5,
    "compact": 5, "room": 5,
    "checkpoint": 5, "restore": 5,
    # what users call
    "store": 6, "batch": 6, "open": 6, "check": 6, "check_buckets": 6, "check_pages": 6, "import": 6,
}  # fmt: skip
BINDING = 7
C_FILES = sorted(CORE.rglob("*.[ch]"))

# A .c file may use what stands above it where this says why.
EXCEPTIONS = {
    ("repair.c", "write.h"),  # a repair ends as a write does: bump, unlock, free
    ("alloc.c", "room.h"),  # an allocation that finds nothing asks for room to be made
    ("alloc.c", "slide.h"),  # and before it takes the last gap of its length, for short gaps to be joined
}


def level(name: str) -> int:
    found = C_LEVELS.get(name, C_LEVELS.get(Path(name).stem))
    assert found is not None, f"{name} has no level yet: give it one in {Path(__file__).name}"
    return found


def includes(path: Path) -> list[tuple[str, bool]]:
    """(header, written in quotes) of each include line."""
    lines = re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)
    return [(name, mark == '"') for mark, name in lines]


def name_of(path: Path) -> str:
    return str(path.relative_to(CORE))


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_only_the_binding_includes_python(path: Path) -> None:
    names = [name for name, _ in includes(path)]
    if path.parent.name != "binding":
        assert not [name for name in names if name.startswith(("Python", "structmember", "datetime.h", "pythread"))]
        assert not [name for name in names if "binding" in name]


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_no_file_includes_upward(path: Path) -> None:
    if path.parent.name == "binding":
        for name, quoted in includes(path):
            own = (path.parent / name).exists() and "/" not in name
            assert not quoted or own or level(Path(name).name) < BINDING
        return
    for name, quoted in includes(path):
        if quoted and (path.name, name) not in EXCEPTIONS:
            assert level(name) <= level(path.name), f"{path.name} includes {name}"


def test_headers_include_each_other_without_a_circle() -> None:
    headers = {path.name: [n for n, quoted in includes(path) if quoted] for path in CORE.glob("*.h")}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in headers.get(name, []):
                visit(other, (*above, name))
            done.add(name)

    for name in headers:
        visit(name, ())


def test_table_and_allocator_do_not_know_each_other() -> None:
    parts = ("alloc", "free", "grow", "lease", "pages", "room", "runs")
    allocator, table = [f"{part}.{end}" for part in parts for end in "hc"], ["table.h", "table.c"]
    for own, other in ((allocator, table), (table, allocator)):
        for name in own:
            if (CORE / name).exists():
                assert not {header for header, _ in includes(CORE / name)} & set(other), name


OS_HEADERS = ("sys/", "fcntl.h", "unistd.h", "linux/", "sched.h", "signal.h", "time.h", "dirent.h")
# Pausing, deadlines and thread ids, which need no memory and no clock of the region.
ALLOWED = {
    "lock.c": {"time.h", "unistd.h"},
    "procs.c": {"sched.h", "time.h"},
    "read.c": {"sched.h"},
    "scratch.h": {"sys/mman.h"},  # what is kept must not lie in the heap
}


@pytest.mark.parametrize("path", [p for p in C_FILES if p.parent == CORE], ids=name_of)
def test_the_engine_owns_no_operating_system(path: Path) -> None:
    """It is given memory and a clock, so that it runs on malloc and threads under sanitizers."""
    if not path.name.startswith("os"):
        met = {name for name, quoted in includes(path) if not quoted and name.startswith(OS_HEADERS)}
        assert met <= ALLOWED.get(path.name, set())


def test_layout_stands_alone() -> None:
    assert [name for name, quoted in includes(CORE / "layout.h") if quoted] == []


def test_what_lies_in_the_region_is_layout_and_nothing_else() -> None:
    """Structs with a fixed size that is asserted: in layout.h only."""
    for path in CORE.glob("*.[ch]"):
        if path.name != "layout.h":
            assert "_Alignas(64) _Atomic" not in path.read_text(), f"{path.name}: a struct of the region?"


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_each_file_opens_with_what_it_is(path: Path) -> None:
    first = path.read_text().lstrip().splitlines()[0]
    assert first.startswith("/*"), "a file opens with a comment that says what it is"
    assert path.name in first, f"the first line names the file: {first}"

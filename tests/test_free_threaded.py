"""What a free-threaded interpreter would run, on this one: the extension built as if there were no GIL.

Its ways of counting and announcing differ there (every one is atomic, no block is kept for the next put).  Built with
SKV_FREE_THREADED=1 they are run on every Python, with the GIL as the only thing that is not put to the test.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import run_python, unique_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "shmkv"
SUITES = ("test_threads.py", "test_counters.py", "test_batch.py", "test_mapping.py", "test_fork.py")
COMPILER = os.environ.get("CC") or "cc"


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder with a package `shmkv` whose extension was built for no GIL."""
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    copy = Path(shutil.copytree(PACKAGE, tmp_path / "shmkv", ignore=ignore))
    sources = [str(path) for path in sorted((copy / "_core").rglob("*.c"))]
    target = copy / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE", "-DSKV_FREE_THREADED=1"]
    command = [COMPILER, *flags, f"-I{sysconfig.get_path('include')}", *sources, "-o", str(target), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_the_suites_of_threads_hold_without_leaning_on_the_gil(built: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(built)}
    where = "import shmkv._core; print(shmkv._core.__file__)"
    told = subprocess.run([sys.executable, "-c", where], cwd=built, env=environment, capture_output=True, text=True)
    assert told.stdout.startswith(str(built)), told.stdout + told.stderr
    tests = [str(ROOT / "tests" / name) for name in SUITES]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=built, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]


def test_no_module_that_turns_the_gil_on_is_imported() -> None:
    """posix_ipc and msgspec need not be there: shm_open is the binding's own, the json codec says what is missing."""
    code = """
import sys
sys.modules["posix_ipc"] = sys.modules["msgspec"] = None
import shmkv._core
shmkv._core.FREE_THREADED = True
from shmkv import Store, StoreExistsError, StoreNotFoundError
name = sys.argv[1]
with Store.create(name, size="1MiB") as store, Store(name, readonly=True) as reader, Store() as private:
    store["a"] = private["a"] = 1
    print(reader["a"])
    try:
        Store.create(name)
    except StoreExistsError:
        print("exists")
    try:
        Store.attach(name, codec="json")
    except ImportError as error:
        print(error)
    store.unlink()
try:
    Store.attach(name)
except StoreNotFoundError:
    print("gone")
"""
    lines = run_python(code, unique_name()).splitlines()
    assert [lines[0], lines[1], lines[3]] == ["1", "exists", "gone"]
    assert "msgspec" in lines[2]

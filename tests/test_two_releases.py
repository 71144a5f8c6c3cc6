"""Two releases of shmkv attached at once, as in a rolling reload: of one layout, and of two.

The other release is a copy of this package with another version, and with another layout version in layout.h.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import extension
import pytest
from helpers import PATIENCE, region_path
from shell import run

import shmkv
from shmkv import Store, StoreLockedError, durable

PACKAGE = Path(shmkv.__file__).parent
COPIED = shutil.ignore_patterns("*.so", "__pycache__")


def copy_of(folder: Path, layout: int) -> Path:
    """A release beside this one; of another layout it is compiled anew, without optimization, which is quicker."""
    shutil.copytree(PACKAGE, folder / "shmkv", ignore=COPIED)
    init = folder / "shmkv" / "__init__.py"
    init.write_text(re.sub(r'__version__ = "[^"]*"', '__version__ = "99.0"', init.read_text()))
    if layout == 1:
        shutil.copy(shmkv._core.__file__, folder / "shmkv")
        return folder
    header = folder / "shmkv" / "_core" / "layout.h"
    header.write_text(re.sub(r"(#define SKV_LAYOUT_VERSION +)1u", rf"\g<1>{layout}u", header.read_text()))
    cmake, ninja = extension.tool("cmake"), extension.tool("ninja")
    if not cmake or not ninja:
        pytest.skip("compiling another release needs CMake and ninja: pip install -e .[test]")
    made = folder / "build"
    how = [f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_C_FLAGS_RELEASE=-O0"]
    extension.run([cmake, "-G", "Ninja", *how, "-S", str(header.parent), "-B", str(made)])
    extension.run([cmake, "--build", str(made)])
    shutil.copy(made / extension.BUILT.name, folder / "shmkv")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with the layout of this one."""
    return copy_of(tmp_path_factory.mktemp("same"), 1)


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with another layout."""
    return copy_of(tmp_path_factory.mktemp("other"), 2)


def start(release: Path, code: str, *args: str) -> subprocess.Popen[str]:
    """A program of that release, which says a line when it has begun, and goes on until its input ends."""
    environment = {**os.environ, "PYTHONPATH": str(release)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=release, text=True,
    )  # fmt: skip


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())
    return line.strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60 * PATIENCE)
    assert process.returncode == 0


IN_MEMORY = """
import sys, shmkv
assert shmkv.__version__ == "99.0"
with shmkv.Store(sys.argv[1], size="4MiB") as store:
    store.incr("seen")
    print(store.incr("n", 10), len(shmkv.list_stores()) > 0, flush=True)
    sys.stdin.read()
"""
DURABLE = """
import sys, shmkv
with shmkv.Store.open(sys.argv[1], sync="none", size="4MiB") as store:
    print(sorted(store.items()), flush=True)
    sys.stdin.read()
    store["later"] = 2
"""


def test_of_one_layout_they_share_everything(other: Path, name: str, tmp_path: Path) -> None:
    with Store(name, size="4MiB") as store, Store.open(tmp_path / "d", size="4MiB") as kept:
        store["n"], kept["ours"] = 1, 1
        memory, disk = start(other, IN_MEMORY, name), start(other, DURABLE, str(tmp_path / "d"))
        assert told(memory) == "11 True"
        assert told(disk) == "[('ours', 1)]"
        assert store["n"] == 11
        end(memory)
        end(disk)
        assert dict(kept) == {"ours": 1, "later": 2}
        store.unlink()


@pytest.mark.slow
def test_of_two_layouts_each_has_its_memory(later: Path, name: str) -> None:
    with Store(name, size="4MiB") as store:
        store["n"] = 1
        process = start(later, IN_MEMORY, name)
        assert told(process) == "10 True", "it begins, with a store of its own"
        assert dict(store) == {"n": 1}
        with Store(name, size="4MiB") as again:
            assert again["n"] == 1, "and this release goes on beginning"
        end(process)
        path = Path(f"/dev/shm/shmkv2.{os.geteuid()}.{name}")
        assert path.exists()
        findings = run("doctor", "--json").json["findings"]
        [finding] = [one for one in findings if one["kind"] == "other-layout" and one["about"] == name]
        assert str(path) in finding["mend"]
        path.unlink()
        assert region_path(name).exists()
        store.unlink()


@pytest.mark.slow
def test_of_two_layouts_the_later_one_waits_for_the_log(later: Path, tmp_path: Path) -> None:
    """A rolling reload: the new process begins while the old one is still there."""
    kept = Store.open(tmp_path / "d", sync="none", size="4MiB")
    kept["ours"] = 1
    process = start(later, DURABLE, str(tmp_path / "d"))
    kept["while it waits"] = 1
    kept.close()
    assert told(process) == "[('ours', 1), ('while it waits', 1)]"
    end(process)
    with Store.open(tmp_path / "d") as back:
        assert dict(back) == {"ours": 1, "while it waits": 1, "later": 2}


@pytest.mark.slow
def test_of_two_layouts_the_killed_one_lost_nothing(later: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "d", sync="none", size="4MiB") as kept:
        kept["ours"] = 1
    process = start(later, DURABLE, str(tmp_path / "d"))
    told(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with Store.open(tmp_path / "d", sync="none") as back:
        assert dict(back) == {"ours": 1}
        back["again"] = 1
        assert not list(Path("/dev/shm").glob(f"shmkv2.{os.geteuid()}.{back.name}")), "what it left is collected"


@pytest.mark.slow
def test_waiting_ends(later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(later, DURABLE, str(tmp_path / "d"))
    told(process)
    monkeypatch.setattr(durable, "OTHER_RELEASE_SECONDS", 0.3)
    with pytest.raises(StoreLockedError, match=f"pid {process.pid}.*layout version 2, this one has 1"):
        Store.open(tmp_path / "d")
    end(process)
    with Store.open(tmp_path / "d") as back:
        assert dict(back) == {"later": 2}

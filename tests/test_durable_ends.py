"""How a durable store's memory goes when a program just ends, and what is said of memory whose directory is gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ChildFailed, durable_folder, has_memory, killed, run_python
from shell import run

import shmkv
from shmkv import Store, region
from shmkv.reports import StoreInfo

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


BEGIN = """
import atexit, gc, os, sys, threading, time
import shmkv
from shmkv import Store

folder = sys.argv[1]
store = Store.open(folder, size="16MiB")
store["a"] = 1
"""
ENDINGS = {
    "global": "",
    "dropped": "del store",
    "dropped, opened again": "del store\nstore = Store.open(folder)",
    "two handles": "other = Store.open(folder)",
    "in a cycle": "box = {'store': store}\nbox['box'] = box\ndel store, box",
    "sys.exit": "sys.exit(0)",
    "in a function": "def main():\n    Store.open(folder)['b'] = 2\nmain()",
    "a daemon thread at work": """
def work():
    while True:
        store["n"] = time.time()
threading.Thread(target=work, daemon=True).start()
while "n" not in store:
    time.sleep(0.01)
""",
    "a daemon thread that waits": """
lock = threading.Lock()
lock.acquire()
def work():
    with store:
        lock.acquire()
threading.Thread(target=work, daemon=True).start()
""",
    "a callback that uses it": "atexit.register(lambda: store.put('late', 1))",
    "a forked child": """
pid = os.fork()
if pid == 0:
    store["child"] = 1
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert store["child"] == 1
""",
    "a closed one": "store.close()",
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_a_program_that_ends(folder: Path, ending: str) -> None:
    run_python(BEGIN + ending, str(folder))
    assert not has_memory(folder)
    with Store.open(folder) as store:
        assert store["a"] == 1
        assert ("late" in store) == ("late" in ending)


def test_with_an_exception(folder: Path) -> None:
    with pytest.raises(ChildFailed, match="on the way"):
        run_python(BEGIN + "raise ValueError('on the way')", str(folder))
    assert not has_memory(folder)


def test_a_directory_that_is_gone_at_the_end(folder: Path) -> None:
    """There is nobody to raise it to, and nothing is left behind."""
    said = run_python(BEGIN + "print(store.name)\nimport shutil\nshutil.rmtree(folder)", str(folder))
    assert not region.is_there(region.object_name(said.strip()))


def test_workers_of_multiprocessing_leave_it_to_the_parent(folder: Path) -> None:
    program = """
import multiprocessing
def work():
    store["child"] = 1
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
worker.join()
assert worker.exitcode == 0 and store["child"] == 1
"""
    run_python(BEGIN + program, str(folder))
    assert not has_memory(folder)


# ---- Memory without a directory ------------------------------------------------------------------


def _left_behind(folder: Path) -> str:
    """The name of the region."""
    kept: list[Store] = []

    def work() -> None:
        kept.append(Store.open(folder, size="16MiB"))
        kept[0]["a"] = 1

    killed(work)
    facts = folder.stat()
    return region.durable_name(facts.st_dev, facts.st_ino)


def _listed(name: str) -> StoreInfo:
    return next(info for info in shmkv.list_stores() if info.name == name)


def test_the_path_is_shown(folder: Path) -> None:
    name = _left_behind(folder)
    assert _listed(name).path == str(folder)
    assert _listed(name).problem is None
    assert f"{name} is {folder}" in run("ls").out.decode()
    assert f"--path {folder}" in run("doctor").out.decode()
    with Store.open(folder) as store:
        assert store["a"] == 1


@pytest.mark.parametrize("how", ["removed", "replaced", "moved"])
def test_a_directory_that_is_gone(folder: Path, how: str) -> None:
    name = _left_behind(folder)
    if how == "moved":
        folder.rename(folder.parent / "elsewhere")
    else:
        shutil.rmtree(folder)
    if how == "replaced":
        (folder.parent / "other").mkdir()  # so that the inode is not taken again
        folder.mkdir()
        if folder.stat().st_ino == int(name.rpartition(".")[2], 16):
            pytest.skip("the file system gave the new directory the inode of the old one: nobody can tell them apart")
    command = f"shmkv unlink {name}"
    assert _listed(name).problem == f"its directory is gone: {folder}"
    facts = [json.loads(line) for line in run("ls", "--json").lines]
    assert next(each for each in facts if each["name"] == name)["path"] == str(folder)
    for page in (run("ls").out.decode(), run("doctor").out.decode()):
        assert f"its directory is gone: {folder}" in page
        assert command in page
    run(*command.split()[1:])
    assert name not in {info.name for info in shmkv.list_stores()}


def test_a_path_that_is_no_text(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\n\x1b[31m"))
    try:
        name = _left_behind(folder)
        assert _listed(name).path == f"{tmp_path}/" + r"\xff\n\x1b[31m"
        region.unlink(region.object_name(name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)

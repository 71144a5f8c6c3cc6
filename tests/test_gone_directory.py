"""Durable stores and DataStores whose directory, or the log in it, is removed or replaced while they are open."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import PATIENCE, durable_folder, files_of, has_memory, in_child

import shmkv
from shmkv import DataStore, Store
from shmkv.errors import LogFailedError, ShmkvError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


# ---- What may happen to a directory ----------------------------------------------------------


def _backup_over(folder: Path) -> None:
    """As `rm -r dir; cp -a backup dir`."""
    shutil.copytree(folder, folder.parent / "backup")
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "backup", folder)


def _backup_beside(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "backup")
    folder.rename(folder.parent / "aside")
    (folder.parent / "backup").rename(folder)


def _files_replaced(folder: Path) -> None:
    """As `rsync` does it: each file is renamed into its place."""
    for each in list(folder.iterdir()):
        new = folder / f"{each.name}.new"
        shutil.copy(each, new)
        new.rename(each)


def _log_cut_off(folder: Path) -> None:
    """As a copy of a shorter one over it does."""
    os.truncate(files_of(folder, ".log")[-1], 64)


def _parent_renamed(folder: Path) -> None:
    folder.parent.rename(folder.parent.parent / f"{folder.parent.name}.renamed")


REMOVALS: list[Callable[[Path], object]] = [
    shutil.rmtree,
    _backup_over,
    _backup_beside,
    _files_replaced,
    _log_cut_off,
    _parent_renamed,
    lambda folder: folder.rename(folder.parent / "moved"),
    lambda folder: files_of(folder, ".log")[-1].unlink(),
]
NAMES = [
    "rmtree",
    "backup over",
    "backup beside",
    "files replaced",
    "log cut off",
    "parent renamed",
    "moved",
    "unlinked",
]
removals = pytest.mark.parametrize("remove", REMOVALS, ids=NAMES)
modes = pytest.mark.parametrize("sync", ["always", "interval", "none"])


def _put_until_refused(put: Callable[[int], object]) -> int:
    """How many were acknowledged; a second later, and the time that a busy machine takes, none may be any more."""
    started, done = time.monotonic(), 0
    with suppress(LogFailedError):
        while time.monotonic() - started < 1.0 * PATIENCE:
            put(done)
            done += 1
    with pytest.raises(LogFailedError, match="was removed, or another was put in its place") as told:
        put(done)
    assert told.value.errno == errno.ESTALE
    return done


# ---- Durable stores ----------------------------------------------------------------------------


@removals
@modes
def test_a_store_whose_directory_goes(folder: Path, remove: Callable[[Path], object], sync: str) -> None:
    store = Store.open(folder, sync, size="16MiB")
    store["a"] = 1
    store.sync()
    name = store.name
    remove(folder)
    acknowledged = _put_until_refused(lambda n: store.put("n", n))
    assert acknowledged == 0 or sync != "always"
    assert store["a"] == 1
    with pytest.raises(LogFailedError, match="was removed"):
        store.sync()
    with pytest.raises(LogFailedError, match="was removed"):
        store.snapshot()
    with pytest.raises(LogFailedError, match="was removed"):
        store.close()
    assert store.closed
    assert name not in {info.name for info in shmkv.list_stores()}


@removals
@pytest.mark.parametrize("call", ["sync", "close"])
def test_sync_and_close_tell_at_once(folder: Path, remove: Callable[[Path], object], call: str) -> None:
    """Also where nothing is left to be synced."""
    store = Store.open(folder, "none", size="16MiB")
    store["a"] = 1
    store.sync()
    remove(folder)
    try:
        with pytest.raises(LogFailedError, match="was removed"):
            getattr(store, call)()
    finally:
        with suppress(LogFailedError):
            store.close()


@removals
def test_every_process_is_told(folder: Path, remove: Callable[[Path], object]) -> None:
    """One that has not synced yet opens the log by its name, which may be another file's by now."""
    store = Store.open(folder, "always", size="16MiB")
    store["a"] = 1

    def other() -> None:
        opened = Store.open(folder, "always")
        remove(folder)
        with pytest.raises(LogFailedError, match="was removed"):
            opened["lost"] = 1
        with suppress(LogFailedError):
            opened.close()

    assert in_child(other) == 0
    with pytest.raises(LogFailedError, match="was removed"):
        store["lost"] = 2
    with pytest.raises(LogFailedError, match="was removed"):
        store.close()


def test_a_directory_that_comes_back(folder: Path) -> None:
    """Nothing is in doubt then: what was refused was not changed."""
    store = Store.open(folder, "always", size="16MiB")
    store["a"] = 1
    folder.rename(folder.parent / "aside")
    with pytest.raises(LogFailedError):
        store.sync()
    (folder.parent / "aside").rename(folder)
    store["b"] = 2
    store.close()
    with Store.open(folder) as again:
        assert {"a": 1, "b": 2}.items() <= dict(again).items()


def test_a_link_that_leads_elsewhere_now(folder: Path) -> None:
    """The store is the directory, whatever path led there."""
    link = folder.parent / "link"
    folder.mkdir()
    link.symlink_to(folder)
    with Store.open(link, "always", size="16MiB") as store:
        store["a"] = 1
        link.unlink()
        (folder.parent / "other").mkdir()
        link.symlink_to(folder.parent / "other")
        store["b"] = 2
    with Store.open(folder) as store:
        assert dict(store) == {"a": 1, "b": 2}


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_a_process_that_sees_other_paths(folder: Path) -> None:
    """After chroot nothing is at the path, which says nothing about the directory."""
    store = Store.open(folder, "always", size="16MiB")
    (folder.parent / "root").mkdir()

    def work() -> None:
        store["before"] = 0
        os.chroot(folder.parent / "root")
        os.chdir("/")
        store["inside"] = 1

    assert in_child(work) == 0
    store["outside"] = 2
    store.close()
    with Store.open(folder) as store:
        assert dict(store) == {"before": 0, "inside": 1, "outside": 2}


def test_a_snapshot_removes_files_that_were_in_use(folder: Path) -> None:
    """Those are gone by right: nobody takes that for a loss."""
    store = Store.open(folder, "always", size="16MiB")

    def other() -> None:
        with Store.open(folder, "always") as opened:
            for i in range(200):
                opened[f"k{i}"] = i

    pid = os.fork()
    if pid == 0:
        try:
            other()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(99)
        os._exit(0)
    try:
        for _ in range(30):
            store.snapshot()
    finally:
        status = os.waitpid(pid, 0)[1]
    assert status == 0
    store.close()
    with Store.open(folder) as store:
        assert len(store) == 200
    assert not has_memory(folder)


# ---- DataStore -----------------------------------------------------------------------------------


@removals
@modes
def test_a_datastore_whose_directory_goes(tmp_path: Path, remove: Callable[[Path], object], sync: str) -> None:
    folder = tmp_path / "above" / "data"
    data = DataStore(folder, sync=sync)
    data.create("a", {"n": 1})
    remove(folder)
    time.sleep(0.05)  # a log that is cut off and appended to within one tick of the clock has its length again
    acknowledged = _put_until_refused(lambda n: data.create(f"n{n}", {}))
    assert acknowledged == 0 or sync != "always"
    with pytest.raises(LogFailedError, match="was removed"):
        data.close()


@removals
def test_a_datastore_that_is_closed_tells_at_once(tmp_path: Path, remove: Callable[[Path], object]) -> None:
    folder = tmp_path / "above" / "data"
    data = DataStore(folder, sync="none")
    data.create("a", {"n": 1})
    remove(folder)
    with pytest.raises(LogFailedError, match="was removed"):
        data.close()
    data.close()
    with suppress(ShmkvError, OSError):
        DataStore(folder).close()

"""`Store.backup`: a copy of one instant beside writers; backups that are put where they do not belong."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from helpers import Forked, durable_folder, files_of, lose_memory
from shell import run

from shmkv import Store, durable
from shmkv.errors import CorruptStoreError, ShmkvError, StoreExistsError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def write_for_ever(folder: Path, name: str) -> None:
    """A sequence, and pairs that are equal at every instant."""
    store = Store.open(folder)
    n = 0
    while True:
        n += 1
        store[f"{name}:{n}"] = n
        store.put_many({f"{name}:last": n, f"{name}:same": n, f"{name}:pad": "x" * 500})
        if n % 50 == 0:
            store.delete_many([f"{name}:{old}" for old in range(n - 49, n)])


def require_an_instant(path: Path, names: tuple[str, ...]) -> int:
    """What a writer had done by one moment; how many steps all of them had done."""
    steps = 0
    with Store.open(path) as store:
        found = dict(store)
    with suppress(OSError, ShmkvError):
        lose_memory(path)
    for name in names:
        last = found.get(f"{name}:last", 0)
        assert found.get(f"{name}:same", 0) == last
        numbers = {int(key.partition(":")[2]) for key in found if key.startswith(name) and key.split(":")[1].isdigit()}
        # The next one may be there, and the old ones that are to be deleted together.
        kept = {n for n in range(1, last + 1) if n % 50 == 0 or n > last // 50 * 50}
        undeleted = kept | set(range(last - 49, last)) if last and last % 50 == 0 else kept
        assert numbers - {last + 1} in (kept, undeleted)
        steps += last
    return steps


def test_beside_writers(folder: Path) -> None:
    names = ("a", "b")
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(folder, size="32MiB"))
        for name in names:
            child = Forked(lambda name=name: write_for_ever(folder, name))
            stack.callback(child.wait)
            stack.callback(os.kill, child.pid, signal.SIGKILL)
        steps = 0
        for turn in range(8):
            time.sleep(0.05)
            if turn % 2:
                store.snapshot()
            copy = folder.parent / f"backup{turn}"
            store.backup(copy)
            seen = require_an_instant(copy, names)
            assert seen >= steps
            steps = seen
        assert steps > 0


def test_killed_on_the_way(folder: Path) -> None:
    """A directory of that name is a whole copy."""
    with Store.open(folder, size="16MiB") as store:
        store.update({f"k{i}": "v" * 1000 for i in range(2000)})
        whole = 0
        for turn in range(12):
            copy = folder.parent / f"backup{turn}"
            child = Forked(lambda copy=copy: Store.open(folder).backup(copy))
            time.sleep(0.004 * turn)
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if copy.exists():
                whole += 1
                with Store.open(copy) as again:
                    assert len(again) == 2000
        store.backup(folder.parent / "last")
        with Store.open(folder.parent / "last") as again:
            assert len(again) == 2000


def test_the_command(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
        told = run("backup", "--path", str(folder), str(folder.parent / "first"), "--json")
        assert (told.status, told.json["items"]) == (0, 1)
        assert run("backup", "--path", str(folder), str(folder.parent / "second")).out.startswith(b"1 items, ")
        refused = run("backup", "--path", str(folder), str(folder.parent / "first"))
        assert refused.status != 0
        assert "holds something" in refused.err
    for copy in ("first", "second"):
        with Store.open(folder.parent / copy) as store:
            assert store["a"] == 1


def test_where_it_cannot_be(folder: Path, store: Store) -> None:
    with pytest.raises(ShmkvError, match=r"Store\.open"):
        store.backup(folder.parent / "copy")
    with Store.open(folder, size="16MiB") as opened:
        (folder.parent / "copy").mkdir()
        assert opened.backup(folder.parent / "copy").items == 0
        for taken in (folder.parent / "copy", folder):
            with pytest.raises(StoreExistsError, match="holds something"):
                opened.backup(taken)
    assert not [each for each in folder.parent.iterdir() if "partial" in each.name]


@pytest.mark.parametrize("memory", [False, True], ids=["from disk", "with its memory"])
def test_laid_over_a_store_that_had_gone_further(folder: Path, memory: bool) -> None:
    copy = folder.parent / "backup"
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
        store.backup(copy)
        store["a"] = 2
        store.snapshot()
    newest = files_of(folder, ".snapshot")[-1]
    if memory:
        child = Forked(lambda: (Store.open(folder), os.kill(os.getpid(), signal.SIGKILL)))
        child.wait()
    time.sleep(0.02)  # more than a tick of the clock of files
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    with pytest.raises(CorruptStoreError, match=rf"after {newest.name}.*move everything out"):
        Store.open(folder)
    for each in list(folder.iterdir()):
        each.unlink()
    shutil.copytree(copy, folder, dirs_exist_ok=True)
    with suppress(ShmkvError):
        lose_memory(folder)
    with Store.open(folder) as store:
        assert store["a"] == 1


def test_what_a_kill_left_over_is_no_backup(tmp_path: Path) -> None:
    """A file of before a snapshot that nobody had time to remove is older than the snapshot."""
    old, newest = tmp_path / f"{5:020}.log", tmp_path / f"{6:020}.snapshot"
    for each in (old, newest):
        each.write_bytes(b"")
        time.sleep(0.02)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        durable._refuse_laid_over(tmp_path, fd)
        shutil.copy2(old, tmp_path / "copy")  # with its times
        (tmp_path / "copy").rename(old)
        with pytest.raises(CorruptStoreError, match=old.name):
            durable._refuse_laid_over(tmp_path, fd)
    finally:
        os.close(fd)

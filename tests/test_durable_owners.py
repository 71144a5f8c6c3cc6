"""`Store.open`: who has a directory, who opens and leaves it together, and who is told that it is another's."""

from __future__ import annotations

import gc
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers import (
    Forked,
    copy_of,
    durable_folder,
    files_of,
    has_memory,
    in_child,
    is_synced,
    killed,
    lose_memory,
    run_python,
    wait_until,
)
from interrupting import Interrupted, interrupted_at

import shmkv
from shmkv import Store, _core, region
from shmkv.durable import OPENING
from shmkv.errors import CorruptStoreError, LockTimeoutError, LogFailedError, StoreLockedError, StoreNotFoundError
from shmkv.folder import ByteLock, HeldByte

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def test_a_datastore_that_is_open(tmp_path: Path) -> None:
    said = f"as a DataStore, in process {os.getpid()}"
    with shmkv.DataStore(tmp_path / "data"), pytest.raises(StoreLockedError, match=said):
        Store.open(tmp_path / "data", lock_timeout=0.01)


def test_exclusive(folder: Path) -> None:
    with Store.open(folder, size="16MiB", exclusive=True) as store:
        store["a"] = 1
        for exclusive in (False, True):
            with pytest.raises(StoreLockedError, match=str(os.getpid())):
                Store.open(folder, exclusive=exclusive)
        assert in_child(lambda: _is_locked(folder, os.getppid())) == 0
    with Store.open(folder), pytest.raises(StoreLockedError, match=str(os.getpid())):
        Store.open(folder, exclusive=True)
    with Store.open(folder, exclusive=True) as store:
        assert store["a"] == 1


def _is_locked(folder: Path, holder: int) -> None:
    with pytest.raises(StoreLockedError, match=str(holder)):
        Store.open(folder)


def test_memory_out_of_reach(folder: Path) -> None:
    """Another user's region has another name, and so has one in another container's /dev/shm."""
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
        lose_memory(folder)
        with pytest.raises(StoreLockedError, match="out of reach"):
            Store.open(folder)
        store["b"] = 2


def test_a_region_that_another_one_took_the_place_of(folder: Path, tmp_path: Path) -> None:
    """A's processes are killed; B, in another container, goes on with the directory; A comes back to its old memory."""
    killed(lambda: Store.open(folder, size="16MiB", sync="always").update(a=1))
    facts = folder.stat()
    name = region.object_name(region.durable_name(facts.st_dev, facts.st_ino))[1:]
    hidden = Path("/dev/shm") / f"{name}.hidden"
    (Path("/dev/shm") / name).rename(hidden)
    try:
        killed(lambda: Store.open(folder, sync="always").update(b=2))
        hidden.rename(Path("/dev/shm") / name)
    finally:
        hidden.unlink(missing_ok=True)
    with Store.open(folder) as store:
        assert dict(store) == {"a": 1, "b": 2}


def test_a_backup_that_is_put_back(folder: Path) -> None:
    """Under a store that is still in memory: told, and one's own choice."""
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
    backup = folder.parent / "backup"
    shutil.copytree(folder, backup)
    for again in range(2):
        killed(lambda: Store.open(folder, sync="always").update({f"b{i}": i for i in range(50)}))
        for each in folder.iterdir():
            if each.suffix in (".log", ".snapshot"):
                each.unlink()
        for each in backup.iterdir():
            if each.name != "lock":
                shutil.copy(each, folder / each.name)
        with pytest.raises(CorruptStoreError, match="backup") as told:
            Store.open(folder)
        assert has_memory(folder), "it is the better copy, perhaps"
        if again:
            Store.unlink_name(str(told.value).split("'")[1])
            with Store.open(folder) as store:
                assert dict(store) == {"a": 1}
        else:
            with Store.open(folder, repair=True) as store:
                assert len(store) == 51
                assert store.repaired is not None
            lose_memory_if_any(folder)
            with Store.open(folder) as store:
                assert len(store) == 51


def test_a_repair_from_memory_that_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its snapshot, when the log goes on beside files that do not fit: the next one writes it."""
    killed(lambda: Store.open(folder, size="16MiB", sync="always").update({f"k{i}": i for i in range(50)}))
    for log in files_of(folder, ".log"):
        log.write_bytes(log.read_bytes()[:200])

    def repair() -> None:
        monkeypatch.setattr("shmkv.durable.Durable.snapshot", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        Store.open(folder, repair=True)

    assert in_child(repair) == signal.SIGKILL
    with pytest.raises(CorruptStoreError):
        Store.open(copy_of(folder))
    killed(lambda: Store.open(folder, sync="always").put("later", 1))
    with Store.open(copy_of(folder)) as lost:
        assert dict(lost) == {**{f"k{i}": i for i in range(50)}, "later": 1}


def lose_memory_if_any(path: Path) -> None:
    if has_memory(path):
        lose_memory(path)


def test_a_file_that_is_missing(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
    for log in files_of(folder, ".log"):
        log.unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        Store.open(folder)
    with Store.open(folder, repair=True) as store:
        assert dict(store) == {"a": 1}


def test_a_fork_while_another_thread_opens(folder: Path) -> None:
    """The child has the descriptions that were open then, and must not keep the others out."""
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
        descriptor = os.open(folder, os.O_RDONLY)
        with HeldByte(descriptor, 0, timeout=5):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
        os.close(descriptor)
        try:
            with Store.open(folder) as same:
                assert same["a"] == 1
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_closed_by_two_threads(folder: Path) -> None:
    for _ in range(20):
        store = Store.open(folder, size="16MiB")
        store.incr("n")
        errors: list[BaseException] = []

        def close(store: Store = store, errors: list[BaseException] = errors) -> None:
            try:
                store.close()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=close) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert not has_memory(folder)
    with Store.open(folder) as store:
        assert store["n"] == 20


def test_the_last_two_leave_together(folder: Path) -> None:
    for _ in range(15):
        stores = [Store.open(folder, size="16MiB") for _ in range(4)]
        stores[0].incr("n")
        threads = [threading.Thread(target=store.close) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not has_memory(folder)


def test_a_directory_that_is_removed(folder: Path) -> None:
    store = Store.open(folder, size="16MiB")
    store["a"] = 1
    name = store.name
    shutil.rmtree(folder)
    with pytest.raises(LogFailedError, match="was removed"):
        store.close()
    assert name not in {info.name for info in shmkv.list_stores()}


def test_a_pickle_makes_no_store(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        pickled = pickle.dumps(store)
    shutil.rmtree(folder)
    with pytest.raises(StoreNotFoundError):
        pickle.loads(pickled)
    assert not folder.exists()


# A program of its own, as its many forks of one with all tests in its memory would take three times as long.
OPENERS = """
import os, sys
from shmkv import Store

folder = sys.argv[1]
with Store.open(folder, size="16MiB") as store:
    store.update({f"k{i}": i for i in range(300)})

def opener(closes):
    opened = Store.open(folder)
    whole = all(opened[f"k{i}"] == i for i in range(300))
    opened.incr("opened")
    if closes:
        opened.close()
    return whole

for round_ in range(100):
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 2
            try:
                status = 0 if opener(round_ % 2) else 1
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
"""


def test_openers_at_the_same_moment(folder: Path) -> None:
    """A hundred times; in half of them the memory is lost, so that one of them has to fill it."""
    run_python(OPENERS, str(folder), timeout=110)
    with Store.open(folder) as store:
        assert store["opened"] == 400
        assert len(store) == 301
        assert store.check().ok


def test_openers_that_are_killed(folder: Path) -> None:
    with Store.open(folder, size="64MiB") as store:
        for at in range(0, 30_000, 1000):
            store.put_many({f"k{i}": i for i in range(at, at + 1000)})
    rng = random.Random(5)
    for _ in range(12):
        child = Forked(lambda: bool(Store.open(folder)))
        time.sleep(rng.random() * 0.03)
        child.kill()
    with Store.open(folder) as store:
        assert len(store) == 30_000
        assert store["k77"] == 77
        assert store.check().ok


def test_an_opener_that_is_stopped(folder: Path, tmp_path: Path) -> None:
    """Who opens is told who holds them up, and who closes leaves the rest to that process."""
    begin, held = tmp_path / "begin", tmp_path / "held"
    Store.open(folder, size="16MiB").close()

    def open_slowly() -> dict[str, int]:
        wait_until(begin.exists)
        descriptor = os.open(folder, os.O_RDONLY)
        with HeldByte(descriptor, OPENING, timeout=5):
            held.touch()
            time.sleep(0.2)
        with Store.open(folder) as store:
            return dict(store)

    child = Forked(open_slowly)
    with Store.open(folder) as store:
        begin.touch()
        wait_until(held.exists)
        child.stop()
        with pytest.raises(LockTimeoutError, match=rf"process {child.pid} .*stopped.*lock_timeout \(0\.1 s\)"):
            Store.open(folder, lock_timeout=0.1)
        store["a"] = 1
        store._durable.timeout = 0.1
    assert has_memory(folder), "whether it was the last one is for the child to find out"
    child.resume()
    assert child.result() == {"a": 1}
    assert not has_memory(folder)


def test_a_sync_at_the_end_that_times_out_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(folder, size="16MiB")
    with monkeypatch.context() as patched:
        patched.setattr(_core, "durable_sync", Mock(side_effect=LockTimeoutError("a process that is stopped")))
        with pytest.raises(LockTimeoutError):
            store.close()
    Store.open(folder).close()


def test_dropped_without_close(folder: Path) -> None:
    store = Store.open(folder, size="16MiB", exclusive=True)
    store["a"] = 1
    del store
    with Store.open(folder, exclusive=True) as again:
        assert again["a"] == 1


def test_end_of_the_process_without_close(folder: Path) -> None:
    code = f"from shmkv import Store; s = Store.open({str(folder)!r}, size='16MiB'); s['a'] = 1"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert not has_memory(folder)
    with Store.open(folder) as store:
        assert store["a"] == 1


def test_forked_children(folder: Path) -> None:
    store = Store.open(folder, size="16MiB")

    def work() -> None:
        store["child"] = os.getpid()
        store.close()

    assert in_child(work) == 0
    assert has_memory(folder), "the parent has it still"
    store["parent"] = 1
    assert in_child(lambda: time.sleep(0.6) or _require_synced(store)) == 0
    store.close()
    with Store.open(folder) as again:
        assert sorted(again) == ["child", "from the child", "parent"]


def _require_synced(store: Store) -> None:
    """The thread that syncs goes on in a child."""
    store["from the child"] = 1
    wait_until(lambda: is_synced(store), what="a sync")


# ---- Exceptions of signal handlers -----------------------------------------------------------------


@pytest.mark.parametrize(("others", "step"), [(True, 1), (False, 11)], ids=["others", "alone"])
def test_an_exception_at_any_line_leaves_nothing_locked(
    folder: Path, others: bool, step: int, rng: random.Random
) -> None:
    keep = Store.open(folder, size="1MiB") if others else None
    Store.open(folder, size="1MiB").close()  # loads what is loaded once
    moment, over = -rng.randrange(step), False
    while not over:
        moment += step
        with suppress(Interrupted), interrupted_at(moment) as lines:
            Store.open(folder).close()
        over = lines() < moment
        assert not is_opening(folder), f"locked after line {moment}"
    assert moment > 100
    if keep is not None:  # an empty store is false
        keep.close()
    gc.collect()
    with Store.open(folder, exclusive=True) as store:
        assert store.check().ok


def is_opening(folder: Path) -> bool:
    """Does anybody open or close it?"""
    directory = os.open(folder, os.O_RDONLY)
    lock = ByteLock(directory, OPENING)
    try:
        return lock.others()
    finally:
        lock.close()
        os.close(directory)


def test_a_close_that_was_interrupted_is_done_by_the_next_one(folder: Path) -> None:
    moment, over = 0, False
    while not over:
        moment += 1
        store = Store.open(folder, size="1MiB")
        with suppress(Interrupted), interrupted_at(moment) as lines:
            store.close()
        over = lines() < moment
        store.close()
        Store.open(folder, exclusive=True).close()


# ---- Files that somebody removes -------------------------------------------------------------------


def test_a_lock_file_that_is_removed_makes_no_second_store(folder: Path) -> None:
    with Store.open(folder, size="1MiB", sync="always") as store:
        store["a"] = 1
        (folder / "lock").unlink()
        status = in_child(lambda: _is_refused(folder))
        assert status == 0
        store["b"] = 2
    with Store.open(folder) as store:
        assert dict(store) == {"a": 1, "b": 2}


def _is_refused(folder: Path) -> None:
    with pytest.raises(StoreLockedError, match="was removed"):
        Store.open(folder)

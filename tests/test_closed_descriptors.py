"""Code that closes all descriptors, as a daemon does, and other files that get their numbers."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import durable_folder, in_child, wait_until

import shmkv.datastore as module
from shmkv import DataStore, MissingKeyError, Store
from shmkv.claim import CLAIM_SECONDS, Claim
from shmkv.errors import ClosedStoreError, LogFailedError, StoreLockedError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def beside_a_closer(work: Callable[[str], object], every: float, place: Path) -> None:
    """`work("a")` and `work("b")` in threads, and one that closes all descriptors every so many seconds, and has files
    of its own under their numbers then: nobody else writes to those."""
    ended = threading.Event()
    names = [place / f"other{i}" for i in range(12)]
    for name in names:
        name.touch()

    def close_all() -> None:
        while not ended.wait(every):
            os.closerange(3, 20_000)
            for name in names:
                os.open(name, os.O_RDWR)

    problems = list[BaseException]()

    def work_on(name: str) -> None:
        try:
            work(name)
        except BaseException as error:
            problems.append(error)

    closer = threading.Thread(target=close_all)
    workers = [threading.Thread(target=work_on, args=(name,)) for name in "ab"]
    for thread in (closer, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    ended.set()
    closer.join()
    assert not problems, problems
    assert all(name.stat().st_size == 0 for name in names)


# ---- Durable stores --------------------------------------------------------------------------------


def test_user_code_that_closes_all_descriptors(folder: Path, tmp_path: Path) -> None:
    """A daemon does; then other files have the numbers, and must not be written to."""
    store = Store.open(folder, size="16MiB")
    store["before"] = 1

    def work() -> None:
        os.closerange(3, 20_000)
        others = [os.open(tmp_path / f"other{i}", os.O_RDWR | os.O_CREAT) for i in range(30)]
        for i in range(200):
            store[f"after{i}"] = i
        store.sync()
        store.snapshot()
        os.closerange(3, 3 + 5)
        others += [os.open(tmp_path / f"more{i}", os.O_RDWR | os.O_CREAT) for i in range(5)]
        store.close()
        assert all(os.fstat(other).st_size == 0 for other in others[5:])

    assert in_child(work) == 0
    assert store["after199"] == 199
    store.close()
    with Store.open(folder) as again:
        assert len(again) == 201


def test_stores_that_lose_their_descriptors_do_not_take_each_others(tmp_path: Path) -> None:
    """What one of them opens anew must not have the number under which the other one still writes."""
    folders = [tmp_path / f"store{i}" for i in range(3)]
    stores = [Store.open(each, size="16MiB") for each in folders]

    def work() -> None:
        for turn in range(60):
            os.closerange(3, 20_000)
            for i in random.Random(turn).sample(range(3), 3):
                stores[i][f"{i}:{turn}"] = turn
        for store in stores:
            store.sync()

    assert in_child(work) == 0
    for i, (folder, store) in enumerate(zip(folders, stores, strict=True)):
        copy = shutil.copytree(folder, tmp_path / f"copy{i}")  # what the log says, not what memory has
        store.close()
        with Store.open(copy) as again:
            assert dict(again) == {f"{i}:{turn}": turn for turn in range(60)}


def test_another_folder_under_the_name_is_not_taken(folder: Path, tmp_path: Path) -> None:
    """Who has lost the descriptor of the folder finds it by its path, or says that it does not."""
    store = Store.open(folder, size="16MiB")
    store["before"] = 1

    def work() -> None:
        os.closerange(3, 20_000)
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir()
        with pytest.raises(LogFailedError, match="nothing was changed"):
            store["lost"] = 1
        folder.rmdir()
        (tmp_path / "elsewhere").rename(folder)
        store["after"] = 1

    assert in_child(work) == 0
    assert dict(store) == {"before": 1, "after": 1}
    store.close()


def test_a_thread_that_closes_all_descriptors_while_others_write(folder: Path) -> None:
    """That is no failure of the disk: a call may say that it could not write, but the store goes on."""
    store = Store.open(folder, size="16MiB", sync="always")

    def work() -> None:
        refused = dict[str, str]()

        def write(name: str) -> None:
            for i in range(400):
                try:
                    store[f"{name}:{i}"] = i
                except OSError as error:
                    refused[f"{name}:{i}"] = str(error)

        beside_a_closer(write, 0.0002, folder.parent)
        assert all("nothing was changed" in error or "Bad file desc" in error for error in refused.values()), refused
        store.put("refused", sorted(refused))

    assert in_child(work) == 0
    refused = store["refused"]
    assert len(refused) < 400
    assert {*store} == {"refused", *(f"{name}:{i}" for name in "ab" for i in range(400))} - {*refused}
    copy = shutil.copytree(folder, folder.parent / "copy")
    with Store.open(copy) as again:
        assert dict(again) == dict(store)
    store.close()


# ---- DataStores --------------------------------------------------------------------------------------


def test_a_datastore_opens_its_files_again(folder: Path, tmp_path: Path) -> None:
    def work() -> None:
        data = DataStore(folder)
        data.create("before", {"n": 0})
        assert data.read("before") == {"n": 0}
        highest = max(map(int, os.listdir("/proc/self/fd")))
        os.closerange(3, 20_000)
        assert data.read("before") == {"n": 0}
        os.closerange(3, 20_000)
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        for number in range(10, highest + 1):
            os.dup2(other, number)
        assert data.read("before") == {"n": 0}
        data.create("after", {"n": 1})
        assert data.read("after") == {"n": 1}
        data.delete("before")
        data.close()
        assert all(os.fstat(number).st_size == 0 for number in range(10, highest + 1)), "none of them was closed"

    assert in_child(work) == 0
    with DataStore(folder) as data:
        assert data.range() == [("after", {"n": 1})]


def test_a_datastore_beside_a_thread_that_closes_all_descriptors(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may say that it could not, and then nothing was changed; segments are gathered meanwhile."""
    for name, bound in (("SEGMENT", 6_000), ("RESERVE", 12_000), ("LIMIT", 60_000), ("GATHERED_AT_ONCE", 512)):
        monkeypatch.setattr(module, name, bound)

    def work() -> None:
        data = DataStore(folder, sync="none")
        models: dict[str, dict[str, dict[str, Any]]] = {"a": {}, "b": {}}
        refused = list[OSError]()

        def change(name: str) -> None:
            rng, model = random.Random(name), models[name]
            for step in range(600):
                key, value = f"{name}{rng.randrange(20)}", {"step": step, "text": "x" * rng.randrange(500)}
                try:
                    if key not in model:
                        data.create(key, value)
                        model[key] = value
                    elif step % 2:
                        assert data.read(key) == model[key]
                    else:
                        data.delete(key)
                        del model[key]
                except OSError as error:
                    refused.append(error)

        beside_a_closer(change, 0.002, folder.parent)  # to begin a segment takes most of one
        assert len(refused) < 1200, "each call was refused"  # how many are depends on the machine
        assert all(error.errno == errno.EBADF for error in refused), refused
        model = models["a"] | models["b"]
        assert dict(data.range()) == model
        data.create("model", model)
        data.close()

    assert in_child(work) == 0
    with DataStore(folder) as data:
        model = data.read("model")
        data.delete("model")
        assert dict(data.range()) == model
        with pytest.raises(MissingKeyError):
            data.read("model")


@pytest.mark.parametrize("used_before", [True, False])
def test_a_datastore_that_has_lost_its_claim(folder: Path, *, used_before: bool) -> None:
    """A change takes it again, unless another process was there first."""
    told = folder.parent / "told"

    def work() -> None:
        data = DataStore(folder)
        data.create("first", {})
        os.closerange(3, 20_000)
        time.sleep(2 * CLAIM_SECONDS)
        if used_before:
            data.create("second", {})
            told.touch()
            wait_until(lambda: not told.exists())
        else:
            told.touch()
            wait_until(lambda: not told.exists())
            with pytest.raises(StoreLockedError, match="has opened the DataStore since, nothing was changed"):
                data.create("second", {})
            told.touch()
            wait_until(lambda: not told.exists())
            with pytest.raises(StoreLockedError):
                data.delete("first")
        data.close()

    child = threading.Thread(target=lambda: outcomes.append(in_child(work)))
    outcomes: list[int] = []
    child.start()
    wait_until(told.exists)
    if used_before:
        with pytest.raises(StoreLockedError, match="is open in another process"):
            DataStore(folder)
    else:
        with DataStore(folder) as data:
            data.create("mine", {})
        told.unlink()
        wait_until(told.exists)
        DataStore(folder).close()  # who was refused does not keep it
    told.unlink()
    child.join()
    assert outcomes == [0]
    with DataStore(folder) as data:
        assert [key for key, _ in data.range()] == ["first", "second" if used_before else "mine"]


def test_a_lock_file_that_is_read_does_not_lose_the_claim(folder: Path) -> None:
    """The system drops a process's locks with any descriptor of the file."""
    with DataStore(folder) as data:
        data.create("first", {})
        shutil.copytree(folder, folder.parent / "copy")
        time.sleep(2 * CLAIM_SECONDS)
        data.create("second", {})

        def other() -> None:
            with pytest.raises(StoreLockedError, match="is open in another process"):
                DataStore(folder)

        Claim._mine, kept = {}, Claim._mine
        try:
            assert in_child(other) == 0
        finally:
            Claim._mine = kept


def test_a_datastore_that_has_moved_and_lost_its_claim(folder: Path, tmp_path: Path) -> None:
    def work() -> None:
        data = DataStore(folder)
        os.closerange(3, 20_000)
        folder.rename(tmp_path / "elsewhere")
        time.sleep(2 * CLAIM_SECONDS)
        with pytest.raises(StoreLockedError, match="is not what it was"):
            data.create("lost", {})
        (tmp_path / "elsewhere").rename(folder)
        data.create("after", {})

    assert in_child(work) == 0
    with DataStore(folder) as data:
        assert [key for key, _ in data.range()] == ["after"]


def test_a_datastore_whose_claim_another_one_of_the_same_pid_had(folder: Path) -> None:
    """In another container both may be number 1."""
    with DataStore(folder) as data:
        data.create("first", {})
        (folder / "lock").write_text(f"{os.getpid()} {'0' * 32}\n")
        time.sleep(2 * CLAIM_SECONDS)
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} has opened the DataStore since"):
            data.create("second", {})


@pytest.mark.parametrize("call", ["create", "delete"])
def test_a_call_that_comes_too_late_does_not_take_the_claim_again(folder: Path, call: str) -> None:
    """It had waited while another thread closed the DataStore."""
    data = DataStore(folder)
    data.create("first", {})
    calls = {"create": lambda: data.create("second", {}), "delete": lambda: data.delete("first")}
    problems = list[BaseException]()

    def change() -> None:
        try:
            calls[call]()
        except BaseException as error:
            problems.append(error)

    with data._changing:
        waiting = threading.Thread(target=change)
        waiting.start()
        time.sleep(0.05)  # too short only leaves nothing to be seen
        data._closed = True
        data._finalizer()  # as close() does
        time.sleep(2 * CLAIM_SECONDS)
    waiting.join()
    assert [type(problem) for problem in problems] == [ClosedStoreError]
    with pytest.raises(ClosedStoreError):
        data._claim.require()
    DataStore(folder).close()

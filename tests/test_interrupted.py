"""Constructors that an exception comes into the middle of, at every line: nothing is left, nothing hides it."""

from __future__ import annotations

import gc
import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest
from helpers import durable_folder, run_python, unique_name, wait_until
from interrupting import Interrupted, interrupted_at

import shmkv
from shmkv import DataStore, KeyValueStore, Store, region
from shmkv.realthread import RealThread

pytestmark = pytest.mark.slow

STEP = 3
LINES = 1000  # no constructor runs more


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `__del__` raised, which Python only prints."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    return told


def descriptors() -> list[str]:
    """What this process has open, but for the directory that tells it."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(each for each in found if not each.startswith("/proc/"))


def names() -> set[str]:
    """Objects of shared memory that this process may have made: their names have its pid."""
    return {each for each in os.listdir("/dev/shm") if f"{os.getpid()}" in each}


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def left() -> tuple[list[str], set[str]]:
    return descriptors(), names()


def require_nothing_left(
    construct: Callable[[], Any], unraisable: list[Any], rng: random.Random, name: str = ""
) -> None:
    """Every third line, from another one on in each run.  `name`: of a store that may be left, whole."""
    construct().close()  # loads what is loaded once
    if name:
        Store.unlink_name(name)
    gc.collect()
    others, before, moment, over = threads(), left(), -rng.randrange(STEP), False
    while not over:
        moment += STEP
        assert moment < LINES
        with suppress(Interrupted), interrupted_at(moment) as lines:
            construct().close()
        over = lines() < moment
        if name:
            with suppress(shmkv.StoreNotFoundError):
                Store.unlink_name(name)
        if left() != before:
            gc.collect()
            assert left() == before, f"line {moment}"
    assert moment > 5
    wait_until(lambda: threads() <= others, what="an end of the threads")
    assert not unraisable, unraisable


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the stores of others, whose number decides how many lines a look for dead ones has."""
    monkeypatch.setattr(region, "_objects", lambda: iter([(os.geteuid(), "private.1.1.1-0123456789abcdef")]))
    monkeypatch.setattr(region, "of_other_layouts", list)


def test_a_private_store(alone: None, unraisable: list[Any], rng: random.Random) -> None:
    require_nothing_left(lambda: Store(size="1MiB"), unraisable, rng)
    require_nothing_left(lambda: Store.create(size="1MiB"), unraisable, rng)
    require_nothing_left(lambda: KeyValueStore(None), unraisable, rng)


@pytest.mark.parametrize("create", [Store, Store.create], ids=["Store", "create"])
def test_a_new_store_is_whole_or_not_there(
    create: Callable[..., Store], unraisable: list[Any], rng: random.Random
) -> None:
    name = unique_name()

    def make() -> Store:
        try:
            return create(name, size="1MiB")
        except Interrupted:
            with suppress(shmkv.StoreNotFoundError):
                Store.attach(name).close()  # half made, it would be an error
            raise

    try:
        require_nothing_left(make, unraisable, rng, name)
    finally:
        with suppress(shmkv.StoreNotFoundError):
            Store.unlink_name(name)


CONSTRUCTORS: dict[str, Callable[[str], Any]] = {
    "Store": Store,
    "create": lambda name: Store.create(name, exist_ok=True),
    "attach": Store.attach,
    "read only": lambda name: Store.attach(name, readonly=True),
    "foreign": lambda name: Store(name, foreign=True),
    "pickle": lambda name: pickle.loads(pickle.dumps(Store.attach(name))),
    "KeyValueStore": KeyValueStore,
}


@pytest.mark.parametrize("how", CONSTRUCTORS)
def test_a_store_that_is_there(store: Store, how: str, alone: None, unraisable: list[Any], rng: random.Random) -> None:
    require_nothing_left(lambda: CONSTRUCTORS[how](store.name), unraisable, rng)


def test_shared_memory(store: Store, unraisable: list[Any], rng: random.Random) -> None:
    require_nothing_left(store.shared_memory, unraisable, rng)
    memory = SharedMemory(create=True, size=1 << 20)
    try:
        require_nothing_left(lambda: Store.create(memory, exist_ok=True), unraisable, rng)
        require_nothing_left(lambda: Store.attach(memory), unraisable, rng)
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_a_durable_store(folder: Path, sync: str, unraisable: list[Any], rng: random.Random) -> None:
    with Store.open(folder, size="1MiB"):
        require_nothing_left(lambda: Store.open(folder, sync), unraisable, rng)
    with Store.open(folder, exclusive=True) as store:
        assert store.check().ok


def test_the_first_opening_of_a_directory(
    folder: Path, alone: None, unraisable: list[Any], rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each opening makes the region: the one before it closed the last handle, or was broken off."""
    monkeypatch.setattr(region, "durable_name", lambda device, inode: f"durable.{os.getpid()}.{inode:x}")
    new = iter(range(LINES))

    def open_first(path: Path) -> Store:
        store = Store.open(path, size="1MiB")
        sys.settrace(None)  # a close that is broken off leaves the memory to the end of the process
        return store

    require_nothing_left(lambda: open_first(folder / f"{next(new)}"), unraisable, rng)
    with Store.open(folder / "kept", size="1MiB") as store:
        store["a"] = 1
    require_nothing_left(lambda: open_first(folder / "kept"), unraisable, rng)
    with Store.open(folder / "kept", exclusive=True) as store:
        assert store.check().ok
        assert dict(store) == {"a": 1}


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_a_datastore(tmp_path: Path, sync: str, unraisable: list[Any], rng: random.Random) -> None:
    require_nothing_left(lambda: DataStore(tmp_path, sync=sync), unraisable, rng)
    with DataStore(tmp_path) as data:
        data.create("a", {})


def test_an_error_is_not_hidden_where_no_thread_can_be_started(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit of threads, and in callbacks of atexit from Python 3.12 on."""

    def refuse(_: RealThread) -> None:
        raise RuntimeError("can't start new thread")

    with DataStore(tmp_path / "data") as data:
        data.create("a", {})
    Store.open(folder, size="1MiB").close()
    monkeypatch.setattr(RealThread, "start", refuse)
    with DataStore(tmp_path / "data") as data:
        data.create("b", {})
        assert data._log.synced == data._log.end
    with Store.open(folder) as store:
        store["a"] = 1
        state = shmkv._core.durable_state(store._opened())
        assert state["synced"] == state["end"]


def test_stores_are_opened_at_exit(folder: Path, tmp_path: Path) -> None:
    code = """
import atexit, sys
from shmkv import DataStore, Store
@atexit.register
def late():
    with Store.open(sys.argv[1], size="1MiB") as store, DataStore(sys.argv[2]) as data, Store(size="1MiB") as private:
        store["late"] = private["late"] = 1
        data.create("late", {})
    print("done")
"""
    assert run_python(code, str(folder), str(tmp_path / "data")) == "done\n"
    with Store.open(folder) as store, DataStore(tmp_path / "data") as data:
        assert (store["late"], data.read("late")) == (1, {})

"""A store is a `multiprocessing.shared_memory` segment, and no resource tracker owns its life."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import pytest
from helpers import MIB, check, finish, in_fork, region_path, run_python, start_python

from shmkv import CorruptStoreError, Store, StoreExistsError, StoreFullError

METHODS = ["fork", "spawn", "forkserver"]


# ---- A store hands itself out ------------------------------------------------------------------


def test_shared_memory_over_a_store(store: Store) -> None:
    store["k"] = b"find this in the region's bytes"
    memory = store.shared_memory()
    assert isinstance(memory, SharedMemory)
    assert memory.size >= store.stats().size
    assert b"shmkv" in bytes(memory.buf[:8])
    assert bytes(memory.buf[32:48]) == store.uuid.bytes
    assert b"find this in the region's bytes" in bytes(memory.buf[: store.stats().committed])
    memory.close()
    assert store["k"] == b"find this in the region's bytes"
    assert region_path(store).exists()


def test_attach_by_the_memory_of_a_store(store: Store) -> None:
    store["k"] = 1
    memory = store.shared_memory()
    with Store.attach(memory) as again:
        assert again["k"] == 1
        again["l"] = 2
    memory.close()
    assert dict(store) == {"k": 1, "l": 2}


def _use_memory(memory: SharedMemory) -> None:
    with Store.attach(memory) as store:
        store["from child"] = store["from parent"] + 1
    memory.close()


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_of_a_store_as_an_argument(store: Store, method: str) -> None:
    store["from parent"] = 41
    context: Any = multiprocessing.get_context(method)
    memory = store.shared_memory()
    child = context.Process(target=_use_memory, args=(memory,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    memory.close()
    assert store["from child"] == 42
    assert region_path(store).exists()


def test_the_store_survives_processes_that_took_its_memory(store: Store) -> None:
    """On Python < 3.13 a plain SharedMemory(name) would remove the store when its process ends."""
    store["k"] = 1
    for ending in ("memory.close()", "pass"):
        process = start_python(
            f"""
import sys
from shmkv import Store
store = Store.attach(sys.argv[1])
memory = store.shared_memory()
store["k"] += 1
{ending}
""",
            store.name,
        )
        _, err, status = finish(process)
        assert status == 0, err
        assert "leaked" not in err
        assert "resource_tracker" not in err
        assert region_path(store).exists()
    assert store["k"] == 3


def test_it_survives_a_killed_process_that_took_its_memory(store: Store) -> None:
    process = start_python(
        """
import os, sys
from shmkv import Store
memory = Store.attach(sys.argv[1]).shared_memory()
os.kill(os.getpid(), 9)
""",
        store.name,
    )
    _, err, status = finish(process)
    assert status == -9
    assert "leaked" not in err
    assert region_path(store).exists()
    store["k"] = 1


def test_memory_stays_usable_after_the_store_is_closed(make_store: Any) -> None:
    store = make_store()
    store["k"] = 1
    memory = store.shared_memory()
    store.close()
    assert b"shmkv" in bytes(memory.buf[:8])
    memory.close()


def test_memory_of_a_read_only_handle_cannot_be_written(store: Store) -> None:
    with Store.attach(store.name, readonly=True) as reader:
        memory = reader.shared_memory()
        with pytest.raises(TypeError):
            memory.buf[100] = 1
        memory.close()


# ---- A store in memory that the caller made -------------------------------------------------------


@pytest.fixture
def memory() -> Any:
    memory = SharedMemory(create=True, size=8 * MIB)
    yield memory
    memory.close()
    memory.unlink()


def test_a_store_in_the_callers_memory(memory: SharedMemory) -> None:
    with Store.create(memory) as store:
        assert store.stats().size <= memory.size
        store.update({f"{i}": i for i in range(1000)})
        with Store.attach(memory) as again:
            assert len(again) == 1000
        assert in_fork(lambda: store["7"]) == 7
        check(store)
        with pytest.raises(StoreExistsError):
            Store.create(memory)
        with Store.create(memory, exist_ok=True) as same:
            assert same["7"] == 7
    with Store.attach(memory) as again:
        assert again["7"] == 7
        check(again)


def test_its_size_is_fixed(memory: SharedMemory) -> None:
    with Store.create(memory) as store:
        with pytest.raises(StoreFullError):  # noqa: PT012
            for i in range(100):
                store[f"{i}"] = b"x" * MIB
        assert 3 <= len(store) <= 8
        check(store)
    again = SharedMemory(memory.name)
    assert again.size == memory.size
    again.close()


def test_closing_in_either_order(memory: SharedMemory) -> None:
    store = Store.create(memory)
    store["k"] = 1
    second = SharedMemory(memory.name)
    handle = Store.attach(second)
    second.close()
    assert handle["k"] == 1
    handle.close()
    store.close()
    third = SharedMemory(memory.name)
    with Store.attach(third) as again:
        assert again["k"] == 1
    third.close()


def _grow(memory: SharedMemory, start: int) -> None:
    with Store.attach(memory) as store:
        store.put_many({f"{i}": i for i in range(start, start + 1000)})
    memory.close()


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_memory_as_an_argument(memory: SharedMemory, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with Store.create(memory) as store:
        for turn in range(3):
            child = context.Process(target=_grow, args=(memory, turn * 1000))
            child.start()
            child.join(60)
            assert child.exitcode == 0
        assert len(store) == 3000
        store["after"] = 1
        check(store)


def test_a_spawned_process_that_attaches_by_the_memorys_name(memory: SharedMemory) -> None:
    """The child's own resource tracker is the caller's affair; here it is told to keep out."""
    with Store.create(memory) as store:
        store["k"] = 1
        run_python(
            """
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from shmkv import Store
memory = SharedMemory(sys.argv[1])
resource_tracker.unregister(memory._name, "shared_memory")
with Store.attach(memory) as store:
    store["k"] += 1
memory.close()
""",
            memory.name,
        )
        assert store["k"] == 2


def test_memory_that_is_too_small() -> None:
    for size in (1, 4096, MIB // 2):
        memory = SharedMemory(create=True, size=size)
        try:
            with pytest.raises(ValueError, match="1 MiB"):
                Store.create(memory)
        finally:
            memory.close()
            memory.unlink()


def test_memory_that_is_no_store(memory: SharedMemory) -> None:
    memory.buf[:4096] = bytes(range(256)) * 16
    with pytest.raises(CorruptStoreError):
        Store.attach(memory)


def test_a_handle_over_memory_pickles(memory: SharedMemory) -> None:
    with Store.create(memory) as store:
        store["k"] = 1
        with pickle.loads(pickle.dumps(store)) as again:
            again["k"] += 1
        assert store["k"] == 2

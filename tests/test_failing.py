"""Constructors that fail: nothing that the caller has no handle of outlives the exception, although that lives on."""

from __future__ import annotations

import multiprocessing.shared_memory
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import durable_folder, files_of, has_memory, killed

from shmkv import DataStore, Store
from shmkv.errors import CorruptStoreError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def held() -> tuple[int, int]:
    """Mappings of stores, and open descriptors."""
    maps = Path("/proc/self/maps").read_text()
    return maps.count("/dev/shm/shmkv.") + maps.count("memfd:shmkv") + maps.count("psm_"), len(
        os.listdir("/proc/self/fd")
    )


def damage(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="always") as store:
        store["a"] = 1
        store["b"] = 2
        store.snapshot()
    snapshot = files_of(folder, ".snapshot")[-1]
    raw = bytearray(snapshot.read_bytes())
    raw[100] ^= 0xFF
    snapshot.write_bytes(raw)


def test_repair_while_the_exception_is_handled(folder: Path) -> None:
    """As everybody would write it: the last close gives the memory back."""
    damage(folder)
    with pytest.raises(CorruptStoreError) as told:
        Store.open(folder)
    with Store.open(folder, repair=True) as store:
        assert store.repaired is not None
    assert not has_memory(folder), told


def test_repair_from_memory_while_the_exception_is_handled(folder: Path) -> None:
    """The opening that failed had attached to the memory that the next one goes on with."""

    def work() -> None:
        store = Store.open(folder, size="16MiB")
        store.update({f"k{i}": i for i in range(100)})

    killed(work)
    os.truncate(files_of(folder, ".log")[-1], 200)
    with pytest.raises(CorruptStoreError) as told:
        Store.open(folder)
    with Store.open(folder, repair=True) as store:
        assert len(store) == 100
    assert not has_memory(folder), told


def _damaged_datastore(folder: Path) -> None:
    with DataStore(folder) as data:
        for i in range(50):
            data.create(f"k{i}", {"n": i})
    log = files_of(folder, ".log")[0]
    raw = bytearray(log.read_bytes())
    raw[200] ^= 0xFF
    log.write_bytes(raw)


def test_a_damaged_datastore(folder: Path) -> None:
    _damaged_datastore(folder)
    before = held()
    with pytest.raises(CorruptStoreError) as told:
        DataStore(folder)
    assert held() == before, told


class RefusedError(Exception):
    pass


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on every handle fails in its last step."""
    bound = Store._bind

    def bind(self: Store, *args: Any, **kwargs: Any) -> None:
        bound(self, *args, **kwargs)
        del self, args, kwargs  # this frame is none of the package's
        raise RefusedError

    return lambda: monkeypatch.setattr(Store, "_bind", bind)


CONSTRUCTORS: dict[str, Callable[[str, Path, Any, bytes], object]] = {
    "Store()": lambda name, folder, memory, pickled: Store(size="1MiB"),
    "Store(name)": lambda name, folder, memory, pickled: Store(name),
    "readonly": lambda name, folder, memory, pickled: Store(name, readonly=True),
    "create": lambda name, folder, memory, pickled: Store.create(name, exist_ok=True),
    "create in": lambda name, folder, memory, pickled: Store.create(memory, exist_ok=True),
    "attach": lambda name, folder, memory, pickled: Store.attach(name),
    "open": lambda name, folder, memory, pickled: Store.open(folder, size="16MiB"),
    "pickle": lambda name, folder, memory, pickled: pickle.loads(pickled),
}


@pytest.mark.parametrize("constructor", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_each_constructor(
    constructor: Callable[..., object], folder: Path, store: Store, refusing: Callable[[], None]
) -> None:
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1 << 20)
    try:
        Store.create(memory).close()
        pickled = pickle.dumps(store)
        refusing()
        before = held()
        with pytest.raises(RefusedError) as told:
            constructor(store.name, folder, memory, pickled)
        assert held() == before, told
        assert not folder.exists() or not _is_attached(folder)
    finally:
        memory.close()
        memory.unlink()


def _is_attached(folder: Path) -> bool:
    """Then removing the region's name would not free its memory."""
    facts = folder.stat()
    return f"durable.{facts.st_dev:x}.{facts.st_ino:x}" in Path("/proc/self/maps").read_text()


def test_a_chain_that_holds_itself() -> None:
    """What user code raises may be anything."""
    error = RefusedError()
    other = ValueError()
    error.__context__, other.__context__ = other, error

    class Codec:
        def encode(self, value: object) -> bytes:
            raise error

        @property
        def decode(self) -> object:
            raise error

    with pytest.raises((RefusedError, TypeError)):
        Store(size="1MiB", codec=Codec())  # type: ignore[arg-type]

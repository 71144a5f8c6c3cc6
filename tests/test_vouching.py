"""What says that the last changes of a durable store were synced: damage in them is told, not cut off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from helpers import copy_of, durable_folder, files_of, killed, lose_memory, wait_until

from shmkv import Store, _core
from shmkv.errors import CorruptStoreError, StoreFullError

pytestmark = pytest.mark.slow

HEAD, EMPTY_FRAME = 64, 40  # bytes in a log


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def end_of(store: Store) -> int:
    """Of its log."""
    return int(_core.durable_state(store._opened())["end"])


def is_vouched(store: Store) -> bool:
    """Does a frame that is on stable storage say that all before it is?"""
    state = _core.durable_state(store._opened())
    return bool(state["synced"] == state["end"] == state["vouched"])


def spoil(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("mode", ["interval", "always"])
def test_damage_in_what_an_idle_store_had_synced_is_told(folder: Path, mode: str) -> None:
    """Nobody has to write any more for that; and whatever number of handles there are, it is said once."""
    with Store.open(folder, size="16MiB", sync=mode) as store, Store.open(folder):
        for i in range(10):
            store[f"k{i}"] = i
        written = end_of(store)
        wait_until(lambda: is_vouched(store), what="the last sync")
        time.sleep(1)
        assert end_of(store) == written + EMPTY_FRAME
        copy = copy_of(folder)
    log = files_of(copy, ".log")[-1]
    for at in (HEAD + 50, HEAD + written - 20):
        spoil(log, at)
        with pytest.raises(CorruptStoreError, match="damaged"):
            Store.open(copy)
        spoil(log, at)
    spoil(log, HEAD + written + 20)  # who says it is not missed
    with Store.open(copy) as whole:
        assert len(whole) == 10


def test_what_was_never_synced_is_not_vouched_for(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="none") as store:
        store["a"] = 1
        end = end_of(store)
        time.sleep(1)
        assert end_of(store) == end
        store.sync()
        wait_until(lambda: is_vouched(store), what="the sync")


def test_a_last_close_whose_snapshot_fails_vouches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_core, "durable_checkpoint", Mock(side_effect=StoreFullError("a full disk")))
        with Store.open(folder, size="16MiB") as store:
            for i in range(10):
                store[f"k{i}"] = i
            written = end_of(store)
    spoil(files_of(folder, ".log")[-1], HEAD + written - 20)
    with pytest.raises(CorruptStoreError, match="damaged"):
        Store.open(folder)


def test_a_log_that_ends_so_is_left_alone(folder: Path) -> None:
    """However often the machine stops while nobody writes."""

    def read() -> None:
        with Store.open(folder, size="16MiB") as store:
            if "a" not in store:
                store["a"] = 1
            wait_until(lambda: is_vouched(store), what="the last sync")
            ends.append(end_of(store))
            killed(lambda: None)
            lose_memory(folder)
            copy_of(folder)

    ends: list[int] = []
    for _ in range(3):
        read()
        for path in folder.iterdir():
            path.unlink()
        for path in (folder.parent / "copy").iterdir():
            path.rename(folder / path.name)
    assert ends == [ends[0]] * 3


def test_who_writes_just_then_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another look comes; but a disk that is full is left alone."""
    real, busy = _core.durable_vouch, Mock(return_value=False)
    monkeypatch.setattr(_core, "durable_vouch", busy)
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
        wait_until(lambda: busy.call_count >= 3, what="three looks")
        full = Mock(side_effect=StoreFullError("a full disk"))
        monkeypatch.setattr(_core, "durable_vouch", full)
        wait_until(lambda: full.call_count == 1, what="a look")
        time.sleep(1)
        assert full.call_count == 1
        monkeypatch.setattr(_core, "durable_vouch", real)

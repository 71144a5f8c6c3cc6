"""`Store.open(path, on_full="evict")`: a cache that survives a restart; what is evicted is gone from the disk too."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import copy_of, durable_folder, files_of, has_memory, killed, lose_memory

from shmkv import Store
from shmkv.errors import CorruptStoreError, StoreExistsError, StoreFullError, ValueTooLargeError

MIB = 1 << 20
VALUE = 500


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def _value(key: int) -> bytes:
    return random.Random(key).randbytes(VALUE)


def _on_disk(folder: Path) -> dict[str | bytes, object]:
    """What the log leads to where there is room for all of it."""
    for _ in range(100):
        try:
            copy = copy_of(folder)
        except shutil.Error:  # a snapshot has just taken the place of the log
            continue
        with Store.open(copy, size="64MiB") as lost:
            assert lost.stats().evicted == 0
            return dict(lost.items())
    raise AssertionError("no copy could be made")


def _overfill(store: Store, count: int = 20_000) -> None:
    for key in range(count):
        store[f"k{key}"] = _value(key)


@pytest.mark.parametrize("sync", ["interval", "always", "none"])
def test_the_disk_holds_what_memory_holds(folder: Path, sync: str) -> None:
    with Store.open(folder, sync, "4MiB", on_full="evict") as store:
        for key in range(9000):
            store[f"k{key}"] = _value(key)
            store.get("k0")
        store.put_many({f"b{key}": _value(key) for key in range(500)})
        store["long"] = bytes(MIB - 1000)
        there = dict(store.items())
        assert store.stats().evicted > 1000
        assert "k0" in there, "it was read all the time"
        assert _on_disk(folder) == there
    with Store.open(folder) as store:
        again = dict(store.items())
        assert again.items() <= there.items()
        assert len(again) > 0.9 * len(there), "filled in another order, it may take a little less"
        assert _on_disk(folder) == again, "the disk was told what did not fit"
        _overfill(store)
        assert len(store) < 20_000, "it goes on evicting"


def test_it_stays_what_it_was_made(folder: Path, tmp_path: Path) -> None:
    with Store.open(folder, size="4MiB", on_full="evict") as store:
        store["a"] = 1
        store.backup(tmp_path / "backup")
    for path in (folder, tmp_path / "backup"):
        assert json.loads((path / "store.json").read_text())["on_full"] == "evict"
        with Store.open(path) as store:
            assert store["a"] == 1
            _overfill(store)
            assert store.stats().evicted
    with Store.open(folder, on_full="error") as store, pytest.raises(StoreFullError):
        _overfill(store, 40_000)
    with Store.open(folder) as store, pytest.raises(StoreFullError):
        _overfill(store, 40_000)


def test_a_store_of_an_older_release_refuses_when_it_is_full(folder: Path) -> None:
    with Store.open(folder, size="4MiB"):
        pass
    settings = json.loads((folder / "store.json").read_text())
    del settings["on_full"]
    (folder / "store.json").write_text(json.dumps(settings))
    with Store.open(folder) as store, pytest.raises(StoreFullError):
        _overfill(store)


def test_one_that_is_open_is_not_changed(folder: Path) -> None:
    with Store.open(folder, size="4MiB") as store:
        with pytest.raises(StoreExistsError, match=r"open with on_full='error', not 'evict': close it"):
            Store.open(folder, on_full="evict")
        with pytest.raises(StoreExistsError, match=r"size of 4,194,304 bytes, not of 8,388,608 and on_full"):
            Store.open(folder, size="8MiB", on_full="evict")
        store["a"] = 1
    killed(lambda: Store.open(folder).update(b=2))
    assert has_memory(folder)
    with Store.open(folder, on_full="evict") as store:
        assert dict(store.items()) == {"a": 1, "b": 2}
        _overfill(store)


@pytest.mark.parametrize("on_full", ["", "drop", True, 1])
def test_misuse(folder: Path, on_full: object) -> None:
    with pytest.raises(ValueError, match="on_full is 'error' or 'evict'"):
        Store.open(folder, on_full=on_full)  # type: ignore[arg-type]
    assert not folder.exists()


def test_damaged_settings(folder: Path) -> None:
    with Store.open(folder, size="4MiB", on_full="evict"):
        pass
    settings = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(settings | {"on_full": "drop"}))
    with pytest.raises(CorruptStoreError, match=r"store\.json is damaged: its on_full is 'drop'"):
        Store.open(folder)


def test_less_memory_than_it_had(folder: Path) -> None:
    with Store.open(folder, size="8MiB", on_full="evict") as store:
        _overfill(store)
        before = dict(store.items())
    with Store.open(folder, size="4MiB") as store:
        there = dict(store.items())
        assert there.items() <= before.items()
        assert len(there) > len(before) / 3
        assert _on_disk(folder) == there
    with Store.open(folder, size="16MiB", on_full="error") as store:
        assert dict(store.items()) == there


def test_a_value_that_no_longer_fits(folder: Path) -> None:
    """It is longer than any value may be there: only whoever opens it can say whether that may go."""
    with Store.open(folder, size="8MiB", on_full="evict") as store:
        store["long"] = bytes(3 * MIB // 2)
    with pytest.raises((StoreFullError, ValueTooLargeError), match="larger size="):
        Store.open(folder, size="2MiB")
    with Store.open(folder) as store:
        assert len(store["long"]) == 3 * MIB // 2


def test_the_log_does_not_grow_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmkv.keeper.LOG_LEAST", 4 * MIB)
    with Store.open(folder, sync="none", size="2MiB", on_full="evict") as store:
        for _ in range(3):
            _overfill(store)
            deadline = time.monotonic() + 20
            while sum(each.stat().st_size for each in files_of(folder, ".log")) > 8 * MIB:
                assert time.monotonic() < deadline, "no snapshot was written"
                time.sleep(0.05)


@pytest.mark.slow
def test_killed_writers(folder: Path) -> None:
    """Evicting writers are killed at any time: never is anything on the disk that memory has not."""
    store = Store.open(folder, size="4MiB", sync="none", on_full="evict")
    rng = random.Random(3)
    for _ in range(5):
        pids = [_start_writer(store, rng.randrange(10**9)) for _ in range(3)]
        for _ in range(6):
            time.sleep(rng.random() * 0.1)
            _kill(pids.pop(0))
            pids.append(_start_writer(store, rng.randrange(10**9)))
            if rng.random() < 0.3:
                store.snapshot()
        for pid in pids:
            _kill(pid)
        store.compact()
        assert store.check().ok
        kept = dict(store.items())
        disk = _on_disk(folder)
        assert disk.items() <= kept.items()
        assert len(kept) - len(disk) <= 8 * 64, "more than a visit's items for each of the killed"
    assert store.stats().evicted > 1000
    store.close()
    assert not has_memory(folder)
    with Store.open(folder, size="64MiB") as store:
        assert dict(store.items()) == kept


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _start_writer(store: Store, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        rng = random.Random(seed)
        while True:
            key = rng.randrange(20_000)
            match rng.randrange(8):
                case 0:
                    store.put_many({f"k{key + i}": rng.randbytes(VALUE) for i in range(20)})
                case 1:
                    store.delete(f"k{key}")
                case 2:
                    store[f"k{key}"] = rng.randbytes(rng.randrange(100_000))
                case 3:
                    store.incr(f"n{key % 100}")
                case _:
                    store.get(f"k{rng.randrange(20_000)}")
                    store[f"k{key}"] = rng.randbytes(VALUE)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(3)


def test_after_a_reboot(folder: Path) -> None:
    killed(lambda: _overfill(Store.open(folder, size="4MiB", on_full="evict")))
    lose_memory(folder)
    with Store.open(folder) as store:
        assert store["k19999"] == _value(19_999)
        assert 3000 < len(store) < 8000
        assert store.check().ok

"""`Store.open`: a directory, one region for all who open it, and what is left of both after deaths and damage."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from helpers import (
    copy_of,
    durable_folder,
    files_of,
    has_memory,
    is_synced,
    killed,
    lose_memory,
)

import shmkv
from shmkv import KeyValueStore, Store, _core, region
from shmkv.errors import (
    ClosedStoreError,
    CorruptStoreError,
    LayoutVersionError,
    LogFailedError,
    ShmkvError,
    StoreExistsError,
    StoreFullError,
    ValueTooLargeError,
)

MIB = 1 << 20
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


# ---- A directory is a store ------------------------------------------------------------------


def test_everything_comes_back(folder: Path) -> None:
    values: dict[str | bytes, Any] = {
        "int": 1, "big": 10**40, "text": "ä\0z", b"bytes": b"\xff" * 5000, "list": [1, (2, {"x": None})], "": 1.5,
    }  # fmt: skip
    with Store.open(folder, size="16MiB") as store:
        store.update(values)
        store.put("typed", b"<p>", content_type="text/html")
        store.incr("count", 5)
        store.incr("count", -2)
        store["gone"] = 1
        del store["gone"]
        store.put_many({f"many:{i}": i for i in range(500)})
        assert store.delete_many([f"many:{i}" for i in range(100)]) == 100
    for forget in (False, True):
        if forget:
            with Store.open(folder) as store:
                store["more"] = 1
            assert not has_memory(folder)
        with Store.open(folder) as store:
            assert {key: store[key] for key in values} == values
            assert store.content_type("typed") == "text/html"
            assert store["count"] == 3
            assert "gone" not in store
            assert sorted(store.scan("many:")) == sorted(f"many:{i}" for i in range(100, 500))
            assert store.check().ok


def test_ttl_goes_on(folder: Path) -> None:
    store = Store.open(folder, size="16MiB")
    store.put("short", 1, ttl=0.2)
    store.put("long", 1, ttl=1000)
    store["touched"] = store["persisted"] = 1
    store.touch("touched", 500)
    store.put("persisted", 1, ttl=600)
    store.persist("persisted")
    killed(lambda: store.put("late", 1, ttl=700))
    lose_memory(folder)
    time.sleep(0.25)
    again = Store.open(copy_of(folder))
    assert sorted(again) == ["late", "long", "persisted", "touched"]
    left = {key: again.ttl(key) for key in again}
    assert left["persisted"] is None
    for key, seconds in (("long", 1000), ("touched", 500), ("late", 700)):
        assert 0 < seconds - (left[key] or 0) < 60
    again.close()


def test_a_new_ttl_outlives_the_old_one(folder: Path) -> None:
    store = Store.open(folder, size="16MiB")
    for key in ("touched", "persisted", "over"):
        store.put(key, key, ttl=0.3)
    store.touch("touched", 0.35)
    store.touch("touched", 1000)
    store.persist("persisted")
    time.sleep(0.5)
    assert sorted(store) == ["persisted", "touched"]
    with Store.open(copy_of(folder)) as lost:
        assert dict(lost) == {"touched": "touched", "persisted": "persisted"}
        assert lost.ttl("persisted") is None
    store.close()


def test_the_last_one_leaves_no_memory(folder: Path) -> None:
    first, second = Store.open(folder, size="16MiB"), Store.open(folder)
    first["a"] = 1
    first.close()
    assert has_memory(folder)
    assert second["a"] == 1
    second.close()
    assert not has_memory(folder)
    assert len(files_of(folder, ".snapshot")) == 1
    assert len(files_of(folder, ".log")) == 1


def test_one_region_whatever_the_path(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(folder, size="16MiB")
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for spelling in (str(folder), link, "store", "./store/../store"):
        with Store.open(spelling) as same:
            same["seen"] = str(spelling)
            assert store["seen"] == str(spelling)
    moved = tmp_path / "moved"
    folder.rename(moved)
    with pytest.raises(LogFailedError, match="was removed"):
        store.sync()
    with pytest.raises(LogFailedError, match="was removed"):
        store.close()
    with Store.open(moved) as same:
        assert same["seen"] == "./store/../store"
        same["after"] = "the move"
    with Store.open(moved) as same:
        assert same["after"] == "the move"


def test_other_faces(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        assert store.path == folder
        assert str(folder) in repr(store)
        assert store.repaired is None
        faces = KeyValueStore(store)
        assert faces.put("k", [1], duration=60_000) == [1]
        assert faces.get("k") == [1]
        with pytest.raises(ShmkvError, match=r"Store\.open"):
            Store(store.name)
        with pytest.raises(ShmkvError, match=r"Store\.open"):
            Store.attach(store.name)
        with Store.attach(store.name, readonly=True) as reader:
            assert reader["k"] == [1]
        with pytest.raises(ShmkvError, match="directory"):
            store.unlink()
    with Store() as memory:
        assert memory.path is None
        memory.sync()
        with pytest.raises(ShmkvError, match=r"Store\.open"):
            memory.snapshot()


def test_pickled(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="always") as store:
        store["a"] = 1
        with pickle.loads(pickle.dumps(store)) as same:
            same["b"] = 2
        assert store["b"] == 2
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_increment, (store,)) == 3
        assert store["b"] == 3


def _increment(store: Store) -> int:
    return store.incr("b")


def test_misuse(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sync"):
        Store.open(folder, sync="sometimes")
    with pytest.raises(ValueError, match="size"):
        Store.open(folder, size=5)
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(NotADirectoryError, match="directory"):
        Store.open(plain)
    store = Store.open(folder, size="16MiB")
    with pytest.raises(StoreExistsError, match="size"):
        Store.open(folder, size="32MiB")
    store.close()
    with pytest.raises(ClosedStoreError):
        store["a"] = 1
    with Store.open(folder, size="32MiB") as larger:
        assert larger.size == 32 * MIB
    with Store.open(folder) as larger:
        assert larger.size == 32 * MIB


def test_another_size_after_a_crash(folder: Path) -> None:
    killed(lambda: Store.open(folder, size="16MiB").update(a=1))
    assert has_memory(folder)
    with Store.open(folder, size="32MiB") as store:
        assert store.size == 32 * MIB
        assert store["a"] == 1


def test_a_datastore_is_another_thing(tmp_path: Path) -> None:
    with shmkv.DataStore(tmp_path / "data") as data:
        data.create("k", {"v": 1})
    with pytest.raises(CorruptStoreError, match="DataStore"):
        Store.open(tmp_path / "data")
    with Store.open(tmp_path / "store", size="16MiB") as store:
        store["a"] = 1
    with pytest.raises(ShmkvError, match=r"Store\.open"):
        shmkv.DataStore(tmp_path / "store")


# ---- Stable storage --------------------------------------------------------------------------------


def test_sync_modes(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="none") as lazy:
        lazy["a"] = 1
        assert not is_synced(lazy)
        lazy.sync()
        assert is_synced(lazy)
        lazy["b"] = 1
        time.sleep(0.6)
        assert not is_synced(lazy)
        with Store.open(folder, sync="always") as eager:
            for change in (
                lambda: eager.put("c", 1), lambda: eager.incr("n"), lambda: eager.touch("c", 50),
                lambda: eager.delete("c"), lambda: eager.put_many({"d": 1, "e": 2}), lambda: eager.delete_many(["d"]),
                eager.clear, lambda: eager.setdefault("f", 1), lambda: eager.pop("f"),
            ):  # fmt: skip
                change()
                assert is_synced(eager)
        with Store.open(folder, sync="interval") as usual:
            usual["g"] = 1
            deadline = time.monotonic() + 20
            while not is_synced(usual):
                assert time.monotonic() < deadline
                time.sleep(0.01)


FAILED = 1152 + 4  # where header.log.failed lies in a region


def let_the_log_fail(store: Store) -> None:
    """As a sync does that the disk answers with EIO."""
    with open(f"/dev/shm/{region.object_name(store.name).removeprefix('/')}", "r+b") as memory:
        memory.seek(FAILED)
        memory.write(errno.EIO.to_bytes(4, sys.byteorder))


def test_a_log_that_has_failed(folder: Path) -> None:
    """It says so to every writer of every process, until all have closed it; then it is read anew, and goes on."""
    first, second = Store.open(folder, size="16MiB", sync="always"), Store.open(folder)
    first["a"] = 1
    let_the_log_fail(first)
    assert _core.durable_state(second._opened())["failed"] == errno.EIO
    changes: list[Callable[[Store], object]] = [
        lambda s: s.put("b", 1), lambda s: s.delete("a"), lambda s: s.incr("n"), lambda s: s.put_many({"b": 1}),
        lambda s: s.touch("a", 5), lambda s: s.clear(), lambda s: s.sync(), lambda s: s.snapshot(),
    ]  # fmt: skip
    for store in (first, second):
        for change in changes:
            with pytest.raises(LogFailedError, match="close the store in all processes") as told:
                change(store)
            assert told.value.errno == errno.EIO
            del told  # its frames hold the region
        assert dict(store) == {"a": 1}
    code = f"from shmkv import Store; Store.open({str(folder)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "LogFailedError" in other.stderr
    assert "close the store in all processes" in other.stderr
    for store in (first, second):
        with pytest.raises(LogFailedError):
            store.close()
        assert store.closed
    with Store.open(folder, sync="always") as again:
        assert dict(again) == {"a": 1}
        again["b"] = 2
        with Store.open(copy_of(folder)) as lost:
            assert dict(lost) == {"a": 1, "b": 2}


def test_a_log_that_has_failed_is_not_vouched_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vouch = _core.durable_vouch
    monkeypatch.setattr(_core, "durable_vouch", Mock())  # of the thread
    store = Store.open(folder, size="16MiB", sync="always")
    store["a"] = 1
    let_the_log_fail(store)
    with pytest.raises(LogFailedError) as told:
        vouch(store._opened())
    del told
    with pytest.raises(LogFailedError):
        store.close()


def test_a_log_that_is_closed(folder: Path) -> None:
    """Every call says what is to be done; one that was never begun says so too."""
    store = Store.open(folder, size="16MiB")
    store["a"] = 1
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.put("b", 1), lambda: store.get("a"), lambda: store.put_many({"b": 1}), store.sync, store.snapshot,
        store.clear, store.check, lambda: len(store), lambda: pickle.dumps(store) and len(store),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ClosedStoreError, match="open it again"):
            call()
    assert store.path == folder
    assert "closed" in repr(store)
    store.close()
    descriptor = os.open(folder, os.O_RDONLY)
    log = _core.Log(descriptor)
    os.close(descriptor)
    unbegun: list[Callable[[], object]] = [
        lambda: log.append(1, "k", b"", 0), lambda: log.sync(0), log.rotate,
    ]  # fmt: skip
    for call in unbegun:
        with pytest.raises(ValueError, match="not begun"):
            call()


def test_many_threads_and_processes_wait_for_one_sync(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="always") as store:

        def work(name: str) -> None:
            for i in range(25):
                store[f"{name}:{i}"] = i
                assert _core.durable_state(store._opened())["synced"] > 0

        def process(number: int) -> None:
            threads = [threading.Thread(target=work, args=(f"{number}.{t}",)) for t in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        children = [FORK.Process(target=process, args=(n,)) for n in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
        assert len(store) == 400
        assert is_synced(store)


def test_a_snapshot_while_others_write(folder: Path) -> None:
    store = Store.open(folder, size="64MiB", sync="none")
    store.put_many({f"k{i}": 0 for i in range(5000)})
    stop = threading.Event()

    def write() -> None:
        rng = random.Random(1)
        while not stop.is_set():
            n = rng.randrange(4900)
            store.put_many({f"k{i}": n for i in range(n, n + 20)})
            store.incr("total", 20)

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert store.snapshot().items >= 5000
        assert len(files_of(folder, ".snapshot")) == 1
        assert not files_of(folder, ".tmp")
        kept = Store.open(copy_of(folder))
        assert len(kept) >= 5000
        kept.close()
    stop.set()
    for thread in threads:
        thread.join()
    expected = dict(store)
    killed(lambda: store.put("last", 1))
    with Store.open(copy_of(folder)) as copy:
        assert dict(copy) == {**expected, "last": 1}
    store.close()


def test_the_log_does_not_grow_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shmkv.keeper

    monkeypatch.setattr(shmkv.keeper, "LOG_LEAST", 200_000)
    with Store.open(folder, size="16MiB") as store:
        deadline = time.monotonic() + 30
        while not files_of(folder, ".snapshot"):
            store.put_many({f"k{i}": b"x" * 100 for i in range(500)})
            assert time.monotonic() < deadline
        assert len(store) == 500


def test_batches_are_laid_out_ahead_where_a_sync_follows(folder: Path) -> None:
    for sync in ("interval", "always"):
        with Store.open(folder, size="16MiB", sync=sync) as store:
            store.snapshot()
            start = _core.durable_state(store._opened())["end"]
            store.put_many({f"k{i}": b"x" * 16 for i in range(1000)})
            written = 64 + _core.durable_state(store._opened())["end"] - start
            ahead = files_of(folder, ".log")[-1].stat().st_size - written
            assert ahead == (256 << 10 if sync == "always" else 0)


def test_a_load_of_lines(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "lines.tsv"
    text.write_text("".join(f"key{i}\tvalue {i}\n" for i in range(5000)))
    with Store.open(folder, size="16MiB", sync="always") as store:
        assert store._load_tsv(text.read_bytes(), 0, 1, 0)[0] == 5000
        assert is_synced(store)
    with Store.open(folder) as store:
        assert len(store) == 5000


# ---- Deaths -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_and_disk_never_differ(folder: Path) -> None:
    """Processes that change the same keys are killed at any time: what the memory holds then, the log holds too."""
    store = Store.open(folder, size="16MiB", sync="none")
    rng = random.Random(9)
    for round_ in range(6):
        pids = [_start_changer(store, round_ * 10 + n) for n in range(3)]
        for _ in range(8):
            time.sleep(rng.random() * 0.05)
            victim = pids.pop(rng.randrange(len(pids)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            pids.append(_start_changer(store, rng.randrange(10**9)))
            if rng.random() < 0.2:
                store.snapshot()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with Store.open(copy_of(folder)) as lost:
            store.compact()
            assert store.check().ok
            assert dict(lost) == dict(store)
            for batch in range(5):
                assert len({lost.get(f"batch{batch}:{i}") for i in range(12)}) == 1, "a batch is whole"
    store.close()


def _start_changer(store: Store, seed: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        rng = random.Random(seed)
        threads = [threading.Thread(target=_change, args=(store, random.Random(seed + n))) for n in range(2)]
        for thread in threads:
            thread.start()
        _change(store, rng)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(3)


def _change(store: Store, rng: random.Random) -> None:
    while True:
        key = f"k{rng.randrange(60)}"
        match rng.randrange(12):
            case 0:
                store.put_many(_batch(rng))
            case 1:
                store.delete_many(list(_batch(rng)))
            case 2 | 3:
                store.delete(key)
            case 4 | 5:
                store.incr(f"n{rng.randrange(5)}")
            case 6:
                store.touch(key, 1000)
            case 7:
                store.persist(key)
            case 8 if rng.random() < 0.02:
                store.clear()
            case _:
                store.put(key, rng.randbytes(rng.randrange(400)), ttl=rng.choice([None, 5000]))


def _batch(rng: random.Random) -> dict[str, int]:
    number, value = rng.randrange(5), rng.randrange(10**9)
    return {f"batch{number}:{i}": value for i in range(12)}


def test_counters_are_exact_after_kills(folder: Path) -> None:
    store = Store.open(folder, size="16MiB")

    def count() -> None:
        for _ in range(500):
            store.incr("count")

    for _ in range(6):
        killed(count)
    assert store["count"] == 3000
    with Store.open(copy_of(folder)) as lost:
        assert lost["count"] == 3000
    store.close()


# ---- Damage ----------------------------------------------------------------------------------------------


def _make_damaged(folder: Path) -> None:
    with Store.open(folder, size="16MiB", sync="always") as store:
        for i in range(100):
            store[f"k{i}"] = i
        killed(lambda: None)
        store.sync()
        lose_memory(folder)
        copy_of(folder)
    shutil.rmtree(folder)
    (folder.parent / "copy").rename(folder)


def test_rot_is_told_and_repaired(folder: Path) -> None:
    _make_damaged(folder)
    log = files_of(folder, ".log")[0]
    raw = bytearray(log.read_bytes())
    raw[len(raw.rstrip(b"\0")) // 2] ^= 4
    log.write_bytes(raw)
    with pytest.raises(CorruptStoreError, match=rf"{log.name}.*byte [0-9,]+.*[0-9]+ changes.*repair=True"):
        Store.open(folder)
    assert not has_memory(folder)
    assert bytes(raw) == log.read_bytes(), "nothing is changed by looking"
    with Store.open(folder, repair=True) as store:
        report = store.repaired
        assert report is not None
        assert report.file == log.name
        assert 0 < report.changes < 100
        assert dict(store) == {f"k{i}": i for i in range(report.changes)}
        assert (report.kept_in / log.name).read_bytes() == bytes(raw)
        store["new"] = 1
    with Store.open(folder) as store:
        assert len(store) == report.changes + 1
        assert store.repaired is None


def test_a_torn_tail_is_cut_off(folder: Path) -> None:
    _make_damaged(folder)
    log = files_of(folder, ".log")[-1]
    laid_out = log.read_bytes()
    whole = laid_out.rstrip(b"\0")  # into the last frame: its value ends with zeroes
    for cut in (1, 7, 39, 60, 200):
        log.write_bytes(whole[:-cut])
        with Store.open(copy_of(folder)) as store:
            assert 95 <= len(store) < 100
            assert dict(store) == {f"k{i}": i for i in range(len(store))}
    end = len(whole) // 8 * 8 + 8 * 2
    log.write_bytes(laid_out[:end] + b"skvF\1\1" + bytes(100))
    with Store.open(copy_of(folder)) as store:
        assert len(store) == 100


def test_mutated_files(folder: Path, seed: int) -> None:
    """Right data, or a clear error; never other data."""
    _make_damaged(folder)
    with Store.open(folder) as store:
        store.update({f"m{i}": i for i in range(50)})
        store.snapshot()
        store.update({f"n{i}": i for i in range(50)})
        expected = dict(store)
        shutil.rmtree(folder.parent / "base", ignore_errors=True)
        shutil.copytree(folder, folder.parent / "base")
    base, rng = folder.parent / "base", random.Random(seed)
    outcomes = {"whole": 0, "less": 0, "refused": 0}
    for _ in range(120):
        copy = folder.parent / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base, copy)
        target = rng.choice([each for each in copy.iterdir() if each.name != "lock"])
        raw = bytearray(target.read_bytes())
        raw = raw[: len(raw.rstrip(b"\0")) + 20]  # a change of what is laid out ahead is none
        match rng.randrange(4):
            case 0:
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            case 1:
                del raw[rng.randrange(len(raw)) :]
            case 2:
                at = rng.randrange(len(raw))
                raw[at : at + 30] = rng.randbytes(30)
            case _:
                raw.clear()
        target.write_bytes(raw)
        if not raw and rng.random() < 0.5:
            target.unlink()
        try:
            with Store.open(copy) as store:
                found = dict(store)
                assert store.check().ok
            assert found.items() <= expected.items()
            outcomes["whole" if found == expected else "less"] += 1
        except (CorruptStoreError, LayoutVersionError):
            outcomes["refused"] += 1
    assert outcomes["refused"]
    assert outcomes["less"]


def test_settings_that_are_lost_or_foreign(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
    settings = folder / "store.json"
    good = settings.read_text()
    settings.write_text(good.replace('"format": 1', '"format": 2'))
    with pytest.raises(LayoutVersionError, match="format 2"):
        Store.open(folder)
    settings.write_text(json.dumps({**json.loads(good), "uuid": "00" * 15 + "01"}))
    with pytest.raises(CorruptStoreError, match="not the one"):
        Store.open(folder)
    settings.write_text("{")
    with pytest.raises(CorruptStoreError, match=r"store\.json"):
        Store.open(folder)
    settings.unlink()
    with pytest.raises(CorruptStoreError, match=r"no store\.json"):
        Store.open(folder)
    settings.write_text(good)
    with Store.open(folder) as store:
        assert store["a"] == 1


@pytest.mark.parametrize(
    "text",
    [
        '{"format": 1, "uuid": "00", "size": 1048576}',
        '{"format": 1, "uuid": "%s", "size": 1e400}' % ("00" * 16),
        '{"format": 1, "uuid": 7, "size": 1048576}',
        '{"format": 1}',
        "[1]",
        "7",
        "[" * 5_000,
        "",
    ],
)
def test_settings_that_are_none(folder: Path, text: str) -> None:
    with Store.open(folder, size="16MiB"):
        pass
    (folder / "store.json").write_text(text)
    with pytest.raises(CorruptStoreError, match=r"store\.json is damaged"):
        Store.open(folder)
    assert (folder / "store.json").read_text() == text, "nothing was changed"


def test_settings_that_are_a_pipe_are_not_waited_for(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "store.json")
    with pytest.raises(CorruptStoreError, match=r"store\.json is damaged"):
        Store.open(folder)


def test_a_later_version_may_say_anything_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "store.json").write_text('{"format": 2}')
    with pytest.raises(LayoutVersionError, match="format 2"):
        Store.open(folder)


@pytest.mark.parametrize("path", ["", b""])
def test_an_empty_path_is_no_directory(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for face in (Store.open, shmkv.DataStore):
        with pytest.raises(ValueError, match="empty"):
            face(path)
    assert list(tmp_path.iterdir()) == []


def _fill(store: Store) -> None:
    for i in range(100):
        store.put_many({f"more{i}.{j}": os.urandom(1000) for j in range(3000)})


def test_more_data_than_memory(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        store.put_many({f"k{i}": os.urandom(1000) for i in range(3000)})
        with pytest.raises(StoreFullError, match="close it everywhere and open it with a larger size=") as full:
            _fill(store)
        assert "on_full" not in str(full.value)
        with pytest.raises(StoreFullError, match="close it everywhere"):
            store["large"] = os.urandom(3 * MIB)
        with pytest.raises(ValueTooLargeError, match="close it everywhere"):
            store["large"] = bytes(5 * MIB)
        count = len(store)
    with pytest.raises(StoreFullError, match="larger size"):
        Store.open(folder, size="2MiB")
    with Store.open(folder, size="32MiB") as store:
        assert len(store) == count


def test_an_error_of_the_system_names_the_file_by_its_whole_path(tmp_path: Path) -> None:
    for number, use in enumerate((Store.open, shmkv.DataStore)):
        folder = tmp_path / str(number)
        (folder / "lock").mkdir(parents=True)
        with pytest.raises(IsADirectoryError) as caught:
            use(folder)
        assert caught.value.filename == str(folder / "lock")
        assert str(folder / "lock") in str(caught.value)

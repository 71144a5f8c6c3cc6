"""Durable stores beside a process that is stopped (SIGSTOP) in a write: whom it holds up, and how long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from helpers import PATIENCE, durable_folder, files_of, run_python, wait_until

from shmkv import Store, _core
from shmkv.errors import LockTimeoutError

pytestmark = pytest.mark.slow

TIMEOUT = 0.3
SHORT = 0.1
# What a call may take beyond lock_timeout on a machine with much else to do; two seconds, as it was, is far beyond.
GRACE = 1.0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
        os._exit(0)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def longest(*calls: Callable[[], object]) -> tuple[float, int]:
    """Seconds that the longest one took, and how many were refused."""
    times, refused = [], 0
    for call in calls:
        before = time.monotonic()
        try:
            call()
        except LockTimeoutError:
            refused += 1
        times.append(time.monotonic() - before)
    return max(times), refused


def put_for_ever(store: Store) -> None:
    while True:
        store["theirs"] = time.monotonic()


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_lock_timeout_is_kept(folder: Path, sync: str) -> None:
    """By each call, wherever the writer was stopped: in a put of one key, a batch, sync()."""
    store = Store.open(folder, sync, size="16MiB", lock_timeout=TIMEOUT)
    store["mine"] = 0
    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        worst = 0.0
        for turn in range(6):
            time.sleep(0.003 * turn)
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            took, _ = longest(
                lambda: store.put("mine", 1),
                lambda: store.put_many({"a": 1, "b": 2}),
                lambda: store.delete("a"),
                store.sync,
            )
            worst = max(worst, took)
            os.kill(pid, signal.SIGCONT)
        assert worst < TIMEOUT + GRACE
    store.close()


def test_a_stopped_leader_holds_up_nobody(folder: Path) -> None:
    """With "always" a stopped process is nearly always in the sync: beside that everybody syncs for themselves."""
    store = Store.open(folder, "always", size="16MiB", lock_timeout=TIMEOUT)
    store["mine"] = 0
    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        done = 0
        for turn in range(12):
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            took, refused = longest(*[partial(store.put, "mine", turn)] * 8)
            assert took < TIMEOUT + GRACE
            done += 8 - refused
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.002)
        assert done > 0
    store.close()
    with Store.open(folder) as store:
        assert store["mine"] == 11 or done < 96


def test_threads_of_one_process_keep_it_too(folder: Path) -> None:
    """They take turns, and each turn waits: the time runs from the call, not from the turn."""
    store = Store.open(folder, "none", size="16MiB", lock_timeout=TIMEOUT)
    store["mine"] = 0
    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        for _ in range(200):  # until it is stopped where it holds the log
            os.kill(pid, signal.SIGSTOP)
            os.waitpid(pid, os.WUNTRACED)
            if longest(lambda: store.put("mine", 1))[1]:
                break
            os.kill(pid, signal.SIGCONT)
        took: list[float] = []
        threads = [
            threading.Thread(target=lambda n=n: took.append(longest(lambda: store.put(f"mine{n}", 1))[0]))
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(took) == 16
        assert max(took) < TIMEOUT + GRACE
    store.close()


def test_a_leader_that_is_killed_while_stopped(folder: Path) -> None:
    """Groups form again: its lock is taken from it, also by those who had given up waiting for it."""
    store = Store.open(folder, "always", size="16MiB", lock_timeout=TIMEOUT)
    store["mine"] = 0
    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        longest(lambda: store.put("mine", 1), lambda: store.put("mine", 2))
    store.put("mine", 3)
    assert _core.durable_state(store._opened())["failed"] == 0
    store.close()
    with Store.open(folder) as store:
        assert store["mine"] == 3


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)


def holders(store: Store) -> tuple[int | None, int | None]:
    """The pids of who appends to the log, and of who writes a snapshot."""
    appends, writes = _core.durable_holders(store._opened())
    return appends and appends[0], writes and writes[0]


def stop_where(pid: int, is_there: Callable[[], bool]) -> None:
    for turn in range(20_000):
        time.sleep(turn % 7 * 0.0003)
        stop(pid)
        if is_there():
            return
        os.kill(pid, signal.SIGCONT)
    pytest.fail("it was never stopped there")


def snapshots_for_ever(store: Store) -> None:
    while True:
        store.snapshot()


def told(call: Callable[[], object]) -> tuple[str, float]:
    """What it says about whom it waited for, and after how many seconds."""
    before = time.monotonic()
    with pytest.raises(LockTimeoutError) as error:
        call()
    return str(error.value), time.monotonic() - before


OPEN = """
import sys
from shmkv import LockTimeoutError, Store
try:
    Store.open(sys.argv[1], lock_timeout=0.3)
except LockTimeoutError as error:
    print(error)
"""


def test_each_call_behind_an_append(folder: Path, tmp_path: Path) -> None:
    """Those that wait for the log say for whom, and keep lock_timeout; the others do not wait for it."""
    store = Store.open(folder, size="16MiB", lock_timeout=SHORT)
    other = Store.open(folder, lock_timeout=SHORT)
    store["mine"] = 0
    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        stop_where(pid, lambda: holders(store)[0] == pid)  # it holds up the writers of all keys
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: store.put("mine", 2),
            "put_many": lambda: store.put_many({"a": 1, "b": 2}),
            "incr": lambda: store.incr("count"),
            "touch": lambda: store.touch("mine", 60),
            "delete": lambda: store.delete("mine"),
            "clear": store.clear,
            "sync": store.sync,
            "snapshot": store.snapshot,
            "backup": lambda: store.backup(tmp_path / "backup"),
            "close": other.close,
        }
        for name, call in calls.items():
            words, took = told(call)
            assert f"process {pid} (" in words, f"{name}: {words}"
            assert f"kill -CONT {pid}" in words, f"{name}: {words}"
            assert took < (2 * SHORT + GRACE) * PATIENCE, f"{name} took {took} s"
        assert f"process {pid} (" in run_python(OPEN, str(folder)), "a process that joins the log waits for it too"
        assert store["mine"] == 0
        assert store.check().ok
        assert store.stats().items > 0
        store.compact()
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not longest(lambda: store.put("mine", 3))[1], what="the writer goes on")
        assert store.snapshot().items >= 2
    store.close()
    assert list(tmp_path.glob("backup*")) == []
    with Store.open(folder) as store:
        assert store["mine"] == 3


def test_a_stopped_snapshot(folder: Path, tmp_path: Path) -> None:
    """It holds up those that want one too, for lock_timeout, and nobody else."""
    store = Store.open(folder, size="64MiB", lock_timeout=TIMEOUT)
    other = Store.open(folder, lock_timeout=TIMEOUT)
    store.put_many({f"key {number}": b"x" * 1000 for number in range(10_000)})
    with child(lambda: snapshots_for_ever(store)) as pid:
        stop_where(pid, lambda: holders(store) == (None, pid))  # it has no lock that a writer needs
        for call in (store.snapshot, lambda: store.backup(tmp_path / "backup")):
            words, took = told(call)
            assert f"process {pid} (" in words
            assert "stopped" in words
            assert "writing a snapshot" in words
            assert took < (TIMEOUT + GRACE) * PATIENCE
        store["mine"] = 2
        store.put_many({"a": 1, "b": 2})
        store.sync()
        store.compact()
        other.close()
        Store.open(folder, lock_timeout=TIMEOUT).close()
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not longest(store.snapshot)[1], what="a snapshot")
        assert store.backup(tmp_path / "backup").items == 10_003
    store.close()
    with Store.open(folder) as store:
        assert store["mine"] == 2


def test_a_snapshot_at_work_is_waited_for(folder: Path) -> None:
    """However long it takes: lock_timeout is for those that are stopped."""
    store = Store.open(folder, size="64MiB", lock_timeout=0)
    store.put_many({f"key {number}": b"x" * 1000 for number in range(10_000)})
    with child(lambda: snapshots_for_ever(store)) as pid:
        wait_until(lambda: holders(store)[1] == pid, what="a snapshot")
        assert store.snapshot().items == 10_000
    store.close()


def test_a_snapshot_overtaken_by_an_append(folder: Path) -> None:
    """Who is stopped while the file is being written is told as such, and not as a disk that fails."""
    store = Store.open(folder, size="256MiB", lock_timeout=SHORT)
    for part in range(6):
        store.put_many({f"key {part} {number}": b"x" * 1000 for number in range(10_000)})
    raised: list[BaseException] = []

    def snapshot() -> None:
        try:
            store.snapshot()
        except BaseException as error:
            raised.append(error)

    def has_begun(thread: threading.Thread) -> bool:
        return bool(files_of(folder, ".snapshot.tmp")) or not thread.is_alive()

    with child(lambda: put_for_ever(store)) as pid:
        wait_until(lambda: "theirs" in store)
        for _ in range(50):
            thread = threading.Thread(target=snapshot)
            thread.start()
            wait_until(partial(has_begun, thread), what="a snapshot")
            stop_where(pid, lambda: holders(store)[0] == pid)
            thread.join()
            os.kill(pid, signal.SIGCONT)
            if raised:
                break
    assert raised, "no append was stopped while a snapshot was being written"
    assert isinstance(raised[0], LockTimeoutError), raised
    assert f"process {pid} (" in str(raised[0])
    assert files_of(folder, ".snapshot.tmp") == []
    assert store.snapshot().items == 60_001
    store.close()

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
from helpers import durable_folder, wait_until

from shmkv import Store, _core
from shmkv.errors import LockTimeoutError

pytestmark = pytest.mark.slow

TIMEOUT = 0.3
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

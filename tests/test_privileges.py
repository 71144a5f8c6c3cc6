"""Processes that may not open the store any more: another user, another root directory, no descriptors.

Each goes on writing, proves to others that it lives, and takes over what a dead one held.
"""

from __future__ import annotations

import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable

import pytest
from helpers import Forked, SharedInts, check, in_fork, wait_until
from test_outside import stop_inside

from shmkv import ForkedError, LockTimeoutError, Store, processes
from shmkv.outside import attached

NOBODY = 65534
BATCH = {f"k{i}": i for i in range(500)}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, or change its root")


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def enter_an_empty_root() -> None:
    """No /proc, no /dev/shm."""
    with tempfile.TemporaryDirectory() as folder:
        os.chroot(folder)
        os.chdir("/")


def use_up_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


LOSSES = [
    pytest.param(become_nobody, marks=needs_root),
    pytest.param(enter_an_empty_root, marks=needs_root),
    use_up_descriptors,
]


def write_for_ever(store: Store) -> None:
    while True:
        store.put_many(BATCH)


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    store = make_store()
    store.put_many(BATCH)
    return store


@pytest.mark.parametrize("lose", LOSSES)
def test_workers_write_after_it(store: Store, lose: Callable[[], None]) -> None:
    ready = SharedInts(1)

    def work(number: int) -> None:
        lose()
        for _ in range(100):
            store.incr("n")
        store[f"{number}"] = b"v" * 100
        assert store.stats().processes >= 2
        assert sum(process.this for process in store.processes()) == 1
        ready[0] += number == 0
        if number == 0:
            signal.pause()

    waiting = Forked(work, 0)
    wait_until(lambda: ready[0])
    for number in range(1, 4):
        in_fork(work, number)
    assert store["n"] == 400
    assert [one.pid for one in attached(store.name) if one.alive] == [os.getpid(), waiting.pid]
    waiting.kill()
    assert store.stats().processes == 1
    check(store)


@pytest.mark.parametrize("lose", LOSSES)
def test_a_dead_holders_lock_is_taken_over_after_it(store: Store, lose: Callable[[], None]) -> None:
    ready = SharedInts(2)

    def take_over() -> None:
        store["mine"] = 1
        lose()
        ready[0] = 1
        while not ready[1]:
            pass
        store.put_many(dict.fromkeys(BATCH, -1))

    taker = Forked(take_over)
    wait_until(lambda: ready[0])
    writer = Forked(write_for_ever, store)
    stop_inside(writer, store)
    writer.kill()
    ready[1] = 1
    taker.result()
    assert set(store.get_many(list(BATCH)).values()) == {-1}
    check(store)


@needs_root
def test_a_relative_is_known_to_live_and_to_have_died(make_store: Callable[..., Store]) -> None:
    """Forked after the right was lost: it shares its parent's open file, where no lock is in the way."""
    store = make_store(lock_timeout=0.5)

    def parent() -> None:
        become_nobody()
        writer = Forked(write_for_ever, store)
        stop_while_it_holds_a_lock(store, writer)
        with pytest.raises(LockTimeoutError, match=rf"process {writer.pid} \(.*kill -CONT"):
            store.put_many(dict.fromkeys(BATCH, -2))
        assert writer.pid in {process.pid for process in store.processes()}
        writer.resume()
        stop_while_it_holds_a_lock(store, writer)
        writer.kill()
        assert writer.pid not in {process.pid for process in store.processes()}
        in_fork(store.put_many, dict.fromkeys(BATCH, -1))  # a sibling of the dead one
        assert set(store.get_many(list(BATCH)).values()) == {-1}
        for _ in range(30):
            in_fork(store.incr, "n")

    in_fork(parent)
    assert store["n"] == 30
    assert store.stats().processes == 1
    store.put_many(BATCH)
    check(store)


def stop_while_it_holds_a_lock(store: Store, writer: Forked) -> None:
    """Without opening the store, which this process may not."""
    with _Locks(store) as locks:
        for _ in range(5_000):
            time.sleep(0.002)
            writer.stop()
            if locks.are_held():
                return
            writer.resume()
    raise AssertionError("it was never stopped while it held a lock")


class _Locks:
    """The lock words of a store, read through the descriptor that this process has."""

    def __init__(self, store: Store) -> None:
        self._fd = store._opened().fd
        header = os.pread(self._fd, 256, 0)
        self._at = int.from_bytes(header[96:104], "little")
        self._buckets = store._opened().bucket_count

    def __enter__(self) -> _Locks:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def are_held(self) -> bool:
        raw = os.pread(self._fd, 64 * self._buckets, self._at)
        return any(any(raw[at : at + 4]) for at in range(0, len(raw), 64))


@needs_root
def test_a_process_forked_where_nothing_can_be_opened_says_so(store: Store) -> None:
    read, write = os.pipe()

    def parent() -> None:
        enter_an_empty_root()
        store["parent"] = 1
        pid = os.fork()
        if pid == 0:
            assert store["parent"] == 1  # it may read
            try:
                store["child"] = 1
            except ForkedError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.waitpid(pid, 0)

    in_fork(parent)
    os.close(write)
    with open(read) as told:
        assert "fork first and give the right up in the child" in told.read()
    assert "child" not in store


def test_a_holder_that_has_ended_is_not_to_be_continued() -> None:
    alive = processes.blame(os.getpid(), processes.own_start(), processes.pid_namespace(), lives=True)
    assert f"kill -CONT {os.getpid()}" in alive[1]
    for lives in (True, False):
        words, advice = processes.blame(os.getpid(), 1, processes.pid_namespace(), lives)
        assert words == "it has ended"
        assert "continue" not in advice
        assert "CONT" not in advice
    _, advice = processes.blame(7, 1, 1, lives=True)
    assert "kill" not in advice  # its pid is one of another namespace

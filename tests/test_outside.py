"""A store looked at from outside: who lives, who is dead, who holds a lock."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from helpers import PATIENCE, Forked, SharedInts, finish, start_python, wait_until

from shmkv import Store, StoreNotFoundError
from shmkv.outside import DEAD, UNSEEN, attached, locks_held
from shmkv.processes import STOPPED

T = TypeVar("T")


def attach_and_wait(store: Store, ready: SharedInts) -> None:
    store["mine"] = os.getpid()
    ready[0] = 1
    time.sleep(300)


def test_the_living_and_the_dead(store: Store) -> None:
    ready = SharedInts(1)
    child = Forked(attach_and_wait, store, ready)
    wait_until(lambda: ready[0])
    living = {one.pid: one for one in attached(store.name)}
    assert set(living) == {os.getpid(), child.pid}
    assert all(one.alive and one.name and one.status not in (DEAD, UNSEEN) for one in living.values())

    child.stop()
    assert {one.pid: one.status in STOPPED for one in attached(store.name)} == {os.getpid(): False, child.pid: True}
    child.resume()
    child.kill()
    [dead] = [one for one in attached(store.name) if one.pid == child.pid]
    assert (dead.alive, dead.name, dead.status) == (False, None, DEAD)
    store.compact()
    assert [one.pid for one in attached(store.name)] == [os.getpid()]


def test_a_pid_that_is_used_again_is_another_process(store: Store) -> None:
    """Only the lock tells: the pid of a dead process may be that of a living one by now."""
    ready = SharedInts(1)
    child = Forked(attach_and_wait, store, ready)
    wait_until(lambda: ready[0])
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: not all(one.alive for one in attached(store.name)))  # while it is a zombie, whose pid is taken
    assert {one.status for one in attached(store.name) if one.pid == child.pid} == {DEAD}
    child.kill()


def test_by_descriptor_also_when_the_name_is_gone(store: Store) -> None:
    with Store() as private:
        opened = private._opened().fd
        private.unlink()
        assert [one.pid for one in attached(opened)] == [os.getpid()]
        assert not locks_held(opened)
        with pytest.raises(StoreNotFoundError):
            attached(private.name)


def test_a_read_only_handle_is_not_attached(store: Store) -> None:
    code = "import sys; from shmkv import Store; s = Store.attach(sys.argv[1], readonly=True); print(len(s)); input()"
    reader = start_python(code, store.name)
    assert reader.stdout is not None
    reader.stdout.readline()
    assert [one.pid for one in attached(store.name)] == [os.getpid()]
    reader.kill()
    finish(reader)


def test_locks_of_a_stopped_writer(store: Store) -> None:
    batch = {f"k{i}": i for i in range(500)}

    def write_for_ever() -> None:
        while True:
            store.put_many(batch)

    assert not locks_held(store.name)
    writer = Forked(write_for_ever)
    held = stop_inside(writer, store)
    [slot] = {one.slot for one in attached(store.name) if one.pid == writer.pid}
    assert {owner for owner, _ in held} == {slot}
    assert 0 < sum(held.values()) <= 1_024
    writer.kill()
    store.put_many(dict.fromkeys(batch, 0))  # repairs what it left
    assert not locks_held(store.name)


def stop_inside(writer: Forked, store: Store) -> dict[tuple[int, str], int]:
    """Stop a writer while it holds locks; which."""

    def held() -> dict[tuple[int, str], int]:
        slots = {one.slot for one in attached(store.name) if one.pid == writer.pid}
        return {lock: count for lock, count in locks_held(store.name).items() if lock[0] in slots}

    return stop_when(writer, held)


def stop_in_a_call(writer: Forked, store: Store) -> None:
    """Stop a writer in the middle of a call, with locks or without."""
    stop_when(writer, lambda: any(one.inside for one in attached(store.name) if one.pid == writer.pid))


def stop_when(writer: Forked, there: Callable[[], T]) -> T:
    """Stop a writer until `there` is true of it; what that answered."""
    deadline = time.monotonic() + 60 * PATIENCE
    while time.monotonic() < deadline:
        time.sleep(0.002)
        writer.stop()
        answer = there()
        if answer:
            return answer
        writer.resume()
    raise AssertionError("it was never stopped there")

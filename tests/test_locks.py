"""Locks: a dead process blocks nobody, a stopped one is named, a reader waits for neither."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import PATIENCE, Forked, SharedInts, check, sealed, unseal, wait_until

from shmkv import LockTimeoutError, Store

BATCH = [f"{i}" for i in range(20_000)]


def write_batches(store: Store) -> None:
    number = 0
    while True:
        number += 1
        store.put_many(dict.fromkeys(BATCH, number))


def write_single(store: Store, me: int, acknowledged: SharedInts) -> None:
    number = acknowledged[me]
    while True:
        number += 1
        key = f"{me}:{number % 200}"
        store[key] = sealed(key, number, 20 + number % 3000)
        if number % 5 == 0:
            store.delete(f"{me}:{(number * 3) % 200}")
        if number % 11 == 0:
            store.put_many({f"shared:{i}": number for i in range(300)})
        store.incr("count")
        acknowledged[me] = number


@pytest.fixture
def writer(store: Store) -> Forked:
    store.put_many(dict.fromkeys(BATCH, 0))
    return Forked(write_batches, store)


def stop_while_it_holds_locks(store: Store, writer: Forked, rng: random.Random) -> LockTimeoutError:
    """Stop the writer again and again, until a probe finds that it has a lock; leaves it stopped."""
    with Store.attach(store.name, lock_timeout=0.2) as probe:
        for _ in range(400):
            time.sleep(rng.random() * 0.02)
            writer.stop()
            try:
                for key in rng.sample(BATCH, 5):
                    probe.touch(key, 1000)
            except LockTimeoutError as error:
                return error
            writer.resume()
    pytest.fail("in 400 stops the writer never held a lock")


def test_a_stopped_holder_is_named(store: Store, writer: Forked, rng: random.Random) -> None:
    error = stop_while_it_holds_locks(store, writer, rng)
    assert isinstance(error, TimeoutError)
    assert str(writer.pid) in str(error)
    assert "stopped" in str(error)

    # readers do not wait, and see whole batches
    started = time.monotonic()
    for _ in range(5):
        assert len(set(store.get_many(BATCH).values())) == 1
        assert len(store) == len(BATCH)
        assert store[BATCH[7]] >= 0
    with Store.attach(store.name, readonly=True) as reader:
        assert len(set(reader.get_many(BATCH).values())) == 1
        assert len(dict(reader)) == len(BATCH)
    assert time.monotonic() - started < 20 * PATIENCE

    # every kind of write says the same, and changes nothing
    before = store.get_many(BATCH)
    with Store.attach(store.name, lock_timeout=0.1) as probe:
        attempts: list[Callable[[], Any]] = [
            lambda: probe.put_many(dict.fromkeys(BATCH, -1)),
            lambda: probe.delete_many(BATCH),
            lambda: probe.clear(),
            lambda: [probe.put(key, -1) for key in BATCH if before[key]],
        ]
        for attempt in attempts[:3]:
            started = time.monotonic()
            with pytest.raises(LockTimeoutError) as timeout:
                attempt()
            assert str(writer.pid) in str(timeout.value)
            assert time.monotonic() - started < 10 * PATIENCE, "the timeout is for the whole call"
        assert store.get_many(BATCH) == before

    # it goes on, and so does everybody
    writer.resume()
    wait_until(lambda: store[BATCH[0]] != before[BATCH[0]])
    store[BATCH[0]] = 1
    writer.kill()
    store.put_many(dict.fromkeys(BATCH, 0))
    store.compact()
    check(store)


@pytest.mark.slow
def test_a_holder_that_is_killed_blocks_nobody(store: Store, writer: Forked, rng: random.Random) -> None:
    for turn in range(4):
        stop_while_it_holds_locks(store, writer, rng)
        writer.kill()
        started = time.monotonic()
        for key in BATCH[:2000:7]:
            store.touch(key, 1000)
        assert time.monotonic() - started < 5 * PATIENCE
        assert len(set(store.get_many(BATCH).values())) == 1, "half a batch"
        store.put_many(dict.fromkeys(BATCH, -turn))
        check(store)
        writer = Forked(write_batches, store)
    writer.kill()
    store.compact()
    check(store)


def test_waiting_ends_when_the_holder_dies(store: Store, writer: Forked, rng: random.Random) -> None:
    """A process that sleeps behind a lock goes on by itself once the holder is killed."""
    stop_while_it_holds_locks(store, writer, rng)

    def wait() -> float:
        with Store.attach(store.name, lock_timeout=60) as handle:
            handle.put_many(dict.fromkeys(BATCH, -5))
        return time.monotonic()

    waiters = [Forked(wait), Forked(wait)]
    time.sleep(0.3)
    assert all(waiter.poll() is None for waiter in waiters)
    killed = time.monotonic()
    writer.kill()
    for waiter in waiters:
        assert waiter.result() - killed < 5 * PATIENCE
    assert set(store.get_many(BATCH).values()) == {-5}
    store.compact()


def test_ctrl_c_ends_waiting(store: Store, writer: Forked, rng: random.Random) -> None:
    stop_while_it_holds_locks(store, writer, rng)

    def wait(batch: bool) -> str:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Store.attach(store.name, lock_timeout=60) as handle:
            try:
                if batch:
                    handle.put_many(dict.fromkeys(BATCH, -5))
                else:
                    for key in BATCH:
                        handle[key] = -5
            except KeyboardInterrupt:
                return "interrupted"
        return "not interrupted"

    for batch in (True, False):
        waiter = Forked(wait, batch)
        time.sleep(0.4)
        waiter.signal(signal.SIGINT)
        assert waiter.result(10) == "interrupted"
    writer.kill()
    store.compact()


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "5", None], ids=repr)
def test_timeouts_that_cannot_be(store: Store, timeout: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Store.attach(store.name, lock_timeout=timeout)


@pytest.mark.parametrize("timeout", [0, 0.0, 1e9, float("inf")])
def test_timeouts_that_can_be(store: Store, timeout: float) -> None:
    with Store.attach(store.name, lock_timeout=timeout) as handle:
        handle["k"] = 1
        handle.put_many({"a": 1, "b": 2})
        handle.clear()


def test_no_patience_at_all(store: Store, writer: Forked, rng: random.Random) -> None:
    stop_while_it_holds_locks(store, writer, rng)
    with Store.attach(store.name, lock_timeout=0) as handle:
        started = time.monotonic()
        with pytest.raises(LockTimeoutError):
            handle.put_many(dict.fromkeys(BATCH, 1))
        assert time.monotonic() - started < 5 * PATIENCE
    writer.kill()
    store.compact()


@pytest.mark.slow
def test_random_kills_and_stops(store: Store, rng: random.Random) -> None:
    """Whatever is killed or stopped, the others go on at once, and what was acknowledged is there."""
    count = 3
    acknowledged = SharedInts(count)
    writers = [Forked(write_single, store, me, acknowledged) for me in range(count)]
    waits = []
    counted = 0
    for turn in range(60):
        time.sleep(rng.random() * 0.02)
        victim = rng.randrange(count)
        if rng.random() < 0.3:
            writers[victim].stop()
            for _ in range(3):
                for key in (f"{victim}:{rng.randrange(200)}", "shared:5"):
                    value = store.get(key)
                    if isinstance(value, bytes):
                        unseal(key, value)
            writers[victim].resume()
            continue
        writers[victim].kill()
        started = time.monotonic()
        counted += 1
        store.incr("count")
        store.put_many({f"shared:{i}": -turn for i in range(300)})
        for i in range(200):
            key = f"{victim}:{i}"
            value = store.get(key)
            if value is not None:
                assert unseal(key, value) <= acknowledged[victim] + 1
                store[key] = value
        waits.append(time.monotonic() - started)
        shared = store.get_many([f"shared:{i}" for i in range(300)])
        assert len(shared) == 300
        assert len(set(shared.values())) == 1
        newest = f"{victim}:{acknowledged[victim] % 200}"
        if acknowledged[victim] % 5 and acknowledged[victim]:
            assert unseal(newest, store[newest]) >= acknowledged[victim] - 200
        writers[victim] = Forked(write_single, store, victim, acknowledged)
    for writer in writers:
        writer.kill()
    waits.sort()
    assert waits[len(waits) // 2] < 0.1, "after a kill the others go on within 100 ms"
    assert waits[-1] < 3, "nobody hangs after a kill"
    # one incr of each killed writer may have been done but not acknowledged
    done = sum(acknowledged) + counted
    assert done <= store["count"] <= done + 60 + count
    store.compact()
    check(store)
    assert store.stats().processes == 1
    assert os.getpid() == next(process.pid for process in store.processes() if process.this)

"""incr and decr: 64-bit counters that any number of processes may share."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from helpers import Forked

from shmkv import Store

MAX, MIN = 2**63 - 1, -(2**63)


def test_creates_at_initial_plus_delta(store: Store) -> None:
    assert store.incr("a") == 1
    assert store.incr("b", 5) == 5
    assert store.incr("c", 5, 100) == 105
    assert store.incr("d", delta=2, initial=-1) == 1
    assert store.decr("e") == -1
    assert store.decr("f", 5, initial=100) == 95
    assert dict(store) == {"a": 1, "b": 5, "c": 105, "d": 1, "e": -1, "f": 95}


def test_counts(store: Store) -> None:
    for i in range(1, 2000):
        assert store.incr("n") == i
    assert store.incr("n", -1999) == 0
    assert store.decr("n", -7, initial=1000) == 7
    assert store.incr("n", 0) == 7
    assert store["n"] == 7
    assert type(store["n"]) is int


def test_counts_on_from_a_put(store: Store) -> None:
    store["n"] = 41
    assert store.incr("n") == 42
    store.put_many({"n": 10})
    assert store.decr("n") == 9


@pytest.mark.parametrize("value", ["5", b"5", 1.0, True, False, None, [1], {"n": 1}], ids=repr)
@pytest.mark.parametrize("call", ["incr", "decr"])
def test_no_int_is_a_type_error(store: Store, value: Any, call: str) -> None:
    store["n"] = value
    version = store.gets("n").version
    with pytest.raises(TypeError):
        getattr(store, call)("n")
    assert store.gets("n") == (value, version)
    assert type(store["n"]) is type(value)


@pytest.mark.parametrize("delta", ["1", 1.0, None, b"1", []], ids=repr)
def test_delta_must_be_an_int(store: Store, delta: Any) -> None:
    for call in (store.incr, store.decr):
        with pytest.raises(TypeError):
            call("n", delta)
        with pytest.raises(TypeError):
            call("n", 1, delta)
    assert "n" not in store


@pytest.mark.parametrize(
    ("value", "call", "delta"),
    [(MAX, "incr", 1), (MIN, "decr", 1), (MIN, "incr", -1), (MAX, "decr", -1), (1, "incr", MAX), (-2, "incr", MIN),
     (0, "decr", MIN), (2**63, "incr", 0), (2**63, "decr", 1), (-(2**63) - 1, "incr", 1), (2**200, "incr", 1),
     (0, "incr", 2**64), (0, "decr", 2**200)],
)  # fmt: skip
def test_overflow_changes_nothing(store: Store, value: int, call: str, delta: int) -> None:
    store.put("n", value, ttl=1000)
    version = store.gets("n").version
    with pytest.raises(OverflowError):
        getattr(store, call)("n", delta)
    assert store.gets("n") == (value, version)
    assert store.ttl("n") is not None


@pytest.mark.parametrize(("delta", "initial"), [(1, MAX), (-1, MIN), (0, 2**63), (2**64, 0), (2**64, -(2**64) + 1)])
def test_overflow_creates_nothing(store: Store, delta: int, initial: int) -> None:
    try:
        created = store.incr("n", delta, initial)
    except OverflowError:
        assert "n" not in store
    else:
        assert created == delta + initial == store["n"]
        assert MIN <= created <= MAX


def test_up_to_the_very_ends(store: Store) -> None:
    store["n"] = MAX - 1
    assert store.incr("n") == MAX == store["n"]
    assert store.decr("n", MAX) == 0
    assert store.incr("n", MIN) == MIN == store["n"]
    store["m"] = -1
    assert store.incr("m", MIN + 1) == MIN


def test_ttl_only_when_it_creates(store: Store, clock: Any) -> None:
    assert store.incr("n", ttl=10) == 1
    assert store.ttl("n") == 10
    clock.advance(4)
    assert store.incr("n", ttl=100) == 2
    assert store.ttl("n") == 6
    assert store.decr("n") == 1
    assert store.ttl("n") == 6
    clock.advance(6)
    assert store.incr("n") == 1
    assert store.ttl("n") is None
    assert store.incr("n", ttl=5) == 2
    assert store.ttl("n") is None


def test_each_incr_is_a_new_version(store: Store) -> None:
    store.incr("n")
    versions = set()
    for _ in range(100):
        versions.add(store.gets("n").version)
        store.incr("n", 0)
    assert len(versions) == 100


def test_processes_and_threads_lose_no_count(store: Store) -> None:
    def count(times: int) -> None:
        for i in range(times):
            store.incr("up")
            store.decr("down", 2)
            store.incr(f"many:{i % 50}")

    def threads() -> None:
        workers = [threading.Thread(target=count, args=(2000,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    children = [Forked(threads) for _ in range(3)]
    count(2000)
    for child in children:
        child.result()
    assert store["up"] == 14_000
    assert store["down"] == -28_000
    assert sum(store[f"many:{i}"] for i in range(50)) == 14_000

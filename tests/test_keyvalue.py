"""`KeyValueStore`: its three calls, their errors, durations, threads and processes."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import PATIENCE, Forked, in_fork

from shmkv import KeyValueStore, Store


@pytest.fixture
def items(store: Store) -> Iterator[KeyValueStore]:
    """One whose clock the test sets."""
    store._set_clock(store._now_ms())
    yield KeyValueStore(store)
    store._set_clock(0)


def let_pass(items: KeyValueStore, milliseconds: int) -> None:
    items.store._set_clock(items.store._now_ms() + milliseconds)


# ---- The three calls -----------------------------------------------------------------------


def test_put_returns_the_value_itself(items: KeyValueStore) -> None:
    value = {"a": [1, 2]}
    assert items.put("k", value) is value
    assert items.get("k") == value
    assert items.put("k", None) is None
    assert items.get("k") is None


def test_a_missing_key(items: KeyValueStore) -> None:
    with pytest.raises(KeyError, match="k"):
        items.get("k")
    with pytest.raises(KeyError, match="k"):
        items.delete("k")
    items.put("k", 1)
    assert items.delete("k") is None
    with pytest.raises(KeyError):
        items.get("k")
    with pytest.raises(KeyError):
        items.delete("k")


def test_what_cannot_be_stored_changes_nothing(items: KeyValueStore) -> None:
    items.put("k", 1)
    for key, value in (("k", object()), (5, "v"), ("k", [object()])):
        with pytest.raises(TypeError):
            items.put(key, value)  # type: ignore[arg-type]
    assert items.get("k") == 1
    assert len(items.store) == 1


# ---- Durations -----------------------------------------------------------------------------


@pytest.mark.parametrize("duration", [1, 5, 250.0, 60_000])
def test_a_duration_is_milliseconds(items: KeyValueStore, duration: float) -> None:
    items.put("k", "v", duration)
    let_pass(items, int(duration) - 1)
    assert items.get("k") == "v"
    let_pass(items, 1)
    with pytest.raises(KeyError):
        items.get("k")
    with pytest.raises(KeyError):
        items.delete("k")


def test_a_fraction_counts_as_a_whole_millisecond(items: KeyValueStore) -> None:
    items.put("k", "v", 0.01)
    assert items.get("k") == "v"
    let_pass(items, 1)
    with pytest.raises(KeyError):
        items.get("k")


def test_five_milliseconds_of_real_time() -> None:
    with KeyValueStore() as items:
        before = time.monotonic()
        items.put("k", "v", duration=5)
        while True:
            try:
                items.get("k")
            except KeyError:
                break
            assert time.monotonic() - before < 5 * PATIENCE, "it never goes"
        # Clocks of the system advance in ticks of a few milliseconds; a millisecond is the resolution asked for.
        assert time.monotonic() - before > 0.003


def test_a_put_without_one_stays(items: KeyValueStore) -> None:
    items.put("k", 1, duration=10)
    items.put("k", 2)
    let_pass(items, 1000)
    assert items.get("k") == 2


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), 946_728_000_001, -0.5])
def test_durations_that_cannot_be(items: KeyValueStore, duration: float) -> None:
    items.put("k", 1)
    with pytest.raises(ValueError, match="milliseconds"):
        items.put("k", 2, duration)
    assert items.get("k") == 1


@pytest.mark.parametrize("duration", ["5", True, [1], b"1"])
def test_durations_of_another_type(items: KeyValueStore, duration: Any) -> None:
    with pytest.raises(TypeError, match="milliseconds"):
        items.put("k", 2, duration)
    with pytest.raises(KeyError):
        items.get("k")


# ---- Which store ---------------------------------------------------------------------------


def test_a_private_one_is_gone_with_it() -> None:
    items = KeyValueStore()
    items.put("k", 1)
    name = items.store.name
    items.close()
    items.close()
    with pytest.raises(FileNotFoundError):
        Store.attach(name)
    with pytest.raises(ValueError, match="closed"):
        items.get("k")


def test_a_named_one_is_shared(name: str) -> None:
    with KeyValueStore(name) as one, KeyValueStore(name) as other:
        one.put("k", 1)
        assert other.get("k") == 1
        other.delete("k")
        with pytest.raises(KeyError):
            one.get("k")


def test_the_callers_stays_open(store: Store) -> None:
    with KeyValueStore(store) as items:
        assert items.store is store
        items.put("k", 1)
    assert store["k"] == 1


@pytest.mark.parametrize("argument", [5, b"name", object(), []])
def test_what_is_no_store(argument: Any) -> None:
    with pytest.raises(TypeError, match="name of one"):
        KeyValueStore(argument)


def test_repr_names_the_store(store: Store) -> None:
    assert store.name in repr(KeyValueStore(store))


# ---- Threads and processes -----------------------------------------------------------------


def test_it_can_be_pickled(name: str) -> None:
    with KeyValueStore(name) as items:
        items.put("k", 1)
        other = pickle.loads(pickle.dumps(items))
        assert other.get("k") == 1
        other.close()


def test_many_threads_and_processes(store: Store) -> None:
    """Each key is deleted by exactly one of all who try."""
    items = KeyValueStore(store)
    keys = [f"k{i}" for i in range(400)]
    for key in keys:
        items.put(key, key)

    def delete_all() -> int:
        done = 0
        for key in keys:
            try:
                items.delete(key)
            except KeyError:
                continue
            done += 1
        return done

    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(delete_all())) for _ in range(4)]
    child = Forked(delete_all)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) + child.result() == len(keys)
    assert in_fork(lambda: items.put("from a child", 5)) == 5
    assert items.get("from a child") == 5

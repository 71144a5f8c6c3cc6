"""Room that is free is usable: after a change of sizes a store takes what a fresh one with the same items does."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from helpers import MIB, check

from shmkv import Store, StoreFullError

pytestmark = pytest.mark.slow

SIZE = 8 * MIB
SIZES = {
    "16 B": 16,
    "100 B": 100,
    "1.5 KB": 1500,
    "60 KB": 60_000,
    "70 KB": 70_000,
    "500 KB": 500_000,
    "quarter": SIZE // 4,
}
AT_ONCE = 500  # small items in a batch

Make = Callable[..., Store]


def put_until_full(store: Store, prefix: str, size: int, most: int = 10**9) -> int:
    """How many values of `size` bytes were stored."""
    value, count, step = b"v" * size, 0, AT_ONCE if size <= 2000 else 1
    while count < most and step:
        try:
            store.put_many({f"{prefix}{count + i}": value for i in range(min(step, most - count))})
        except StoreFullError:
            step //= 8
            continue
        count += min(step, most - count)
    return count


def kept_of(count: int, percent: int) -> list[str]:
    step = 100 // percent if percent else count + 1
    return [f"old{i}" for i in range(step // 2, count, step)] if percent else []


def delete_others(store: Store, kept: list[str]) -> list[str]:
    """What is left, of which an evicting store may have dropped some."""
    wanted = set(kept)
    gone = [key for key in store if key not in wanted]
    for i in range(0, len(gone), 1000):
        store.delete_many(gone[i : i + 1000])
    return [key for key in kept if key in store]


def needed(fresh: int, to: str) -> int:
    return fresh - 1 if to == "quarter" else fresh * 85 // 100


PAIRS = [
    ("16 B", "60 KB"),  # tables that were large lie in every page
    ("16 B", "70 KB"),
    ("16 B", "quarter"),
    ("100 B", "500 KB"),
    ("100 B", "1.5 KB"),
    ("1.5 KB", "16 B"),
    ("1.5 KB", "500 KB"),
    ("60 KB", "100 B"),
    ("70 KB", "500 KB"),  # runs lie in the way of runs
    ("70 KB", "quarter"),
    ("500 KB", "quarter"),
    ("quarter", "70 KB"),
]


@pytest.mark.parametrize("percent", [0, 1, 5, 20])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_another_size_takes_the_room(make_store: Make, old: str, new: str, percent: int) -> None:
    store = make_store(size=SIZE)
    kept = delete_others(store, kept_of(put_until_full(store, "old", SIZES[old]), percent))
    fresh = make_store(size=SIZE)
    for key in kept:
        fresh[key] = b"v" * SIZES[old]
    most = put_until_full(fresh, "new", SIZES[new])
    found = put_until_full(store, "new", SIZES[new])
    assert found >= needed(most, new), f"{found} of {most} values of {new}, with {len(kept)} of {old} among them"
    assert all(store[key] == b"v" * SIZES[old] for key in kept)
    check(store)


@pytest.mark.parametrize(("percent", "seed"), [(1, 9), (1, 21), (5, 20), (5, 40)])
def test_a_batch_does_not_lie_in_its_own_way(
    make_store: Make, monkeypatch: pytest.MonkeyPatch, percent: int, seed: int
) -> None:
    """With these hash seeds the pages that its value needed held its intent, or what moves had leased."""
    monkeypatch.setattr(os, "urandom", random.Random(seed).randbytes)
    test_another_size_takes_the_room(make_store, "16 B", "quarter", percent)


@pytest.mark.parametrize("percent", [0, 5, 100])
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_an_evicting_store_changes_its_sizes(make_store: Make, old: str, new: str, percent: int) -> None:
    store, fresh = make_store(size=SIZE, on_full="evict"), make_store(size=SIZE, on_full="evict")
    plain = make_store(size=SIZE)
    count = put_until_full(plain, "old", SIZES[old])
    put_until_full(store, "old", SIZES[old], count + count // 10 + 1)
    kept = [] if percent == 100 else delete_others(store, kept_of(count, percent))
    for key in kept:
        fresh[key] = b"v" * SIZES[old]
    plain.clear()
    puts = put_until_full(plain, "new", SIZES[new])
    puts = puts * (3 if percent == 100 else 1) + puts // 3 + 2  # what is not deleted takes turns to go
    put_until_full(store, "new", SIZES[new], puts)
    put_until_full(fresh, "new", SIZES[new], puts)
    found, most = len(list(store.scan("new"))), len(list(fresh.scan("new")))
    assert found >= needed(most, new), f"{found} of {most} values of {new}"
    check(store)


@pytest.mark.parametrize("size", [16, 100, 1500])
def test_an_evicting_store_takes_each_batch(make_store: Make, size: int) -> None:
    """The blocks of a batch that is not there yet may lie in every page of a small store."""
    store = make_store(size=MIB, on_full="evict")
    for first in range(0, 3 * MIB // (size + 50), 100):
        store.put_many({f"k{first + i}": b"v" * size for i in range(100)})
        assert f"k{first}" in store
    check(store)

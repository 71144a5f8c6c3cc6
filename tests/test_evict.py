"""on_full: "error" refuses and changes nothing, "evict" lets cold items go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from helpers import MIB, Forked, SharedInts, check, fill, sealed, unseal

from shmkv import Store, StoreFullError, ValueTooLargeError


def test_error_is_the_default(make_store: Callable[..., Store]) -> None:
    store = make_store(size="2MiB")
    count = fill(store, 1000)
    assert 500 < count < 2100
    assert store.stats().evicted == 0
    assert len(store) == count


def test_error_changes_nothing(make_store: Callable[..., Store]) -> None:
    store = make_store(size="2MiB", on_full="error")
    store.put("old", b"before", ttl=1000)
    fill(store, 2000)
    fill(store, 50, "small")
    before = dict(store)
    version = store.gets("old").version
    sets = store.stats().sets
    large = b"x" * 300_000
    attempts: dict[str, Callable[[], Any]] = {
        "put": lambda: store.put("new", large),
        "overwrite": lambda: store.put("old", large),
        "add": lambda: store.add("new", large),
        "replace": lambda: store.replace("old", large),
        "cas": lambda: store.cas("old", large, version),
        "setdefault": lambda: store.setdefault("new", large),
        "put_many": lambda: store.put_many({"old": 1, "new": large}),
        "update": lambda: store.update(old=large),
    }
    for name, attempt in attempts.items():
        with pytest.raises(StoreFullError) as full:
            attempt()
        assert isinstance(full.value, MemoryError), name
        assert dict(store) == before, name
        assert store.gets("old") == (b"before", version)
        assert store.ttl("old") is not None
        check(store)
    assert store.stats().sets == sets


@pytest.mark.parametrize("on_full", ["sometimes", "", 5])
def test_other_words(make_store: Callable[..., Store], on_full: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        make_store(size="2MiB", on_full=on_full)


@pytest.mark.parametrize("size", [10, 100, 3000, 40_000, 200_000])
def test_evict_keeps_going(make_store: Callable[..., Store], size: int) -> None:
    store = make_store(size="4MiB", on_full="evict")
    count = max(200, 5 * 4 * MIB // (size + 60))
    for i in range(count):
        key = f"k{i}"
        store[key] = sealed(key, i, max(size, 20))
        assert unseal(key, store[key]) == i
    stats = store.stats()
    assert 0 < len(store) < count
    assert stats.evicted > 0
    assert len(store) + stats.evicted == count
    assert stats.used <= stats.size == 4 * MIB
    assert len(store) * (size + 64) > 2 * MIB, "a cache that keeps less than half of its size"
    for key, value in store.items():
        unseal(key, value)


def test_evict_with_sizes_that_change(make_store: Callable[..., Store], rng: Any) -> None:
    """From small blocks to runs of pages and back."""
    store = make_store(size="4MiB", on_full="evict")
    for sizes in ((20, 200), (100_000, 900_000), (1000, 5000), (20, 1_000_000)):
        for i in range(600):
            key = f"{i}"
            store[key] = sealed(key, i, rng.randrange(*sizes))
            assert unseal(key, store[key]) == i
        check(store)


def test_evict_keeps_what_is_warm(make_store: Callable[..., Store]) -> None:
    store = make_store(size="4MiB", on_full="evict")
    warm = [f"warm:{i}" for i in range(300)]
    store.put_many(dict.fromkeys(warm, b"w" * 500))
    for i in range(20_000):
        store[f"cold:{i}"] = b"c" * 500
        if i % 100 == 0:
            for _ in range(3):
                for key in warm:
                    store.get(key)
    kept = sum(key in store for key in warm)
    oldest = sum(f"cold:{i}" in store for i in range(300))
    assert store.stats().evicted > 10_000
    assert kept >= 240, f"only {kept} of 300 warm keys were kept ({oldest} of 300 cold ones)"
    assert oldest < 150


# ---- By use and age, whatever the size ----

SIZES = (20, 1500, 60_000, 70_000, 300_000, 2_000_000)


def put_all(store: Store, name: str, size: int, count: int) -> list[str]:
    keys = [f"{name}:{i}" for i in range(count)]
    for i, key in enumerate(keys):
        store[key] = sealed(key, i, size)
    return keys


def what_fits(store: Store, size: int) -> int:
    """Items of some ten bytes of key and `size` of value, in a store of this size."""
    with Store(size=store.stats().size) as fresh:
        count = 0
        with contextlib.suppress(StoreFullError):
            while True:
                fresh[f"key:{count}"] = b"v" * size
                count += 1
        return count


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [None, 100, 60_000, 500_000])
def test_the_newest_stay(make_store: Callable[..., Store], size: int, before: int | None) -> None:
    """The newest tenth of what fits is there after each change of sizes, and after each item from then on."""
    store = make_store(size="8MiB", on_full="evict")
    if before:
        put_all(store, "before", before, what_fits(store, before) * 2)
    fits = what_fits(store, size)
    keys = [f"new:{i}" for i in range(fits * 2)]
    for i, key in enumerate(keys):
        store[key] = sealed(key, i, size)
        if i % max(1, fits // 20) == 0:
            newest = keys[max(0, i - fits // 10) : i + 1]
            assert [key for key in newest if key not in store] == []
    check(store)


@pytest.mark.parametrize("mib", [1, 2])
@pytest.mark.parametrize("size", [16, 100, 1500])
def test_the_newest_of_batches_stay(make_store: Callable[..., Store], size: int, mib: int) -> None:
    """In a store of few pages, each with some of the records that a batch has made, there is room for its tables."""
    store = make_store(size=mib * MIB, on_full="evict")
    fits = what_fits(store, size)
    newest = max(100, fits // 10)
    keys = [f"new:{i}" for i in range(12_000)]
    for end in range(100, len(keys) + 1, 100):
        store.put_many(dict.fromkeys(keys[end - 100 : end], b"v" * size))
        assert [key for key in keys[max(0, end - newest) : end] if key not in store] == []
    check(store)


@pytest.mark.parametrize("size", [500_000, 100_000])
def test_large_items_go_by_age(make_store: Callable[..., Store], size: int) -> None:
    """Each new one took the place of the one before it."""
    store = make_store(size="8MiB", on_full="evict")
    keys = put_all(store, "k", size, 8 * MIB // size * 3)
    kept = [key in store for key in keys]
    assert sum(kept) * size > 5 * MIB
    newest = kept[-sum(kept) :]
    assert sum(newest) >= len(newest) * 0.9, kept


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize("warm", [False, True])
def test_half_of_what_fits_stays(make_store: Callable[..., Store], size: int, warm: bool) -> None:
    """A set that is read in turns gets in, also where all that was there before had been read often."""
    store = make_store(size="8MiB", on_full="evict")
    fits = what_fits(store, size)
    before = put_all(store, "before", size, fits)
    for key in before * (20 if warm else 1):
        store.get(key)
    keys = [f"turn:{i}" for i in range(fits // 2)]
    hits = 0
    for turn in range(14 if fits < 2000 else 12):
        for i, key in enumerate(keys):
            if key not in store:
                store[key] = sealed(key, i, size)
            else:
                store.get(key)
                hits += turn >= 9
    assert hits >= 0.99 * len(keys) * (turn - 8)


def test_large_items_that_are_read_stay(make_store: Callable[..., Store], rng: Any) -> None:
    store = make_store(size="32MiB", on_full="evict")
    sizes = [rng.randrange(66_000, 500_000) for _ in range(20)]
    misses = 0
    for turn in range(40):
        for i, size in enumerate(sizes):
            if store.get(f"hot:{i}") is None:
                store[f"hot:{i}"] = b"h" * size
                misses += turn > 0
        for i in range(10):
            store[f"cold:{turn}:{i}"] = b"c" * rng.randrange(66_000, 500_000)
    assert misses <= 8
    assert store.stats().evicted > 200


def test_a_scan_drops_nothing_that_is_read(make_store: Callable[..., Store]) -> None:
    """Four times what fits goes by once: what was read before is still there."""
    store = make_store(size="4MiB", on_full="evict")
    hot = put_all(store, "hot", 500, 3000)
    for _ in range(3):
        for key in hot:
            store.get(key)
    put_all(store, "scan", 500, 4 * what_fits(store, 500))
    assert sum(key in store for key in hot) >= 2700


def test_what_comes_back_is_kept(make_store: Callable[..., Store]) -> None:
    """Items that are evicted unread, and written again soon after, outlive those that are written once."""
    store = make_store(size="4MiB", on_full="evict")
    fits, number = what_fits(store, 500), 0
    back = [f"back:{i}" for i in range(fits // 10)]
    for _ in range(6):
        for key in back:
            if key not in store:
                store[key] = b"b" * 500
        for _ in range(fits // 3):
            store[f"once:{number}"] = b"o" * 500
            number += 1
    assert sum(key in store for key in back) > 0.6 * len(back)


def test_evict_lets_expired_items_go_first(make_store: Callable[..., Store]) -> None:
    store = make_store(size="4MiB", on_full="evict")
    now = store._now_ms()
    store._set_clock(now)
    store.put_many({f"stays:{i}": b"s" * 500 for i in range(1500)})
    store.put_many({f"expires:{i}": b"e" * 500 for i in range(1500)}, ttl=1)
    store._set_clock(now + 2000)
    for i in range(1000):
        store[f"new:{i}"] = b"n" * 500
    assert sum(f"stays:{i}" in store for i in range(1500)) >= 1350
    store._set_clock(0)


def test_evict_does_not_stretch_the_limits(make_store: Callable[..., Store]) -> None:
    store = make_store(size="4MiB", on_full="evict")
    store["k"] = 1
    with pytest.raises(ValueTooLargeError):
        store["k"] = b"x" * (MIB + 1)
    assert dict(store) == {"k": 1}


def test_evict_belongs_to_the_store(make_store: Callable[..., Store]) -> None:
    store = make_store(size="2MiB", on_full="evict")
    with Store.attach(store.name) as other:
        for i in range(5000):
            other[f"{i}"] = b"x" * 1000
    assert store.stats().evicted > 0


def test_batches_evict_and_are_whole(make_store: Callable[..., Store]) -> None:
    """Items of a batch may go later, but a reader never sees two batches mixed."""
    store = make_store(size="4MiB", on_full="evict")
    done = SharedInts(1)
    keys = [f"b{i}" for i in range(50)]

    def write() -> None:
        for number in range(1000):
            store.put_many(dict.fromkeys(keys, (number, "x" * (number % 700))))
            for i in range(20):
                store[f"f{number}:{i}"] = b"f" * 1000
        done[0] = 1

    def read() -> None:
        while not done[0]:
            assert len({number for number, _ in store.get_many(keys).values()}) <= 1

    children = [Forked(write), Forked(read)]
    for child in children:
        child.result()
    assert store.stats().evicted > 0


def test_processes_evict_together(make_store: Callable[..., Store]) -> None:
    store = make_store(size="4MiB", on_full="evict")

    def work(me: int) -> int:
        hits = 0
        for i in range(6000):
            key = f"{(i * 7919 + me) % 9000}"
            value = store.get(key)
            if value is None:
                store[key] = sealed(key, i, 100 + i % 900)
            else:
                unseal(key, value)
                hits += 1
        return hits

    children = [Forked(work, me) for me in range(3)]
    assert sum(child.result() for child in children) > 0
    assert store.stats().evicted > 0

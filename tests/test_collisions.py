"""Keys that were chosen so that their hashes meet, by somebody who has read the store's seed: slow, and nothing else.

XXH3 of 32 bytes adds two folded products of two words of the key, each xored with a word that depends on the seed.
With the seed in hand one factor can be made 0; then the word beside it may be anything.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
from helpers import MIB, in_fork, region_path

from shmkv import Store, deepcheck

SECRET_WORD = 0xBE4BA423396CFEB8  # the first one of XXH3's secret
COUNT = 3000  # 815 to 960 were refused once
TAG_MASK = (1 << 24) - 1


def seed_of(path: Path) -> int:
    with path.open("rb") as file:
        return int(struct.unpack_from("=Q", file.read(256), 64)[0])


def chosen(seed: int, number: int, tail: bytes = b"T" * 16) -> bytes:
    """The hash does not depend on the number."""
    zero = (SECRET_WORD + seed) % 2**64
    return struct.pack("<QQ", zero, number) + tail


def chosen_for(store: Store, count: int = COUNT) -> list[bytes]:
    seed = seed_of(region_path(store.name))
    keys = [chosen(seed, number) for number in range(count)]
    assert len({xxhash.xxh3_64_intdigest(key, seed=seed) for key in keys}) == 1
    return keys


def families_for(store: Store, families: int, each: int) -> list[bytes]:
    """Keys of several hashes in one bucket, whose tags lie side by side, in turns: their probes run into each other."""
    seed, buckets = seed_of(region_path(store.name)), store._opened().bucket_count
    bits = buckets.bit_length() - 1
    found: list[tuple[int, bytes]] = []
    for number in itertools.count():
        tail = struct.pack("<QQ", number, 0)
        value = xxhash.xxh3_64_intdigest(chosen(seed, 0, tail), seed=seed)
        if value >> (64 - bits) == 0:
            found.append((value & TAG_MASK, tail))
        if len(found) == 16 * families:
            break
    tails = [tail for _, tail in sorted(found)[:families]]
    return [chosen(seed, number, tail) for number in range(each) for tail in tails]


def is_whole(store: Store, items: dict[Any, Any]) -> None:
    assert len(store) == len(items)
    assert dict(store.items()) == items
    report = store.check()
    assert report.problems == ()
    assert report.items == len(items)
    assert not deepcheck.deep_check(store.name).problems


@pytest.mark.parametrize("on_full", ["error", "evict"])
def test_one_by_one(make_store: Callable[..., Store], on_full: str) -> None:
    store = make_store(size=16 * MIB, on_full=on_full)
    keys = chosen_for(store)
    for number, key in enumerate(keys):
        store[key] = number
    store["beside"] = -1
    is_whole(store, {**{key: number for number, key in enumerate(keys)}, "beside": -1})
    for key in keys[::7]:
        assert store.incr(key, 5) >= 5
        assert store.touch(key, 1000)
        assert store.delete(key)
        assert not store.delete(key)
    kept = {key: number for number, key in enumerate(keys) if number % 7}
    store.compact()
    is_whole(store, {**kept, "beside": -1})
    assert chosen(0, 1) not in store


def test_in_batches(make_store: Callable[..., Store]) -> None:
    store = make_store(size=16 * MIB)
    keys = chosen_for(store)
    store.put_many(dict.fromkeys(keys[:2000], 1))
    store.put_many(dict.fromkeys(keys[1000:], 2))
    assert sum(store.get_many(keys).values()) == 1000 + 2 * 2000
    assert store.delete_many(keys[:1500]) == 1500
    is_whole(store, dict.fromkeys(keys[1500:], 2))
    store.clear()
    store.update(dict.fromkeys(keys, 3))
    is_whole(store, dict.fromkeys(keys, 3))


def test_hashes_that_lie_side_by_side(make_store: Callable[..., Store], rng: random.Random) -> None:
    """Every insertion into a new table would walk through all of the family before it."""
    store = make_store(size=8 * MIB)
    keys = families_for(store, 24, 150)
    shuffled = rng.sample(keys, len(keys))
    for number, key in enumerate(shuffled):
        store[key] = number
    items = {key: number for number, key in enumerate(shuffled)}
    is_whole(store, items)
    for key in rng.sample(keys, 1000):
        del store[key], items[key]
    for key in keys:
        store[key] = items[key] = 0
    store.compact()
    is_whole(store, items)


def test_the_store_can_be_resized(name: str) -> None:
    with Store(name, size="16MiB") as store:
        keys = chosen_for(store)
        store.update(dict.fromkeys(keys, 1))
    Store.resize(name, "32MiB")
    with Store(name) as store:
        is_whole(store, dict.fromkeys(keys, 1))


def test_others_go_on_beside_it(make_store: Callable[..., Store]) -> None:
    store = make_store(size=16 * MIB)
    keys = chosen_for(store)

    def fill() -> int:
        for key in keys:
            store[key] = 1
        return len(store)

    assert in_fork(fill) == COUNT
    assert all(store[key] == 1 for key in keys)
    assert store.popitem()[1] == 1


def test_a_durable_store_comes_back(tmp_path: Path) -> None:
    with Store.open(tmp_path, "none", size="16MiB") as store:
        seed = seed_of(region_path(store.name))
        keys = [chosen(seed, number) for number in range(COUNT)]
        for key in keys:
            store[key] = 1
        store.snapshot()
        store.put_many(dict.fromkeys(keys, 2))
    with Store.open(tmp_path) as store:
        assert seed_of(region_path(store.name)) != seed  # which was good for that region alone
        assert dict(store) == dict.fromkeys(keys, 2)
        assert store.check().ok


def test_who_has_not_read_the_seed_meets_nothing(make_store: Callable[..., Store]) -> None:
    """The same keys under the seed of another store have hashes that have nothing to do with each other."""
    one, other = make_store(size=8 * MIB), make_store(size=8 * MIB)
    keys = chosen_for(one)
    seed = seed_of(region_path(other.name))
    hashes = [xxhash.xxh3_64_intdigest(key, seed=seed) for key in keys]
    assert len(set(hashes)) == COUNT
    assert len({value & TAG_MASK for value in hashes}) > COUNT - 10

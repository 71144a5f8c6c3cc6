"""Requests for keys, made by a seed: what the eviction of a cache is tried with.

A key is a number.  Popularity follows Zipf's law: the key of rank r is asked for in proportion to 1 / r ** alpha.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import accumulate

KEYS = 200_000
SCAN = 20_000  # keys that are asked for once
TURN = 50_000  # requests, after which the most popular keys are others
REPLACED = 1_000


def zipf(alpha: float, requests: int, keys: int = KEYS, seed: int = 1) -> Iterator[int]:
    """Popular keys stay popular."""
    yield from _ranks(alpha, requests, keys, random.Random(seed))


def zipf_with_scans(requests: int, keys: int = KEYS, seed: int = 2) -> Iterator[int]:
    """Half of the requests are those of jobs that each read a tenth of all keys, and nobody ever reads those again."""
    fresh = keys
    scan = SCAN * keys // KEYS
    for i, key in enumerate(_ranks(0.9, requests // 2, keys, random.Random(seed))):
        yield key
        if i % scan == scan // 2:
            yield from range(fresh, fresh + scan)
            fresh += scan


def zipf_that_shifts(requests: int, keys: int = KEYS, seed: int = 3) -> Iterator[int]:
    """What is popular changes: every now and then the most popular keys are forgotten, and others take their places."""
    turn, replaced = TURN * keys // KEYS, REPLACED * keys // KEYS
    for i, rank in enumerate(_ranks(0.9, requests, keys, random.Random(seed))):
        yield (rank + i // turn * replaced) % keys


def loop(length: int, requests: int) -> Iterator[int]:
    """The same keys in the same order, more than fit."""
    return (i % length for i in range(requests))


def _ranks(alpha: float, requests: int, keys: int, rng: random.Random) -> Iterator[int]:
    weights = list(accumulate((rank + 1) ** -alpha for rank in range(keys)))
    at_once = 10_000
    for done in range(0, requests, at_once):
        yield from rng.choices(range(keys), cum_weights=weights, k=min(at_once, requests - done))


Trace = Callable[[int, int], Iterator[int]]  # requests, and how many items fit

TRACES: dict[str, Trace] = {
    "zipf 0.7": lambda requests, _: zipf(0.7, requests),
    "zipf 0.9": lambda requests, _: zipf(0.9, requests),
    "zipf 0.9 with scans": lambda requests, _: zipf_with_scans(requests),
    "zipf 0.9 that shifts": lambda requests, _: zipf_that_shifts(requests),
    "a loop of 1.3 x what fits": lambda requests, fits: loop(fits * 13 // 10, requests),
}

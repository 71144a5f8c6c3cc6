"""The simulators that `bench.eviction` compares with: what each keeps, worked out by hand; and its traces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from bench import traces
from bench.policies import POLICIES, Lru, Policy, S3Fifo, Sieve, WTinyLfu
from bench.traces import TRACES


def hits(policy: Policy, keys: str) -> str:
    """`x` for each hit, `.` for each miss, of keys that are letters."""
    return "".join("x" if policy.request(ord(key)) else "." for key in keys)


def test_lru() -> None:
    # The c takes the place of b, as a was read; then b that of a.
    assert hits(Lru(2), "abacbca") == "..x..x."


def test_sieve() -> None:
    # a and b are there, a was read.  For c the hand takes the mark of a, and b goes.
    assert hits(Sieve(2), "abac") == "..x."
    policy = Sieve(2)
    hits(policy, "abac")
    assert hits(policy, "ac") == "xx"
    assert hits(policy, "d") == ".", "the hand takes the marks of a and c, comes round, and then a goes"
    assert hits(policy, "cd") == "xx"
    assert hits(policy, "a") == "."


def test_s3_fifo() -> None:
    # Ten items: the small queue has room for one of them.  What was read twice in it moves to the main one.
    policy = S3Fifo(10)
    assert hits(policy, "aaa") == ".xx"
    assert hits(policy, "bcdefghij") == "." * 9
    assert hits(policy, "k") == ".", "a moves on, and b leaves, unread"
    assert hits(policy, "a") == "x"
    assert hits(policy, "b") == ".", "it is remembered, comes to the main queue, and c leaves"
    assert hits(policy, "klmnopqrst") == "x........."
    assert hits(policy, "ab") == "xx", "ten that nobody read again have not moved them"


def test_w_tiny_lfu() -> None:
    # A window of one item, and nine others.  Whoever leaves the window needs more requests than the oldest of them.
    policy = WTinyLfu(10)
    assert hits(policy, "aabbccddeeffgghhii") == ".x" * 9
    assert hits(policy, "jklmnop") == "." * 7, "none of them was asked for twice"
    assert hits(policy, "abcdefghi") == "x" * 9
    assert hits(policy, "jjjjjj") == ".xxxxx"
    assert hits(policy, "k") == ".", "j leaves the window, and has been asked for more often"
    assert hits(policy, "j") == "x"


@pytest.mark.parametrize("kind", POLICIES)
def test_each_keeps_as_many_as_it_may(kind: Callable[[int], Policy]) -> None:
    """A set that fits is never missed again, and of twice as many at most half can be hits."""
    policy = kind(100)
    for turn in range(5):
        found = sum(policy.request(key) for key in range(90))
        assert found == (90 if turn else 0) or kind is WTinyLfu
    assert found == 90
    rng = random.Random(1)
    policy = kind(100)
    assert 0.4 < sum(policy.request(rng.randrange(200)) for _ in range(20_000)) / 20_000 < 0.55


@pytest.mark.parametrize("title", TRACES)
def test_a_trace_is_always_the_same(title: str) -> None:
    def made() -> Iterator[int]:
        return TRACES[title](20_000, 1000)

    first = list(made())
    assert first == list(made())
    assert len(first) >= 10_000
    assert len(set(first)) > 1000


def test_what_is_popular() -> None:
    keys = list(islice(traces.zipf(0.9, 200_000, keys=1000), 200_000))
    assert keys.count(0) / keys.count(9) == pytest.approx(10**0.9, rel=0.1)
    shifting = list(traces.zipf_that_shifts(2000, keys=1000))
    turn = traces.TURN * 1000 // traces.KEYS
    assert max(set(shifting[:turn]), key=shifting[:turn].count) == 0
    last = shifting[-turn:]
    assert max(set(last), key=last.count) > 0
    scans = list(traces.zipf_with_scans(2000, keys=1000))
    assert len([key for key in scans if key >= 1000]) == len({key for key in scans if key >= 1000}) == 1000

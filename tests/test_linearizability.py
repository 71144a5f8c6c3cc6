"""The checker of histories on histories that are known to be good or bad, and a part of the campaign."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from building import CannotBuildError
from campaigns.linearizability import CAMPAIGN, linearizability
from campaigns.not_atomic import BREAKING, show
from checker import CONDITION, FULL, MISSING, NEVER, OK, Item, Operation, UndecidedError, apply, explain, histories_in

pytestmark = pytest.mark.slow

A, B, C = 0, 1, 2


def get(client: int, begin: int, end: int, key: int, value: int, version: int = -1) -> Operation:
    """A version that does not matter is that of the value: tests give later writes greater values."""
    return Operation(client, begin, end, "get", OK, 0, (key,), (), (value,), (value if version < 0 else version,))


def put(client: int, begin: int, end: int, key: int, value: int) -> Operation:
    return Operation(client, begin, end, "put", OK, 0, (key,), (value,))


def one(
    kind: str, client: int, begin: int, end: int, key: int, status: int = OK, value: int = 0, argument: int = 0
) -> Operation:
    return Operation(client, begin, end, kind, status, argument, (key,), (value,))


def incr(client: int, begin: int, end: int, key: int, added: int, result: int) -> Operation:
    return Operation(client, begin, end, "incr", OK, 0, (key,), (added,), (result,))


def put_many(client: int, begin: int, end: int, items: dict[int, int]) -> Operation:
    return Operation(client, begin, end, "put_many", OK, 0, tuple(items), tuple(items.values()))


def get_many(client: int, begin: int, end: int, items: dict[int, int]) -> Operation:
    values = tuple(items.values())
    return Operation(client, begin, end, "get_many", OK, 0, tuple(items), (), values, values)


def delete_many(client: int, begin: int, end: int, keys: tuple[int, ...], removed: int) -> Operation:
    return Operation(client, begin, end, "delete_many", OK, removed, keys, (0,) * len(keys))


GOOD = {
    "nothing": [],
    "one after the other": [put(1, 1, 2, A, 5), get(2, 3, 4, A, 5), one("delete", 1, 5, 6, A), get(2, 7, 8, A, 0)],
    "a read beside a write may see it or not": [put(1, 1, 6, A, 5), get(2, 2, 3, A, 0), get(2, 4, 5, A, 5)],
    "writes beside each other in either order": [put(1, 1, 4, A, 5), put(2, 2, 3, A, 6), get(3, 5, 6, A, 5, 9)],
    "a killed write that happened late": [
        put(1, 1, NEVER, A, 9), put(2, 2, 3, A, 5), get(2, 4, 5, A, 5), get(2, 6, 7, A, 9)],
    "a killed write that never happened": [put(1, 1, NEVER, A, 9), get(2, 2, 3, A, 0), get(2, 4, 5, A, 0)],
    "a killed addition that happened": [incr(1, 1, NEVER, A, 7, 0), incr(2, 2, 3, A, 1, 1), incr(2, 4, 5, A, 1, 9)],
    "a killed batch that happened": [
        put_many(1, 1, NEVER, {A: 5, B: 6}), get_many(2, 2, 3, {A: 0, B: 0}), get_many(2, 4, 5, {A: 5, B: 6})],
    "additions": [incr(1, 1, 4, A, 1, 2), incr(2, 2, 3, A, 1, 1), get(1, 5, 6, A, 2)],
    "of two that add one is refused": [
        one("add", 1, 1, 4, A, CONDITION, 5), one("add", 2, 2, 3, A, OK, 6), get(1, 5, 6, A, 6)],
    "a cas with the version that was read": [
        put(1, 1, 2, A, 5), get(1, 3, 4, A, 5, 11), one("cas", 1, 5, 6, A, OK, 7, 11), get(1, 7, 8, A, 7, 12)],
    "a cas with an old version": [
        put(1, 1, 2, A, 5), get(1, 3, 4, A, 5, 11), put(2, 5, 6, A, 6), one("cas", 1, 7, 8, A, CONDITION, 7, 11)],
    "a write that found no room": [put(1, 1, 2, A, 5), one("put", 1, 3, 4, A, FULL, 6), get(1, 5, 6, A, 5)],
    "a batch and a snapshot": [
        put_many(1, 1, 4, {A: 5, B: 6}), get_many(2, 2, 3, {A: 5, B: 6}), delete_many(1, 5, 6, (A, C), 1),
        get_many(2, 7, 8, {A: 0, B: 6, C: 0})],
    "keys that nothing joins": [put(1, 1, 2, A, 5), put(2, 3, 4, B, 6), get(1, 5, 6, B, 6), get(2, 7, 8, A, 5)],
}  # fmt: skip

BAD = {
    "a stale read": [put(1, 1, 2, A, 5), put(1, 3, 4, A, 6), get(2, 5, 6, A, 5)],
    "a read that goes back": [put(1, 1, 8, A, 5), get(2, 2, 3, A, 5), get(2, 4, 5, A, 0)],
    "two readers see two writes in two orders": [
        put(1, 1, 10, A, 5), put(2, 2, 11, A, 6),
        get(3, 3, 4, A, 5, 21), get(4, 5, 6, A, 6, 22), get(3, 7, 8, A, 5, 21)],
    "a read of the future": [get(1, 1, 2, A, 5), put(2, 3, 4, A, 5)],
    "a value that nobody wrote": [put(1, 1, 2, A, 5), get(2, 3, 4, A, 7)],
    "a lost write": [put(1, 1, 2, A, 5), get(2, 3, 4, A, 0)],
    "a lost update": [put(1, 1, 2, A, 10), incr(1, 3, 6, A, 1, 11), incr(2, 4, 5, A, 1, 11)],
    "two have added": [one("add", 1, 1, 4, A, OK, 5), one("add", 2, 2, 3, A, OK, 6)],
    "two have replaced one version": [
        put(1, 1, 2, A, 5), get(1, 3, 4, A, 5, 11), get(2, 3, 5, A, 5, 11),
        one("cas", 1, 6, 9, A, OK, 7, 11), one("cas", 2, 7, 8, A, OK, 8, 11)],
    "a cas that was refused without a reason": [
        put(1, 1, 2, A, 5), get(1, 3, 4, A, 5, 11), one("cas", 1, 5, 6, A, CONDITION, 7, 11)],
    "one item with two versions": [put(1, 1, 2, A, 5), get(2, 3, 4, A, 5, 11), get(2, 5, 6, A, 5, 12)],
    "a version that goes back": [
        put(1, 1, 2, A, 5), get(2, 3, 4, A, 5, 12), put(1, 5, 6, A, 6), get(2, 7, 8, A, 6, 11)],
    "two have deleted": [put(1, 1, 2, A, 5), one("delete", 1, 3, 6, A, OK), one("delete", 2, 4, 5, A, OK)],
    "a delete that missed": [put(1, 1, 2, A, 5), one("delete", 1, 3, 4, A, MISSING)],
    "a torn batch": [put_many(1, 1, 4, {A: 5, B: 6}), get_many(2, 2, 3, {A: 5, B: 0})],
    "a batch whose keys appear one after the other": [
        put_many(1, 1, 6, {A: 5, B: 6}), get(2, 2, 3, A, 5), get(2, 4, 5, B, 0)],
    "a killed batch of which half is there": [
        put_many(1, 1, NEVER, {A: 5, B: 6}), get(2, 2, 3, A, 5), get(2, 4, 5, B, 0)],
    "a killed write that happened twice": [
        put(1, 1, NEVER, A, 5), get(2, 2, 3, A, 5), one("delete", 2, 4, 5, A), get(2, 6, 7, A, 5)],
    "a snapshot of two instants": [
        put(1, 1, 2, A, 5), put(1, 3, 4, B, 6), get_many(2, 1, 5, {A: 0, B: 6})],
    "a batch that removed too many": [put(1, 1, 2, A, 5), delete_many(1, 3, 4, (A, B), 2)],
    "a write that found no room and was made": [one("put", 1, 1, 2, A, FULL, 6), get(1, 3, 4, A, 6)],
    "a joined key under many others": [
        put_many(1, 1, 2, {A: 5, B: 6}), put_many(1, 3, 4, {B: 7, C: 8}), get(2, 5, 6, A, 0)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_histories(name: str) -> None:
    assert explain(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_bad_histories(name: str) -> None:
    fault = explain(BAD[name])
    assert fault is not None
    assert "can be placed" in fault


def test_the_search_is_bounded() -> None:
    """Twenty writes at once, and a value that none of them wrote: more orders than can be tried."""
    many = [put(i, 1 + i, 100 + i, A, 1 + i) for i in range(20)] + [get(A, 200, 201, A, 99)]
    with pytest.raises(UndecidedError):
        explain(many, steps=10_000)


def test_reading_what_the_recorder_writes() -> None:
    text = "history 7\n2 1 4 put_many 0 0 0,2 1000,2000 - -\n3 2 0 cas 0 12 1 3000 - -\nend\nhistory 8\nend\n"
    first, second = histories_in(text)
    assert (first.seed, second.seed, second.operations) == (7, 8, [])
    assert first.operations[0] == Operation(2, 1, 4, "put_many", OK, 0, (0, 2), (1000, 2000))
    assert first.operations[1] == Operation(3, 2, NEVER, "cas", OK, 12, (1,), (3000,))


# ---- Against all orders of small histories ---------------------------------------------------------


def ordered(operations: tuple[Operation, ...]) -> bool:
    """No operation comes after one that had begun when it was over already."""
    return not any(
        later.end != NEVER and later.end < earlier.begin for earlier, later in itertools.combinations(operations, 2)
    )


def possible(operations: tuple[Operation, ...]) -> bool:
    items = {key: Item() for key in (A, B)}
    for operation in operations:
        after = apply(tuple(items[key] for key in operation.keys), operation)
        if after is None:
            return False
        items.update(zip(operation.keys, after, strict=True))
    return True


def linearizable_by_trying_all(operations: list[Operation]) -> bool:
    answered = [operation for operation in operations if operation.end != NEVER]
    killed = [operation for operation in operations if operation.end == NEVER]
    for count in range(len(killed) + 1):
        for some in itertools.combinations(killed, count):
            for order in itertools.permutations([*answered, *some]):
                if ordered(order) and possible(order):
                    return True
    return False


def random_history(rng: random.Random) -> list[Operation]:
    """Up to six operations with answers that are likely enough to fit."""
    times = iter(rng.sample(range(1, 20), 12))
    history = []
    for client in range(rng.randrange(2, 7)):
        begin, end = sorted((next(times), next(times)))
        key, value = rng.choice((A, B)), rng.randrange(1, 4)
        make = rng.choice(
            [
                lambda b, e, c=client, k=key, v=value: put(c, b, e, k, v),
                lambda b, e, c=client, k=key, v=value: get(c, b, e, k, rng.choice((0, v)), 0),
                lambda b, e, c=client, k=key: one("delete", c, b, e, k, rng.choice((OK, MISSING))),
                lambda b, e, c=client, k=key, v=value: one("add", c, b, e, k, rng.choice((OK, CONDITION)), v),
                lambda b, e, c=client, k=key: incr(c, b, e, k, 1, rng.randrange(1, 4)),
                lambda b, e, c=client, v=value: put_many(c, b, e, {A: v, B: v}),
                lambda b, e, c=client, v=value: get_many(c, b, e, {A: rng.choice((0, v)), B: v})._replace(
                    versions=(0, 0)
                ),
            ]
        )
        history.append(make(begin, NEVER if rng.random() < 0.15 else end))
    return history


def test_the_search_finds_what_trying_all_orders_finds(rng: random.Random) -> None:
    good = 0
    for _ in range(1500):
        history = random_history(rng)
        expected = linearizable_by_trying_all(history)
        assert (explain(history) is None) == expected, "\n".join(map(str, history))
        good += expected
    assert 150 < good < 1350, "both kinds are common"


# ---- The store -------------------------------------------------------------------------------------


def test_recorded_histories_are_linearizable(tmp_path: Path, seed: int) -> None:
    if CAMPAIGN.missing():
        pytest.skip(f"needs the Debian packages {' '.join(CAMPAIGN.missing())}")
    try:
        figures = linearizability(tmp_path, seed, {"points": 200, "plain": 40})
    except CannotBuildError as error:
        pytest.skip(str(error))
    print(figures)
    assert figures["histories"] >= 240
    assert figures["operations"] >= 45_000
    assert figures["overlapping_operations"] >= 4_000
    assert figures["killed_operations"] >= 25
    assert figures["histories_undecided"] == 0


def test_a_store_that_is_not_atomic_is_found_out(tmp_path: Path, seed: int) -> None:
    mutant = random.Random(f"{seed}:not atomic").choice(BREAKING)
    try:
        print(f"{mutant.name}: {show(mutant, 1, tmp_path)[:300]}")
    except CannotBuildError as error:
        pytest.skip(str(error))

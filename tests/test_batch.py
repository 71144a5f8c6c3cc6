"""put_many, get_many, delete_many: all or none, at every instant, for every reader."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from helpers import MIB, Forked, SharedInts, check, repr_without_address

from shmkv import BatchTooLargeError, Store, ValueTooLargeError

BATCH_LIMIT = 65_536


def test_put_many_takes_mappings_pairs_and_generators(store: Store) -> None:
    assert store.put_many({"a": 1, b"a": 2}) is None
    store.put_many([("b", 3), ["c", 4]])  # type: ignore[list-item]
    store.put_many((f"g{i}", i) for i in range(3))
    store.put_many([])
    store.put_many({})
    assert dict(store) == {"a": 1, b"a": 2, "b": 3, "c": 4, "g0": 0, "g1": 1, "g2": 2}


class OnlyKeys:
    """No Mapping, but dict.update() takes it."""

    def keys(self) -> list[str]:
        return ["a", "b"]

    def __getitem__(self, key: str) -> str:
        return key * 2


class FailingKeys(OnlyKeys):
    def keys(self) -> list[str]:
        raise LookupError("no keys today")


class FailingValues(OnlyKeys):
    def __getitem__(self, key: str) -> str:
        raise LookupError("no value today")


def test_put_many_takes_what_has_keys(store: Store) -> None:
    store.put_many(OnlyKeys())  # type: ignore[arg-type]
    assert dict(store) == {"a": "aa", "b": "bb"}
    for failing in (FailingKeys(), FailingValues()):
        with pytest.raises(LookupError, match="today"):
            store.put_many(failing)  # type: ignore[arg-type]


def test_put_many_takes_subclasses_and_views(store: Store) -> None:
    store.put_many(OrderedDict(a=1))
    store.put_many({"b": 2}.items())
    store.put_many(MappingProxyType({"c": 3}))
    store.put_many(defaultdict(int, d=4))
    store.put_many(deque([("e", 5)]))
    assert dict(store) == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def test_a_generator_of_any_length_keeps_its_items(make_store: Any) -> None:
    """The arrays of a batch grow while it is taken, with values that lie in them, in objects and elsewhere."""
    store = make_store(size=128 * MIB)
    values: list[Any] = [None, 2.5, [1], "text", {"a": [1, 2, 3] * 10}, 2**70]
    for count in (1, 15, 5_000, 7_000, 40_000):
        expected = {f"{i}": values[i % len(values)] for i in range(count)}
        store.put_many((f"{i}", values[i % len(values)]) for i in range(count))
        assert store.get_many(expected) == expected


def test_get_many(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(1000)})
    assert store.get_many(f"{i}" for i in range(0, 2000, 2)) == {f"{i}": i for i in range(0, 1000, 2)}
    assert store.get_many(["1", "1", "x"]) == {"1": 1}
    assert store.get_many([]) == {} == store.get_many(iter(()))
    assert store.get_many({"1": None, "2": None}) == {"1": 1, "2": 2}


def test_delete_many(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(1000)})
    assert store.delete_many(f"{i}" for i in range(900, 1100)) == 100
    assert store.delete_many(["0", "0", "1", "x"]) == 2
    assert store.delete_many([]) == 0
    assert len(store) == 898


def test_the_last_of_equal_keys_wins(store: Store) -> None:
    store.put_many([("a", 1), ("b", 0), ("a", 2), ("a", 3)])
    assert dict(store) == {"a": 3, "b": 0}
    store.put_many([(f"{i % 7}", i) for i in range(10_000)])
    assert all(store[f"{i}"] == max(n for n in range(9990, 10_000) if n % 7 == i) for i in range(7))


@pytest.mark.parametrize("call", ["put_many", "delete_many", "get_many"])
@pytest.mark.parametrize("argument", [5, None, object()], ids=repr_without_address)
def test_what_is_not_iterable(store: Store, call: str, argument: Any) -> None:
    with pytest.raises(TypeError):
        getattr(store, call)(argument)


@pytest.mark.parametrize(
    "pairs", [[("a", 1), 5], [("a", 1), ("b",)], [("a", 1), ("b", 2, 3)], [("a", 1), "x"]], ids=repr_without_address
)
def test_what_is_no_pair(store: Store, pairs: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        store.put_many(pairs)
    assert len(store) == 0


def test_one_bad_item_and_nothing_is_stored(store: Store) -> None:
    store["a"] = "before"
    for bad in (("k", object()), (5, 1), ("x" * 70_000, 1), ("\ud800", 1)):
        with pytest.raises((TypeError, ValueError)):
            store.put_many([("a", 1), ("b", 2), bad, ("c", 3)])
        assert dict(store) == {"a": "before"}


def test_a_generator_that_raises(store: Store) -> None:
    def pairs() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise RuntimeError("from the generator")

    with pytest.raises(RuntimeError, match="from the generator"):
        store.put_many(pairs())
    with pytest.raises(RuntimeError, match="from the generator"):
        store.get_many(key for key, _ in pairs())
    with pytest.raises(RuntimeError, match="from the generator"):
        store.delete_many(key for key, _ in pairs())
    assert len(store) == 0


def test_a_generator_that_uses_the_store(store: Store) -> None:
    def pairs() -> Iterator[tuple[str, int]]:
        for i in range(100):
            store.put_many({"inner": i, "other": i})
            yield f"{i}", store["inner"]

    store.put_many(pairs())
    assert store["99"] == 99
    assert len(store) == 102
    assert store.delete_many(key for key in store) == 102


def test_a_batch_may_have_65536_keys(make_store: Any) -> None:
    store = make_store(size=128 * MIB)
    full = {f"{i}": i for i in range(BATCH_LIMIT)}
    store.put_many(full)
    assert len(store) == BATCH_LIMIT
    assert store.get_many(full) == full
    one_more = [*full, "one more"]
    store["one more"] = 1
    with pytest.raises(BatchTooLargeError) as refused:
        store.put_many((key, -1) for key in one_more)
    assert isinstance(refused.value, ValueError)
    with pytest.raises(BatchTooLargeError):
        store.delete_many(one_more)
    assert len(store) == BATCH_LIMIT + 1
    assert store["0"] == 0
    assert store.delete_many(full) == BATCH_LIMIT
    assert dict(store) == {"one more": 1}


def test_a_batch_may_take_a_quarter_of_the_store(make_store: Any) -> None:
    store = make_store(size=16 * MIB)
    store.put_many({f"{i}": b"x" * MIB for i in range(3)} | {"rest": b"x" * (MIB - 64 * 1024)})
    before = dict(store)
    with pytest.raises(BatchTooLargeError):
        store.put_many({f"{i}": b"y" * MIB for i in range(5)})
    with pytest.raises((ValueTooLargeError, BatchTooLargeError)):
        store.put_many({"0": b"y", "1": b"y" * (5 * MIB)})
    assert dict(store) == before


@pytest.mark.parametrize(
    "value", [bytes(1_000_000), [bytes(1_000_000)], list(range(112_000))], ids=["bytes", "list", "ints"]
)
def test_a_generator_is_taken_until_it_is_too_much(make_store: Any, value: Any) -> None:
    store = make_store(size=16 * MIB)
    taken = []

    def pairs() -> Iterator[tuple[str, Any]]:
        for i in range(40):
            taken.append(i)
            yield f"{i}", value

    with pytest.raises(BatchTooLargeError, match=r"a batch of 50\d{5} bytes"):
        store.put_many(pairs())
    assert len(taken) == 5
    assert len(store) == 0


def test_a_value_that_is_too_large_is_told_before_a_batch_that_is(make_store: Any) -> None:
    store = make_store(size=16 * MIB)
    items: dict[str, Any] = {f"{i}": bytes(MIB) for i in range(5)} | {"large": bytes(5 * MIB)}
    for given in (items, list(items.items()), items.items(), OrderedDict(items)):
        with pytest.raises(ValueTooLargeError, match=f"a value of {5 * MIB} bytes"):
            store.put_many(given)
    assert len(store) == 0


def test_values_of_all_sizes_in_one_batch(store: Store) -> None:
    batch = {f"{size}": bytes([size % 251]) * size for size in range(0, 200_000, 1973)}
    for _ in range(3):
        store.put_many(batch)
        assert store.get_many(batch) == batch
        batch = {key: value[1:] + b"z" for key, value in batch.items()}


def test_update_is_atomic_up_to_the_limit(store: Store) -> None:
    store["a"] = 1
    with pytest.raises(TypeError):
        store.update([("a", 2), ("b", object())])
    assert dict(store) == {"a": 1}


# ---- All or none under concurrent readers ------------------------------------------------------

KEYS = [f"account:{i}" for i in range(60)]


def transfer(store: Store, rounds: int, me: int) -> None:
    """Write batches whose values add up to 0 and carry one stamp."""
    for number in range(rounds):
        amounts = [(me * 7919 + number * 31 + i) % 1000 for i in range(len(KEYS) - 1)]
        amounts.append(-sum(amounts))
        stamp = me * 1_000_000 + number
        store.put_many({key: (stamp, amount, "x" * (stamp % 50)) for key, amount in zip(KEYS, amounts, strict=False)})


def see_whole_batches(store: Store) -> None:
    got = store.get_many(KEYS)
    assert len(got) == len(KEYS), f"{len(got)} of {len(KEYS)} keys"
    assert len({stamp for stamp, _, _ in got.values()}) == 1, "two batches mixed"
    assert sum(amount for _, amount, _ in got.values()) == 0


def test_readers_see_whole_batches(store: Store) -> None:
    transfer(store, 1, 0)
    done = SharedInts(1)

    def read() -> int:
        rounds = 0
        while not done[0] or rounds < 5:
            see_whole_batches(store)
            rounds += 1
        return rounds

    readers = [Forked(read), Forked(read)]
    writers = [Forked(transfer, store, 1200, me) for me in (1, 2)]
    for writer in writers:
        writer.result()
    done[0] = 1
    assert all(reader.result() for reader in readers)
    see_whole_batches(store)


def test_readers_in_threads_see_whole_batches(store: Store) -> None:
    transfer(store, 1, 0)
    stop = threading.Event()
    faults: list[BaseException] = []

    def read() -> None:
        try:
            while not stop.is_set():
                see_whole_batches(store)
        except BaseException as fault:
            faults.append(fault)

    def write(me: int) -> None:
        try:
            transfer(store, 400, me)
        except BaseException as fault:
            faults.append(fault)

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(me,)) for me in (1, 2, 3)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join(60)
    stop.set()
    for thread in readers:
        thread.join(60)
    assert not faults, faults[0]
    assert not any(thread.is_alive() for thread in readers + writers)


def test_one_key_at_a_time_never_goes_back(store: Store) -> None:
    """A reader that saw batch n in one key sees batch n or a later one in every other."""
    store.put_many(dict.fromkeys(KEYS, 0))
    done = SharedInts(1)

    def write() -> None:
        for number in range(1, 3000):
            store.put_many(dict.fromkeys(KEYS, number))
        done[0] = 1

    def read() -> None:
        newest = 0
        while not done[0]:
            for key in KEYS:
                number = store[key]
                assert number >= newest, f"{key} showed {number} after {newest} had been seen"
                newest = number

    children = [Forked(write), Forked(read), Forked(read)]
    for child in children:
        child.result()


@pytest.mark.parametrize("how", ["delete_many", "clear"])
def test_delete_many_and_clear_take_all_at_once(store: Store, how: str) -> None:
    done = SharedInts(1)

    def write() -> None:
        for number in range(800):
            store.put_many(dict.fromkeys(KEYS, number))
            if how == "clear":
                store.clear()
            else:
                assert store.delete_many(KEYS) == len(KEYS)
        done[0] = 1

    def read() -> set[int]:
        seen = set()
        while not done[0]:
            got = store.get_many(KEYS)
            assert len(got) in (0, len(KEYS))
            assert len(set(got.values())) <= 1
            seen.add(len(got))
        return seen

    children = [Forked(write), Forked(read), Forked(read)]
    for child in children:
        child.result()
    assert len(store) == 0
    check(store)


def test_batches_over_each_other_never_mix(store: Store) -> None:
    """Batches of several processes that share some keys: the shared part is always of one writer."""
    ranges = {me: [f"k{i}" for i in range(me * 20, me * 20 + 60)] for me in range(3)}
    shared = [f"k{i}" for i in range(40, 60)]
    store.put_many({f"k{i}": (0, 0) for i in range(100)})

    def write(me: int) -> None:
        for number in range(700):
            store.put_many(dict.fromkeys(ranges[me], (me, number)))
            got = store.get_many(shared)
            assert len(got) == len(shared)
            assert len(set(got.values())) == 1

    children = [Forked(write, me) for me in ranges]
    for child in children:
        child.result()


def test_growth_during_batches(make_store: Any) -> None:
    """Batches of new keys, so that tables and the region grow under them, beside readers."""
    store = make_store(size=256 * MIB)
    done = SharedInts(2)

    def write(me: int) -> None:
        for number in range(60):
            store.put_many({f"{me}:{number}:{i}": number for i in range(500)})
        done[me] = 1

    def read() -> None:
        deadline = time.monotonic() + 50
        number = 0
        while not all(done) and time.monotonic() < deadline:
            got = store.get_many(f"0:{number}:{i}" for i in range(500))
            assert len(got) in (0, 500)
            number += bool(got)

    children = [Forked(write, 0), Forked(write, 1), Forked(read)]
    for child in children:
        child.result()
    assert len(store) == 60_000


def test_a_batch_that_finds_no_room_changes_nothing(make_store: Any) -> None:
    import shmkv

    store = make_store(size="4MiB")
    store.put_many({f"{i}": b"x" * 1000 for i in range(500)})
    kept = dict(store)
    refused = 0
    for turn in range(20):
        batch = {f"{turn}:{i}": b"y" * 4000 for i in range(200)} | {"0": b"changed"}
        try:
            store.put_many(batch)
            kept.update(batch)
        except shmkv.StoreFullError:
            refused += 1
        assert dict(store) == kept
    assert refused

"""scan and range: what is present throughout appears exactly once; range is a sorted list."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from helpers import Forked, SharedInts

from shmkv import Store

Key = str | bytes


def raw(key: Key) -> bytes:
    return key.encode() if isinstance(key, str) else key


def expected_range(
    items: dict[Key, Any], start: Key | None, stop: Key | None, limit: int | None, reverse: bool
) -> list[tuple[Key, Any]]:
    """What range must answer, by the shortest way there is."""
    bound = start if start is not None else stop
    chosen = [
        (key, value)
        for key, value in items.items()
        if (bound is None or type(key) is type(bound))
        and (start is None or raw(key) >= raw(start))
        and (stop is None or raw(key) < raw(stop))
    ]
    chosen.sort(key=lambda item: raw(item[0]), reverse=reverse)
    return chosen if limit is None else chosen[:limit]


def random_key(rng: random.Random) -> Key:
    text = "".join(rng.choice("abäz€𝄞\0") for _ in range(rng.randrange(6)))
    return text if rng.random() < 0.7 else text.encode()


# ---- scan ------------------------------------------------------------------------------------


def test_scan_gives_every_key_once(store: Store) -> None:
    expected = [f"user:{i}" for i in range(10_000)] + [b"user:%d" % i for i in range(100)]
    store.put_many(dict.fromkeys(expected, 1))
    assert sorted(store.scan(), key=repr) == sorted(expected, key=repr)
    assert sorted(store.scan(None), key=repr) == sorted(expected, key=repr)


def test_scan_is_an_iterator(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(100)})
    keys = store.scan()
    assert iter(keys) is keys
    first = next(keys)
    rest = list(keys)
    assert sorted([first, *rest]) == sorted(f"{i}" for i in range(100))
    assert list(keys) == []


def test_a_prefix_sees_keys_of_its_own_type(store: Store) -> None:
    store.put_many(dict.fromkeys(["user:1", "user:2", "use", "users", "ä1", "", b"user:1", b"user:3", b"\xc3\xa4"], 1))
    assert sorted(store.scan("user:")) == ["user:1", "user:2"]
    assert sorted(store.scan(prefix=b"user:")) == [b"user:1", b"user:3"]
    assert sorted(store.scan("ä")) == ["ä1"]
    assert sorted(store.scan("")) == ["", "use", "user:1", "user:2", "users", "ä1"]
    assert sorted(store.scan(b"")) == [b"user:1", b"user:3", b"\xc3\xa4"]
    assert list(store.scan("x" * 70_000)) == []


@pytest.mark.parametrize("prefix", [5, 1.5, [], ("a",)], ids=repr)
def test_a_prefix_of_another_type(store: Store, prefix: Any) -> None:
    store["a"] = 1
    with pytest.raises(TypeError):
        list(store.scan(prefix))


def test_scan_of_nothing(store: Store) -> None:
    assert list(store.scan()) == [] == list(store.scan("a")) == list(store) == store.range()


@pytest.mark.parametrize("walk", ["scan", "iter", "items", "keys"])
def test_what_is_present_throughout_appears_once_while_others_write(make_store: Any, walk: str) -> None:
    """Tables grow, shrink and are rebuilt under the walk."""
    store = make_store(size="32MiB")
    stable = {f"stable:{i}" for i in range(4000)}
    store.put_many(dict.fromkeys(stable, 1))
    done = SharedInts(1)

    def churn() -> None:
        turn = 0
        while not done[0]:
            turn += 1
            store.put_many({f"churn:{i}": turn for i in range(20_000)})
            store.delete_many([f"churn:{i}" for i in range(20_000)])
            for i in range(500):
                store[f"stable:{i}"] = turn
            if turn % 3 == 0:
                store.compact()

    child = Forked(churn)
    try:
        for _ in range(25):
            match walk:
                case "items":
                    seen = [key for key, _ in store.items()]
                case "keys":
                    seen = list(store.keys())
                case "iter":
                    seen = list(store)
                case _:
                    seen = list(store.scan("stable:"))
            kept = [key for key in seen if key in stable]
            assert len(kept) == len(stable)
            assert set(kept) == stable
            assert all(isinstance(key, str) and key.startswith(("stable:", "churn:")) for key in seen)
    finally:
        done[0] = 1
    child.result()


def test_writing_between_the_steps_of_a_scan(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(3000)})
    seen = []
    for turn, key in enumerate(store.scan()):
        seen.append(key)
        store[f"new:{turn}"] = 1
        if turn % 2:
            store[key] = b"longer" * 20
    assert sorted(key for key in seen if not key.startswith("new:")) == sorted(f"{i}" for i in range(3000))
    assert len(set(seen)) == len(seen)


def test_a_scan_held_open_blocks_nobody(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(1000)})
    walk = store.scan()
    next(walk)

    def write() -> None:
        for i in range(1000):
            store[f"{i}"] = -i
        store.clear()

    child = Forked(write)
    child.result(30)
    thread = threading.Thread(target=write)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert len(list(walk)) <= 1000


# ---- range -----------------------------------------------------------------------------------


def test_range_examples(store: Store) -> None:
    store.put_many({"a": 1, "b": 2, "c": 3, b"b": 4, "ä": 5})
    assert store.range("a", "c") == [("a", 1), ("b", 2)]
    assert store.range("b") == [("b", 2), ("c", 3), ("ä", 5)]
    assert store.range(stop="b") == [("a", 1)]
    assert store.range(b"") == [(b"b", 4)] == store.range(b"a", b"c")
    assert store.range("a", "z", limit=2) == [("a", 1), ("b", 2)]
    assert store.range("a", "z", reverse=True, limit=2) == [("c", 3), ("b", 2)]
    assert store.range("c", "a") == [] == store.range("b", "b")
    assert store.range("a", limit=0) == []
    assert [raw(key) for key, _ in store.range()] == sorted(map(raw, store))


def test_mixed_bounds_are_a_type_error(store: Store) -> None:
    store["a"] = 1
    for start, stop in (("a", b"b"), (b"a", "b"), (1, 2), ("a", 2), (None, 5)):
        with pytest.raises(TypeError):
            store.range(start, stop)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [-1, "5", 1.5])
def test_limits_that_cannot_be(store: Store, limit: Any) -> None:
    store["a"] = 1
    with pytest.raises((ValueError, TypeError)):
        store.range(limit=limit)


def test_range_against_a_sorted_list(store: Store, rng: random.Random) -> None:
    items: dict[Key, Any] = {random_key(rng): n for n in range(800)}
    store.update(items)
    for _ in range(400):
        start, stop = (random_key(rng) if rng.random() < 0.7 else None for _ in range(2))
        if start is not None and stop is not None and type(start) is not type(stop):
            stop = None
        limit = rng.choice([None, None, 0, 1, 5, 50, 10_000])
        reverse = rng.random() < 0.5
        got = store.range(start, stop, limit=limit, reverse=reverse)
        expected = expected_range(items, start, stop, limit, reverse)
        # "a" and b"a" have the same bytes: their order is nobody's business
        assert [raw(key) for key, _ in got] == [raw(key) for key, _ in expected]
        if start is not None or stop is not None:
            assert got == expected
        elif limit is None:
            assert dict(got) == items


def test_range_while_others_write(store: Store) -> None:
    stable = {f"stable:{i:05d}": i for i in range(2000)}
    store.put_many(stable)
    done = SharedInts(1)

    def churn() -> None:
        while not done[0]:
            store.put_many({f"other:{i}": i for i in range(5000)})
            store.delete_many([f"other:{i}" for i in range(5000)])

    child = Forked(churn)
    try:
        for _ in range(40):
            assert store.range("stable:", "stable;") == sorted(stable.items())
            both = store.range("o")
            assert [key for key, _ in both] == sorted(key for key, _ in both)
    finally:
        done[0] = 1
    child.result()

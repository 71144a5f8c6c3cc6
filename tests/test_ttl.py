"""Time to live: expired when now >= expires_at, and what has expired is nowhere to be seen."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import PATIENCE, check, in_fork

from shmkv import Store

YEAR = 365 * 86_400


def test_gone_at_the_very_millisecond(store: Store, clock: Any) -> None:
    store.put("a", 1, ttl=1)
    store.put("b", 2, ttl=0.001)
    store.put("c", 3, ttl=dt.timedelta(seconds=2))
    store.put("d", 4)
    clock.advance(0.001)
    assert "b" not in store
    assert dict(store) == {"a": 1, "c": 3, "d": 4}
    clock.advance(0.998)
    assert store["a"] == 1
    clock.advance(0.001)
    assert store.get("a") is None
    assert dict(store) == {"c": 3, "d": 4}
    clock.advance(1)
    assert dict(store) == {"d": 4}
    clock.advance(29 * YEAR)
    assert dict(store) == {"d": 4}


def test_ttl_tells_the_seconds_left(store: Store, clock: Any) -> None:
    store.put("a", 1, ttl=10)
    left = store.ttl("a")
    assert left == 10
    assert type(left) is float
    clock.advance(2.5)
    assert store.ttl("a") == 7.5
    store["b"] = 1
    assert store.ttl("b") is None
    with pytest.raises(KeyError):
        store.ttl("missing")
    clock.advance(7.5)
    with pytest.raises(KeyError):
        store.ttl("a")


@pytest.mark.parametrize("ttl", [0, -1, -0.5, 0.0, 31 * YEAR, 1e300, float("inf"), float("nan"), -float("inf"), 10**40])
@pytest.mark.parametrize("call", ["put", "add", "put_many", "touch", "incr", "timedelta"])
def test_ttl_out_of_range(store: Store, ttl: Any, call: str) -> None:
    store["k"] = 1
    calls: dict[str, Callable[[], Any]] = {
        "put": lambda: store.put("new", 1, ttl=ttl),
        "add": lambda: store.add("new", 1, ttl=ttl),
        "put_many": lambda: store.put_many({"new": 1}, ttl=ttl),
        "touch": lambda: store.touch("k", ttl),
        "incr": lambda: store.incr("new", ttl=ttl),
        "timedelta": lambda: store.put("new", 1, ttl=dt.timedelta(seconds=ttl)),
    }
    with pytest.raises((ValueError, OverflowError) if call == "timedelta" else ValueError):
        calls[call]()
    assert dict(store) == {"k": 1}
    assert store.ttl("k") is None


@pytest.mark.parametrize("ttl", ["5", b"5", [], 1j, dt.date(2024, 1, 1)], ids=repr)
def test_ttl_of_another_type(store: Store, ttl: Any) -> None:
    with pytest.raises(TypeError):
        store.put("k", 1, ttl=ttl)
    assert len(store) == 0


def test_longest_and_shortest(store: Store, clock: Any) -> None:
    store.put("long", 1, ttl=30 * YEAR)
    assert store.ttl("long") == 30 * YEAR
    clock.advance(30 * YEAR - 1)
    assert "long" in store
    clock.advance(1)
    assert "long" not in store


@pytest.mark.parametrize("uptime", [4, 5, 12, 34, 36, 80])
def test_a_long_ttl_on_a_machine_that_is_up_for_years(store: Store, clock: Any, uptime: int) -> None:
    """A sweep drops it neither early nor late, though a slot has no room for such times."""
    clock.advance(uptime * YEAR)
    store.put_many({f"long:{i}": i for i in range(500)}, ttl=30 * YEAR)
    for step in (1, 10 * YEAR, 19 * YEAR):
        clock.advance(step)
        store.update({f"other:{i}": i for i in range(500)})
        store._sweep(10_000)
        assert store.compact().expired == 0
        assert len(store) == 1000
        check(store)
    clock.advance(YEAR - 2)
    assert store.ttl("long:0") == 1
    clock.advance(1)
    assert store.compact().expired == 500
    assert len(store) == 500


def test_a_cache_on_a_machine_that_is_up_for_years(make_store: Callable[..., Store]) -> None:
    """What is read stays before what is not, also with an expiry that a slot has no room for."""
    store = make_store(size="2MiB", on_full="evict")
    store._set_clock(40 * YEAR * 1000)
    store.put_many({f"read:{i}": bytes(100) for i in range(100)}, ttl=30 * YEAR)
    for i in range(3000):
        store.put(f"cold:{i}", bytes(1000), ttl=30 * YEAR)
        store.get_many([f"read:{i}" for i in range(100)])
    assert store.stats().evicted > 500
    assert len(store.get_many([f"read:{i}" for i in range(100)])) > 90
    store._set_clock(0)


def test_less_than_a_millisecond_is_accepted(store: Store, clock: Any) -> None:
    store.put("k", 1, ttl=0.0001)
    clock.advance(0.001)
    assert "k" not in store


def test_precise_to_a_millisecond(store: Store, clock: Any) -> None:
    for ms in (1, 2, 3, 7, 999, 1001, 123_456, 86_400_001):
        store.put("k", 1, ttl=ms / 1000)
        assert round(store.ttl("k") * 1000) == ms  # type: ignore[operator]
        store.put("k", 1, ttl=dt.timedelta(milliseconds=ms))
        assert round(store.ttl("k") * 1000) == ms  # type: ignore[operator]


def test_a_plain_put_clears_it(store: Store, clock: Any) -> None:
    writes: list[Callable[[], Any]] = [
        lambda: store.put("k", 2),
        lambda: store.__setitem__("k", 2),
        lambda: store.put_many({"k": 2}),
        lambda: store.update({"k": 2}),
        lambda: store.update(k=2),
    ]
    for write in writes:
        store.put("k", 1, ttl=5)
        write()
        assert store.ttl("k") is None
    clock.advance(6)
    assert store["k"] == 2


def test_replace_and_cas_set_what_they_are_given(store: Store, clock: Any) -> None:
    store["k"] = 1
    assert store.replace("k", 2, ttl=5)
    assert store.ttl("k") == 5
    assert store.cas("k", 3, store.gets("k").version, ttl=6)
    assert store.ttl("k") == 6
    assert store.replace("k", 4)
    assert store.ttl("k") is None


def test_touch(store: Store, clock: Any) -> None:
    assert store.touch("missing", 5) is False
    store.put("k", b"value", content_type="a/b")
    for ttl in (5, 50, 0.5, dt.timedelta(minutes=1)):
        assert store.touch("k", ttl) is True
        seconds = ttl.total_seconds() if isinstance(ttl, dt.timedelta) else ttl
        assert store.ttl("k") == seconds
        assert store["k"] == b"value"
        assert store.content_type("k") == "a/b"
    clock.advance(59.999)
    assert store.touch("k", 1) is True
    clock.advance(0.5)
    assert "k" in store
    clock.advance(0.5)
    assert store.touch("k", 1) is False
    assert "k" not in store


def test_touch_needs_a_ttl(store: Store) -> None:
    store["k"] = 1
    with pytest.raises((TypeError, ValueError)):
        store.touch("k", None)
    with pytest.raises(TypeError):
        store.touch("k")  # type: ignore[call-arg]


def test_persist(store: Store, clock: Any) -> None:
    assert store.persist("missing") is False
    store.put("k", 1, ttl=5)
    assert store.persist("k") is True
    assert store.ttl("k") is None
    clock.advance(6)
    assert store["k"] == 1
    store.put("gone", 1, ttl=5)
    clock.advance(5)
    assert store.persist("gone") is False
    assert "gone" not in store


def test_what_has_expired_is_absent_for_every_call(store: Store, clock: Any) -> None:
    def expired(key: str = "k") -> str:
        store.put(key, 41, ttl=1)
        clock.advance(1)
        return key

    assert store.get(expired()) is None
    assert expired() not in store
    assert store.get_many([expired()]) == {}
    assert store.delete(expired()) is False
    assert store.delete_many([expired()]) == 0
    assert store.pop(expired(), "default") == "default"
    assert store.replace(expired(), 1) is False
    assert store.cas(expired(), 1, 1) is False
    for raises in (store.__getitem__, store.__delitem__, store.pop, store.gets, store.ttl):
        with pytest.raises(KeyError):
            raises(expired())
    expired()
    with pytest.raises(KeyError):
        store.popitem()
    assert store.add(expired(), 1) is True
    assert store.ttl("k") is None
    assert store.setdefault(expired(), 5) == 5
    assert store.ttl("k") is None
    assert store.incr(expired()) == 1
    assert store.ttl("k") is None
    version_before = store.gets("k").version
    store.put("k", 1, ttl=1)
    version = store.gets("k").version
    clock.advance(1)
    assert store.cas("k", 2, version) is False
    assert "k" not in store
    store["k"] = 3
    assert store.gets("k").version not in (version, version_before)


def test_never_counted_and_never_shown(store: Store, clock: Any) -> None:
    for i in range(3000):
        store.put(f"{i}", i, ttl=1 + i % 3)
    for seconds, residues in ((0, {0, 1, 2}), (1, {1, 2}), (1, {2}), (1, set())):
        clock.advance(seconds)
        alive = {f"{i}": i for i in range(3000) if i % 3 in residues}
        assert store.stats().items == len(alive)
        assert len(store) == len(alive)
        assert set(store) == set(alive) == set(store.scan())
        assert dict(store.items()) == alive
        assert sorted(store.values()) == sorted(alive.values())
        assert store.range() == sorted(alive.items())
        assert store.get_many([f"{i}" for i in range(3000)]) == alive
        check(store)


def test_expired_items_make_room(make_store: Any) -> None:
    store = make_store(size="4MiB")
    now = store._now_ms()
    for turn in range(10):
        store._set_clock(now + turn * 2000)
        for i in range(1500):
            store.put(f"{turn}:{i}", b"x" * 1000, ttl=1)
    assert store.get_many([f"9:{i}" for i in range(1500)]).keys() == {f"9:{i}" for i in range(1500)}
    store._set_clock(0)


def test_compact_and_stats_count_what_expired(store: Store, clock: Any) -> None:
    before = store.stats().expired
    store.put_many({f"{i}": i for i in range(500)}, ttl=1)
    store["stays"] = 1
    clock.advance(1)
    store.compact()
    assert store.stats().expired - before == 500
    assert dict(store) == {"stays": 1}


def test_put_many_gives_all_the_same_ttl(store: Store, clock: Any) -> None:
    store["old"] = 1
    store.put_many({"old": 2, "new": 3}, ttl=2)
    assert store.ttl("old") == store.ttl("new") == 2
    clock.advance(2)
    assert len(store) == 0


def test_the_real_clock_in_another_process(store: Store) -> None:
    store.put("k", 1, ttl=0.3)
    store["stays"] = 1

    def watch() -> float:
        started = time.monotonic()
        while "k" in store:
            assert time.monotonic() - started < 20 * PATIENCE
            time.sleep(0.005)
        return time.monotonic() - started

    assert in_fork(watch) < 20 * PATIENCE
    assert "k" not in store
    assert store["stays"] == 1


def test_the_wall_clock_plays_no_part(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", 1, ttl=100)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 90 < store.ttl("k") <= 100  # type: ignore[operator]
    boot_ms = time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
    assert abs(store._now_ms() - boot_ms) < 60_000

"""The model test: random operations of all kinds against a plain dict, `check()` after each batch.

Time is the test's own (`_set_clock`), so that expiry is part of the model.  A failure prints the seed and
the last operations; `--seed` repeats it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from helpers import MIB, check

from shmkv import BatchTooLargeError, Store, StoreFullError, ValueTooLargeError

pytestmark = pytest.mark.slow

Key = str | bytes
RAISES = object()


def same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)


class Model:
    """What a store should do, in a dict of key -> (value, expires_at or None)."""

    def __init__(self, store: Store, rng: random.Random, keys: int, sizes: list[int]) -> None:
        self.store = store
        self.rng = rng
        self.key_count = keys
        self.sizes = sizes
        self.items: dict[Key, tuple[Any, int | None]] = {}
        self.versions: dict[Key, int] = {}  # as last seen by gets, while the item has not changed since
        self.old_versions: dict[Key, int] = {}
        self.now = store._now_ms()
        store._set_clock(self.now)
        self.full = 0
        self.log: list[str] = []

    # -- what is asked of the model --

    def alive(self, key: Key) -> bool:
        item = self.items.get(key)
        if item is None:
            return False
        if item[1] is not None and self.now >= item[1]:
            del self.items[key]
            self.versions.pop(key, None)
            return False
        return True

    def living(self) -> dict[Key, Any]:
        return {key: self.items[key][0] for key in list(self.items) if self.alive(key)}

    def write(self, key: Key, value: Any, expires: int | None) -> None:
        self.items[key] = (value, expires)
        self.changed(key)

    def remove(self, key: Key) -> None:
        del self.items[key]
        self.changed(key)

    def changed(self, key: Key) -> None:
        if key in self.versions:
            self.old_versions[key] = self.versions.pop(key)

    # -- random choices --

    def key(self) -> Key:
        number = self.rng.randrange(self.key_count)
        if number % 11 == 0:
            return b"bytes:%d" % number
        if number % 13 == 0:
            return f"long:{number}:" + "k" * (number * 7 % 900)
        return f"key:{number}"

    def value(self) -> Any:
        rng = self.rng
        kind = rng.randrange(12)
        if kind < 5:
            return rng.randbytes(min(rng.choice(self.sizes), 64)) + b"v" * max(0, rng.choice(self.sizes) - 64)
        if kind < 7:
            return "ä" * (rng.choice(self.sizes) // 2)
        if kind == 7:
            return rng.choice([0, 1, -1, 2**63 - 1, -(2**63), 2**63, 10**30, rng.getrandbits(62)])
        if kind == 8:
            return rng.choice([True, False, None, 1.5, float("inf"), -0.0])
        if kind == 9:
            return [rng.randrange(100) for _ in range(rng.randrange(20))]
        if kind == 10:
            return {"a": rng.randrange(100), "b": (1, "x" * rng.randrange(50)), 3: {4, 5}}
        return rng.randrange(-1000, 1000)

    def ttl(self) -> float | None:
        if self.rng.random() < 0.6:
            return None
        return self.rng.choice([0.001, 0.5, 1, 2.25, 10, 1000, 86_400 * 365 * 30])

    def expires(self, ttl: float | None) -> int | None:
        return None if ttl is None else self.now + round(ttl * 1000)

    # -- one operation on both; StoreFullError means that nothing has changed --

    def step(self) -> None:
        name = self.rng.choice(OPERATIONS)
        try:
            getattr(self, name)()
        except StoreFullError:
            self.full += 1
            self.log.append(f"{name}: full")
        del self.log[:-30]

    def do_put(self) -> None:
        key, value, ttl = self.key(), self.value(), self.ttl()
        self.log.append(f"put {key!r} {str(value)[:20]} ttl={ttl}")
        if ttl is None and self.rng.random() < 0.5:
            self.store[key] = value
        else:
            self.rng.choice([self.store.put, self.store.set])(key, value, ttl)
        self.write(key, value, self.expires(ttl))

    def do_get(self) -> None:
        key = self.key()
        self.log.append(f"get {key!r}")
        expected = self.items[key][0] if self.alive(key) else RAISES
        assert same(self.store.get(key, RAISES), expected)
        assert (key in self.store) == (expected is not RAISES)
        if expected is RAISES:
            with pytest.raises(KeyError):
                self.store[key]
        else:
            assert same(self.store[key], expected)

    def do_delete(self) -> None:
        key = self.key()
        self.log.append(f"delete {key!r}")
        was_there = self.alive(key)
        if self.rng.random() < 0.5:
            assert self.store.delete(key) is was_there
        elif was_there:
            del self.store[key]
        else:
            with pytest.raises(KeyError):
                del self.store[key]
        if was_there:
            self.remove(key)

    def do_add(self) -> None:
        key, value, ttl = self.key(), self.value(), self.ttl()
        self.log.append(f"add {key!r} ttl={ttl}")
        absent = not self.alive(key)
        assert self.store.add(key, value, ttl) is absent
        if absent:
            self.write(key, value, self.expires(ttl))

    def do_replace(self) -> None:
        key, value, ttl = self.key(), self.value(), self.ttl()
        self.log.append(f"replace {key!r} ttl={ttl}")
        present = self.alive(key)
        assert self.store.replace(key, value, ttl) is present
        if present:
            self.write(key, value, self.expires(ttl))

    def do_setdefault(self) -> None:
        key, value = self.key(), self.value()
        self.log.append(f"setdefault {key!r}")
        present = self.alive(key)
        got = self.store.setdefault(key, value)
        if present:
            assert same(got, self.items[key][0])
        else:
            assert same(got, value)
            self.write(key, value, None)

    def do_pop(self) -> None:
        key = self.key()
        self.log.append(f"pop {key!r}")
        expected = self.items[key][0] if self.alive(key) else RAISES
        assert same(self.store.pop(key, RAISES), expected)
        if expected is not RAISES:
            self.remove(key)

    def do_popitem(self) -> None:
        self.log.append("popitem")
        living = self.living()
        if not living:
            with pytest.raises(KeyError):
                self.store.popitem()
            return
        key, value = self.store.popitem()
        assert same(value, living[key])
        self.remove(key)

    def do_incr(self) -> None:
        key, ttl = self.key(), self.ttl()
        delta, initial = self.rng.choice([1, 5, -3, 0, 2**62, -(2**62)]), self.rng.choice([0, 0, 10, -7])
        self.log.append(f"incr {key!r} {delta} {initial} ttl={ttl}")
        down = self.rng.random() < 0.3
        change = -delta if down else delta
        call = self.store.decr if down else self.store.incr
        before, expires = self.items[key] if self.alive(key) else (initial, self.expires(ttl))
        if type(before) is not int:
            with pytest.raises(TypeError):
                call(key, delta, initial, ttl)
        elif not (-(2**63) <= before < 2**63 and -(2**63) <= before + change < 2**63):
            with pytest.raises(OverflowError):
                call(key, delta, initial, ttl)
        else:
            assert call(key, delta, initial, ttl) == before + change
            self.write(key, before + change, expires)

    def do_gets(self) -> None:
        key = self.key()
        self.log.append(f"gets {key!r}")
        if not self.alive(key):
            with pytest.raises(KeyError):
                self.store.gets(key)
            return
        value, version = self.store.gets(key)
        assert same(value, self.items[key][0])
        assert self.versions.setdefault(key, version) == version
        assert self.old_versions.get(key) != version

    def do_cas(self) -> None:
        key, value, ttl = self.key(), self.value(), self.ttl()
        for versions, fits in ((self.old_versions, False), (self.versions, True)):
            if key in versions:
                version = versions[key]
                self.log.append(f"cas {key!r} {fits} ttl={ttl}")
                fits = fits and self.alive(key)
                assert self.store.cas(key, value, version, ttl) is fits
                if fits:
                    self.write(key, value, self.expires(ttl))

    def do_touch(self) -> None:
        key, ttl = self.key(), self.ttl()
        self.log.append(f"touch {key!r} ttl={ttl}")
        present = self.alive(key)
        if ttl is None:
            had_ttl = present and self.items[key][1] is not None
            assert self.store.persist(key) in ({True} if had_ttl else {False, present})
        else:
            assert self.store.touch(key, ttl) is present
        if present:
            self.items[key] = (self.items[key][0], self.expires(ttl))

    def do_ttl(self) -> None:
        key = self.key()
        if not self.alive(key):
            with pytest.raises(KeyError):
                self.store.ttl(key)
            return
        expires = self.items[key][1]
        left = self.store.ttl(key)
        assert (left is None) == (expires is None)
        if left is not None and expires is not None:
            assert round(left * 1000) == expires - self.now

    def do_put_many(self) -> None:
        batch = [(self.key(), self.value()) for _ in range(self.rng.choice([0, 1, 3, 20, 120]))]
        ttl = self.ttl()
        self.log.append(f"put_many {len(batch)} ttl={ttl}")
        try:
            if ttl is None and self.rng.random() < 0.3:
                self.store.put_many(dict(batch))
            else:
                self.store.put_many(iter(batch), ttl=ttl)
        except BatchTooLargeError:
            return
        for key, value in batch:
            self.write(key, value, self.expires(ttl))

    def do_update(self) -> None:
        # small values: an update beyond the limits of a batch goes in several, each atomic for itself
        batch = {self.key(): self.rng.randrange(1000) for _ in range(5)}
        self.log.append("update 5")
        self.store.update(batch)
        for key, value in batch.items():
            self.write(key, value, None)

    def do_get_many(self) -> None:
        keys = [self.key() for _ in range(self.rng.choice([0, 1, 50]))]
        got = self.store.get_many(keys)
        expected = {key: self.items[key][0] for key in keys if self.alive(key)}
        assert got == expected
        assert all(same(got[key], expected[key]) for key in expected)

    def do_delete_many(self) -> None:
        keys = [self.key() for _ in range(self.rng.choice([0, 2, 60]))]
        self.log.append(f"delete_many {len(keys)}")
        there = {key for key in keys if self.alive(key)}
        assert self.store.delete_many(keys) == len(there)
        for key in there:
            self.remove(key)

    def do_clear(self) -> None:
        if self.rng.random() < 0.05:
            self.log.append("clear")
            self.store.clear()
            for key in list(self.items):
                self.remove(key)

    def do_scan(self) -> None:
        prefix: Any = self.rng.choice([None, "key:1", "long:", b"bytes:", "", b"", "nothing"])
        got = list(self.store.scan(prefix))
        expected = [
            key
            for key in self.living()
            if prefix is None or (type(key) is type(prefix) and key.startswith(prefix))  # type: ignore[arg-type]
        ]
        assert len(got) == len(expected)
        assert set(got) == set(expected)

    def do_range(self) -> None:
        start, stop = (self.rng.choice([None, f"key:{self.rng.randrange(100)}", "long:"]) for _ in range(2))
        limit, reverse = self.rng.choice([None, 0, 3]), self.rng.random() < 0.5
        expected = [
            (key, value)
            for key, value in self.living().items()
            if ((start is None and stop is None) or isinstance(key, str))
            and (start is None or key.encode() >= start.encode())  # type: ignore[union-attr]
            and (stop is None or key.encode() < stop.encode())  # type: ignore[union-attr]
        ]
        expected.sort(key=lambda item: item[0] if isinstance(item[0], bytes) else item[0].encode(), reverse=reverse)
        assert self.store.range(start, stop, limit, reverse) == expected[:limit]

    def do_walk(self) -> None:
        living = self.living()
        assert len(self.store) == len(living) == self.store.stats().items
        assert dict(self.store.items()) == living

    def do_time(self) -> None:
        self.now += self.rng.choice([0, 1, 300, 1000, 5000])
        self.store._set_clock(self.now)

    def do_compact(self) -> None:
        if self.rng.random() < 0.1:
            self.log.append("compact")
            self.store.compact()

    def verify(self) -> None:
        check(self.store)
        living = self.living()
        got = dict(self.store)
        assert got.keys() == living.keys()
        assert all(same(got[key], living[key]) for key in living)


WEIGHTS = {
    "do_put": 12, "do_get": 6, "do_delete": 4, "do_add": 3, "do_replace": 3, "do_setdefault": 2, "do_pop": 2,
    "do_popitem": 1, "do_incr": 4, "do_gets": 4, "do_cas": 4, "do_touch": 4, "do_ttl": 2, "do_put_many": 2,
    "do_update": 1, "do_get_many": 2, "do_delete_many": 1, "do_clear": 1, "do_scan": 1, "do_range": 1,
    "do_walk": 1, "do_time": 2, "do_compact": 1,
}  # fmt: skip
OPERATIONS = [name for name, weight in WEIGHTS.items() for _ in range(weight)]


def run(model: Model, batches: int, steps: int) -> None:
    model.store._set_clock(model.now)
    try:
        for _ in range(batches):
            for _ in range(steps):
                model.step()
            model.verify()
    except BaseException:
        print(*model.log, sep="\n")
        raise
    finally:
        model.store._set_clock(0)


@pytest.mark.parametrize("number", range(12))
def test_in_a_store_that_is_always_full(make_store: Callable[..., Store], rng: random.Random, number: int) -> None:
    """Small enough to grow, fill, compact and refuse all the time."""
    store = make_store(size=rng.choice([MIB, 2 * MIB, 3 * MIB]))
    sizes = rng.choice([[10, 50, 200], [1000, 5000], [100, 20_000, 60_000], [300, 3000, 100_000]])
    model = Model(store, rng, keys=rng.choice([200, 3000, 20_000]), sizes=sizes)
    run(model, batches=8, steps=250)
    filler = 0
    store._set_clock(model.now)
    try:
        while True:
            store.put(f"filler:{filler}", b"f" * sizes[0])
            model.write(f"filler:{filler}", b"f" * sizes[0], None)
            filler += 1
    except StoreFullError:
        pass
    model.verify()
    run(model, batches=3, steps=250)
    assert model.full or filler


@pytest.mark.parametrize("number", range(4))
def test_growth_and_shrinkage(make_store: Callable[..., Store], rng: random.Random, number: int) -> None:
    """Tens of thousands of items come and go, so that tables grow again and again."""
    store = make_store(size=32 * MIB)
    model: dict[str, int] = {}
    for turn in range(4):
        for i in range(12_000):
            key = f"{rng.randrange(40_000)}"
            model[key] = store[key] = turn * 100_000 + i
        for key in rng.sample(sorted(model), len(model) * rng.choice([1, 5, 9]) // 10):
            assert store.pop(key) == model.pop(key)
        if turn % 2:
            store.compact()
        assert len(store) == len(model)
        assert dict(store) == model
        check(store)


def test_limits_are_known_before_anything_is_written(make_store: Callable[..., Store]) -> None:
    store = make_store(size=2 * MIB)
    store["k"] = 1
    for size in (MIB // 2 + 1, MIB, 4 * MIB):
        with pytest.raises(ValueTooLargeError):
            store["k"] = b"x" * size
        with pytest.raises((ValueTooLargeError, BatchTooLargeError)):
            store.put_many({"k": 2, "l": b"x" * size})
    assert dict(store) == {"k": 1}

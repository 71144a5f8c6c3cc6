"""The machine: every call of `Store`, by several handles and processes on one store, each compared with the model.

How: a rule draws a call, its arguments and who makes it.  The store performs it, then the model; both must return the
     same, or raise the same.  An error changes nothing in the model, so that a change in the store would be seen later.
     The clock is the test's own, in all processes at once; it jumps by days as after a sleep of the machine, and
     the time of day of the spawned peer jumps to and fro, which no call may notice.
"""

from __future__ import annotations

import functools
import os
import pickle
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any, ClassVar
from unittest import mock
from zoneinfo import ZoneInfo

import helpers
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from machine.actors import Child, Local, Remote, Spawned
from machine.calls import Outcome, perform, same, whole
from machine.model import MISSING, Model

from shmkv import BatchTooLargeError, ClosedStoreError, CodecError, ReadOnlyStoreError, Store, StoreFullError

DAY = 86_400
YEARS = 365 * DAY * 1000  # ms

# ---- What is drawn -------------------------------------------------------------------------

KEYS: list[Any] = [
    "",
    "a",
    "b",
    "ab",
    "n1",
    "n2",
    "user:1",
    "user:2",
    "user:10",
    "ä",
    "€\0",
    "𝄞",
    "k" * 300,
    "x" * 65_535,
]
KEYS += [b"", b"a", b"b", b"n1", b"user:1", b"\xff\xfe", "ä".encode(), b"\0" * 17, b"x" * 65_535]
UNUSABLE_KEYS = [5, 1.5, None, ("a",), [1], "k" * 65_536, b"k" * 65_536, "\ud800", "ä" * 32_768, True]
PREFIXES = [None, "", "user:", "user:1", b"", b"user", "nothing", 5]
BOUNDS = [None, "", "a", "b", "user:1", "ä", b"", b"a", b"\xff"]

SMALL: list[Any] = [
    *(
        0,
        1,
        -1,
        7,
        2**31,
        2**63 - 1,
        -(2**63),
        2**63,
        -(10**30),
        True,
        False,
        None,
        0.0,
        -0.0,
        1.5,
        float("inf"),
        5e-324,
    ),
    *(b"", b"v", b"value" * 5, b"\0" * 100, b"w" * 1000, "", "text", "ä€𝄞", "long " * 200),
    *([], (), {}, set(), frozenset(), [1, [2, (3, {4})]], {"a": (1, None), 3: {b"b"}, (1, 2): [True, 1.0]}),
    *(frozenset({1, "1", b"1"}), date(2024, 2, 29), datetime(1970, 1, 1), timedelta(days=-1, microseconds=1)),
    datetime(2026, 11, 21, 12, tzinfo=timezone.utc),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris")),
    datetime(2026, 1, 1, 1, 1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
]
LARGE = [b"x" * 4_097, b"y" * 20_000, "z" * 70_000, b"l" * 100_000]
UNUSABLE_VALUES = [object(), 1j, bytearray(b"x"), [1, [object()]], {"a": 1j}, range(3)]
TTLS = [None, None, 0.0001, 0.001, 0.5, 1, 2.25, 60, DAY, timedelta(seconds=2), timedelta(days=400), 30 * 365 * DAY]
UNUSABLE_TTLS = [0, -1, 0.0, float("inf"), float("nan"), 31 * 365 * DAY, "5", [], timedelta(0)]
STEPS_OF_TIME = [1, 2, 499, 500, 1_000, 1_250, 59_000, 60_000, DAY * 1000]


def one_of(choices: list[Any]) -> st.SearchStrategy[Any]:
    """`sampled_from`, which would print all of them, long ones too, whenever it prints a rule."""

    def chosen(number: int) -> Any:
        return choices[number]

    return st.integers(0, len(choices) - 1).map(chosen)


key = one_of(KEYS)
value = one_of(SMALL)
ttl = one_of(TTLS)
keys = st.lists(key, max_size=6, unique=True)
items = st.lists(st.tuples(key, value), max_size=6)
# A call in another process takes ten times as long.
here = ["main", "main", "main", "second", "second", "pickled", "pickled"]
writer = st.sampled_from([*here, "peer", "child"])
anyone = st.sampled_from([*here, "reader", "peer", "child", "peer reader"])

leaf = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=8), st.binary(max_size=8)
)
any_value = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)

LOOKUPS = {"get", "getitem", "gets", "item in view"}
# What is called on every handle, with no argument.
WHOLE = ["len", "bool", "iterate", "keys", "items", "values"]


def step(**arguments: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule whose runs are counted."""

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def run(self: Machine, **drawn: Any) -> None:
            type(self).steps += 1
            function(self, **drawn)

        return rule(**arguments)(run)

    return decorate


def create(size: int, seed: int) -> Store:
    """A store that lays its items out in the same way each time; by itself it would take another seed."""
    real = os.urandom
    with mock.patch("os.urandom", lambda count: seed.to_bytes(8, "little") if count == 8 else real(count)):
        return Store.create(helpers.unique_name(), size=size)


class Machine(RuleBasedStateMachine):
    spawned: ClassVar[Spawned]
    steps: ClassVar[int] = 0
    checks: ClassVar[int] = 0
    full: ClassVar[int] = 0  # writes that found no room

    # ---- A store, and who uses it ------------------------------------------------------------

    @initialize(
        size=st.sampled_from([1, 2, 8, 8]),
        forks=st.sampled_from([True, False, False]),
        many=st.sampled_from([True, False, False, False]),
        seed=st.integers(0, 2**32 - 1),
    )
    def begin(self, size: int, forks: bool, many: bool, seed: int) -> None:
        self.main = create(size * helpers.MIB, seed)
        self.many = many
        self.locals = {
            "main": Local(self.main),
            "second": Local(Store.attach(self.main.name)),
            "pickled": Local(pickle.loads(pickle.dumps(self.main))),
            "reader": Local(Store.attach(self.main.name, readonly=True)),
            "pickler": Local(Store.attach(self.main.name, codec="pickle")),
        }
        handles = {name: self.locals[name].store for name in ("main", "reader")}
        self.spawned.peer.ask("open", pickle.dumps(handles), seed)
        self.child = Child(handles) if forks else None
        child = self.child.peer if self.child else self.spawned.peer
        self.actors: dict[str, Local | Remote] = {
            **self.locals,
            "peer": Remote(self.spawned.peer, "main"),
            "peer reader": Remote(self.spawned.peer, "reader"),
            "child": Remote(child, "main"),
        }
        # A forked child registers at its first write; its lookups are counted from then on.
        self.actors["child"].call("_sweep", (1,), {})
        self.model = Model(self.main._now_ms(), self.main.size)
        self.started = self.model.now
        self.set_clock()
        self.hits = 0
        self.versions: dict[tuple[Any, int], int] = {}  # (key, version) -> the model's version
        self.told: dict[tuple[Any, int], int] = {}  # (key, the model's version) -> version
        self.seen: list[tuple[Any, int]] = []

    def teardown(self) -> None:
        if not hasattr(self, "main"):
            return
        self.spawned.peer.ask("close")
        if self.child:
            self.child.end()
        try:
            if hasattr(self, "seen"):
                self.verify()
                helpers.check(self.main)
        finally:
            self.main.unlink()
            for local in self.locals.values():
                local.store.close()

    def verify(self) -> None:
        self.both("main", "items")
        self.both("reader", "len")

    def set_clock(self) -> None:
        for local in self.locals.values():
            local.set_clock(self.model.now)
        self.spawned.peer.ask("clock", self.model.now)
        if self.child:
            self.child.peer.ask("clock", self.model.now)

    def both(self, who: str, name: str, *arguments: Any, **named: Any) -> Outcome:
        """The call on the store and on the model; what the store answered."""
        got = self.actors[who].call(name, arguments, named)
        if got.error is StoreFullError:
            type(self).full += 1
            assert self.model._size <= 2 * helpers.MIB, f"{name}: {got}"
            return got
        expected = perform(self.model, name, arguments, named)
        assert same(got, expected), f"{name}{arguments!r:.300} by {who}: {got}, and not {expected}"
        if name in LOOKUPS and not who.endswith("reader"):
            self.hits += self.model.has(arguments[0])
        return got

    # ---- One item ------------------------------------------------------------------------------

    @step(
        who=anyone, name=st.sampled_from(["getitem", "get", "contains", "ttl", "content_type", "key in view"]), key=key
    )
    def look(self, who: str, name: str, key: Any) -> None:
        self.both(who, name, key)

    @step(who=anyone, key=key, default=value)
    def get_with_default(self, who: str, key: Any, default: Any) -> None:
        self.both(who, "get", key, default)

    @step(who=writer, name=st.sampled_from(["put", "set", "add", "replace"]), key=key, value=value, ttl=ttl)
    def put(self, who: str, name: str, key: Any, value: Any, ttl: Any) -> None:
        self.both(who, name, key, value, ttl)

    @step(who=writer, name=st.sampled_from(["setitem", "setdefault"]), key=key, value=value)
    def set_item(self, who: str, name: str, key: Any, value: Any) -> None:
        self.both(who, name, key, value)

    @step(who=writer, key=key, ttl=ttl, default=st.one_of(st.none(), value))
    def change(self, who: str, key: Any, ttl: Any, default: Any) -> None:
        self.both(who, "change", key, ttl=ttl, **({} if default is None else {"default": default}))

    @step(who=writer, key=key, value=one_of(LARGE), ttl=ttl)
    def put_large(self, who: str, key: Any, value: Any, ttl: Any) -> None:
        self.both(who, "put", key, value, ttl)

    @step(who=writer, key=key, value=any_value)
    def put_any(self, who: str, key: Any, value: Any) -> None:
        self.both(who, "put", key, value)

    @step(who=writer, key=key, content_type=st.sampled_from(["text/plain", "a" * 255, ""]))
    def put_typed(self, who: str, key: Any, content_type: str) -> None:
        self.both(who, "put", key, b"typed", content_type=content_type)

    @step(who=writer, name=st.sampled_from(["delitem", "delete", "pop", "persist"]), key=key)
    def remove(self, who: str, name: str, key: Any) -> None:
        self.both(who, name, key)

    @step(who=writer, key=key, default=value)
    def pop_with_default(self, who: str, key: Any, default: Any) -> None:
        self.both(who, "pop", key, default)

    @step(who=writer)
    def popitem(self, who: str) -> None:
        got = self.actors[who].call("popitem", (), {})
        if got.error is KeyError:
            assert not self.model, "popitem finds nothing in a store that is not empty"
            return
        assert not got.error, got
        self.hits += 1
        key, value = got.value
        assert same(Outcome(value), Outcome(self.model.pop(key, MISSING))), f"popitem took {key!r}: {value!r}"

    @step(who=writer, key=key, ttl=ttl)
    def touch(self, who: str, key: Any, ttl: Any) -> None:
        self.both(who, "touch", key, ttl)

    @step(
        who=writer,
        name=st.sampled_from(["incr", "decr"]),
        key=st.sampled_from(["n1", "n2", b"n1", "a", "k"]),
        delta=st.sampled_from([1, 5, -3, 0, 2**62, -(2**62), 2**63 - 1, -(2**63), 2**64]),
        initial=st.sampled_from([0, 0, 10, 2**63 - 1]),
        ttl=ttl,
    )
    def count(self, who: str, name: str, key: Any, delta: int, initial: int, ttl: Any) -> None:
        self.both(who, name, key, delta, initial, ttl)

    # ---- Versions ------------------------------------------------------------------------------

    @step(who=anyone, key=key)
    def gets(self, who: str, key: Any) -> None:
        got = self.actors[who].call("gets", (key,), {})
        expected = perform(self.model, "getitem", (key,), {})
        if got.error or expected.error:
            assert same(got, expected), f"gets({key!r}): {got}, and not {expected}"
            return
        self.hits += not who.endswith("reader")
        value, version = got.value
        assert same(Outcome(value), expected), f"gets({key!r}): {got}, and not {expected}"
        mine = self.model.version(key)
        assert self.versions.setdefault((key, version), mine) == mine, f"{key!r} has version {version} again"
        assert self.told.setdefault((key, mine), version) == version, f"the version of {key!r} has changed"
        self.seen.append((key, version))

    @step(who=writer, back=st.integers(0, 8), value=value, ttl=ttl)
    def cas(self, who: str, back: int, value: Any, ttl: Any) -> None:
        key, version = self.seen[-1 - back] if back < len(self.seen) else ("a", 2**60)
        fits = key in self.model and self.versions.get((key, version)) == self.model.version(key)
        got = self.actors[who].call("cas", (key, value, version, ttl), {})
        if got.error is StoreFullError and self.model._size <= 2 * helpers.MIB:
            return
        assert got.value is fits, f"cas({key!r}) by {who}: {got}, and not {fits}"
        if fits:
            self.model.put(key, value, ttl)

    # ---- Many items ----------------------------------------------------------------------------

    @step(who=anyone, name=st.sampled_from(["get_many", "get iterated"]), keys=keys)
    def get_many(self, who: str, name: str, keys: list[Any]) -> None:
        got = self.both(who, name, keys)
        self.hits += 0 if who.endswith("reader") else len(got.value)

    @step(who=writer, name=st.sampled_from(["put_many", "put pairs"]), items=items, ttl=ttl)
    def put_many(self, who: str, name: str, items: list[Any], ttl: Any) -> None:
        self.both(who, name, dict(items) if name == "put_many" else items, ttl)

    @step(who=writer, name=st.sampled_from(["update", "update from pairs"]), items=items)
    def update(self, who: str, name: str, items: list[Any]) -> None:
        self.both(who, name, dict(items) if name == "update" else items)

    @step(who=writer, items=st.dictionaries(st.sampled_from(["a", "b", "ab"]), value))
    def update_by_name(self, who: str, items: dict[str, Any]) -> None:
        self.both(who, "update by name", items)

    @step(who=writer, keys=keys)
    def delete_many(self, who: str, keys: list[Any]) -> None:
        self.both(who, "delete_many", keys)

    @step(who=writer, sure=st.sampled_from([True, False, False, False]))
    def clear(self, who: str, sure: bool) -> None:
        if sure:
            self.both(who, "clear")

    @precondition(lambda self: getattr(self, "many", False))
    @step(who=writer, first=st.integers(0, 30), count=st.sampled_from([16, 100, 1000]), ttl=ttl)
    def put_a_thousand(self, who: str, first: int, count: int, ttl: Any) -> None:
        """So many that tables grow, and that the batch gives up the interpreter's lock."""
        self.both(who, "put_many", {f"many:{number}": number for number in range(first * 50, first * 50 + count)}, ttl)

    @precondition(lambda self: getattr(self, "many", False))
    @step(who=writer, first=st.integers(0, 30), count=st.sampled_from([16, 100, 3000]))
    def delete_a_thousand(self, who: str, first: int, count: int) -> None:
        self.both(who, "delete_many", [f"many:{number}" for number in range(first * 50, first * 50 + count)])

    # ---- Walking -------------------------------------------------------------------------------

    @step(who=anyone, name=st.sampled_from(WHOLE))
    def walk(self, who: str, name: str) -> None:
        if name == "values":
            expected = sorted(map(whole, self.model.values()), key=repr)
            assert self.actors[who].call(name, (), {}).value == expected
        else:
            self.both(who, name)

    @step(who=anyone, prefix=st.sampled_from(PREFIXES))
    def scan(self, who: str, prefix: Any) -> None:
        self.both(who, "scan", prefix)

    @step(
        who=anyone,
        start=st.sampled_from(BOUNDS),
        stop=st.sampled_from(BOUNDS),
        limit=st.sampled_from([None, None, 0, 1, 3, -1]),
        reverse=st.booleans(),
    )
    def range(self, who: str, start: Any, stop: Any, limit: Any, reverse: bool) -> None:
        self.both(who, "range", start, stop, limit, reverse)

    @step(who=anyone, key=key, value=value)
    def look_into_views(self, who: str, key: Any, value: Any) -> None:
        self.both(who, "item in view", key, value)
        self.both(who, "value in view", value)

    @step(who=anyone)
    def equals(self, who: str) -> None:
        self.both(who, "equals", dict(self.model))

    # ---- Errors, which change nothing ------------------------------------------------------------

    @step(
        who=writer,
        name=st.sampled_from(["put", "setitem", "add", "replace", "setdefault", "incr"]),
        key=one_of(UNUSABLE_KEYS),
    )
    def store_under_an_unusable_key(self, who: str, name: str, key: Any) -> None:
        self.both(who, name, key, 1)
        self.both(who, "change", key, default=1)

    @step(
        who=writer,
        name=st.sampled_from(["getitem", "get", "contains", "ttl", "delete", "delitem", "pop", "persist"]),
        key=one_of(UNUSABLE_KEYS),
    )
    def look_for_an_unusable_key(self, who: str, name: str, key: Any) -> None:
        self.both(who, name, key)

    @step(who=writer, key=key, value=st.sampled_from(UNUSABLE_VALUES))
    def put_an_unusable_value(self, who: str, key: Any, value: Any) -> None:
        for name in ("put", "add", "replace", "setdefault"):
            self.both(who, name, key, value)
        self.both(who, "put_many", {"good": 1, key: value})

    @step(who=writer, key=key, ttl=st.sampled_from(UNUSABLE_TTLS))
    def put_with_an_unusable_ttl(self, who: str, key: Any, ttl: Any) -> None:
        for name in ("put", "add", "replace"):
            self.both(who, name, key, 1, ttl)
        self.both(who, "touch", key, ttl)
        self.both(who, "change", key, default=1, ttl=ttl)
        self.both(who, "put_many", {key: 1}, ttl)
        self.both(who, "incr", key, 1, 0, ttl)

    @step(who=st.sampled_from(["main", "second", "pickled"]), key=key)
    def put_too_much(self, who: str, key: Any) -> None:
        limit = self.model._size // 4
        for name in ("put", "add", "replace", "setdefault"):
            self.both(who, name, key, bytes(limit + 1))
        got = self.actors[who].call("put_many", ({"one": bytes(limit // 2), key: bytes(limit // 2 + 1)},), {})
        assert got.error is BatchTooLargeError, got

    @step(
        name=st.sampled_from(["put", "add", "replace", "setdefault", "cas"]),
        who=st.sampled_from(["reader", "peer reader"]),
        key=key,
    )
    def write_without_the_right_to(self, who: str, name: str, key: Any) -> None:
        others = {"delete": (key,), "pop": (key,), "popitem": (), "clear": (), "incr": (key,), "touch": (key, 1)}
        others |= {"persist": (key,), "put_many": ({key: 1},), "delete_many": ([key],), "compact": ()}
        arguments = (key, 1, 1) if name == "cas" else (key, 1)
        others["change"] = (key,)
        for call, given in {name: arguments, **others}.items():
            got = self.actors[who].call(call, given, {})
            assert got.error is ReadOnlyStoreError, f"{call} by {who}: {got}"

    @step(key=key, who=writer)
    def meet_what_another_codec_wrote(self, key: Any, who: str) -> None:
        got = self.actors["pickler"].call("put", (key, 1j), {})
        if got.error is StoreFullError:
            return
        for call in ("get", "getitem", "gets", "pop", "setdefault", "change"):
            got = self.actors[who].call(call, (key,), {})
            assert got.error is CodecError, f"{call}: {got}"
            self.hits += call in LOOKUPS
        assert self.actors[who].call("contains", (key,), {}).value is True
        assert self.actors["pickler"].call("pop", (key,), {}).value == 1j
        self.model.pop(key, None)

    # ---- Handles -------------------------------------------------------------------------------

    @step(name=st.sampled_from(["second", "pickled"]), other=st.booleans())
    def reopen(self, name: str, other: bool) -> None:
        handle = self.locals[name].store
        handle.close()
        handle.close()
        for call, given in {"get": ("a",), "put": ("a", 1), "len": (), "clear": (), "iterate": (), "stats": ()}.items():
            got = self.locals[name].call(call, given, {})
            assert got.error is ClosedStoreError, f"{call}: {got}"
        again = Store.attach(self.main.name) if other else pickle.loads(pickle.dumps(self.main))
        self.locals[name].store = again
        again._set_clock(self.model.now)

    # ---- Upkeep --------------------------------------------------------------------------------

    @step(who=writer, name=st.sampled_from(["compact", "_reclaim"]))
    def keep_up(self, who: str, name: str) -> None:
        got = self.actors[who].call(name, (), {})
        assert not got.error, f"{name}: {got}"

    @step(who=writer, buckets=st.sampled_from([1, 7, 10_000]))
    def sweep(self, who: str, buckets: int) -> None:
        got = self.actors[who].call("_sweep", (buckets,), {})
        assert not got.error, got

    @step(who=anyone, sure=st.sampled_from([True, False, False, False]))
    def check(self, who: str, sure: bool) -> None:
        if not sure:  # it takes as long as twenty other calls
            return
        type(self).checks += 1
        report = self.actors[who].call("check", (), {}).value
        assert report.ok, report.problems
        assert report.items >= len(self.model)

    @step(who=anyone)
    def stats(self, who: str) -> None:
        stats = self.actors[who].call("stats", (), {}).value
        told = (stats.items, stats.hits, stats.evicted)
        assert told == (len(self.model), self.hits, 0), f"{told}, and not {self.hits} hits: {stats}"
        assert stats.gets == stats.hits + stats.misses
        assert stats.used <= stats.committed <= stats.size == self.model._size
        assert stats.processes <= 2 + (self.child is not None)

    # ---- Time ----------------------------------------------------------------------------------

    @step(ms=st.sampled_from(STEPS_OF_TIME))
    def time_goes_on(self, ms: int) -> None:
        self.model.now += ms
        self.set_clock()

    @precondition(lambda self: hasattr(self, "model") and self.model.now < self.started + 20 * YEARS)
    @step(days=st.sampled_from([1, 3, 399, 400, 2000]))
    def machine_is_suspended(self, days: int) -> None:
        """Nobody runs meanwhile, and the clock has gone on."""
        self.model.now += days * DAY * 1000
        self.set_clock()

    @step(days=st.sampled_from([-20_000, -1, 0, 1, 10_000]), key=key)
    def time_of_day_is_set(self, days: int, key: Any) -> None:
        if self.spawned.peer.wall:
            self.spawned.peer.wall.move(days * DAY)
            ahead = self.spawned.peer.ask("wall") - time.time()
            assert abs(ahead - days * DAY) < DAY / 2, f"the time of day was not set: it is ahead by {ahead} s"
        self.both("peer", "ttl", key)
        self.both("peer", "getitem", key)

"""Values: what put accepts comes back equal and of the same type; what it cannot keep it refuses."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import fractions
import math
import pathlib
import struct
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from helpers import MIB, check
from hypothesis import given, settings
from hypothesis import strategies as st

from shmkv import Store, ValueTooLargeError

try:
    ZONE: dt.tzinfo | None = zoneinfo.ZoneInfo("Europe/Berlin")
except zoneinfo.ZoneInfoNotFoundError:
    ZONE = None
needs_zones = pytest.mark.skipif(ZONE is None, reason="no time zone data on this machine (Debian: tzdata)")


def same(a: Any, b: Any) -> bool:
    """Equal to the bit and of the same types all the way down.

    Not `repr(a) == repr(b)`: the order in which a set shows its items is no part of its value.
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=False))
    if isinstance(a, (set, frozenset)):
        rest = list(b)
        for item in a:
            twin = next((i for i, other in enumerate(rest) if same(item, other)), None)
            if twin is None:
                return False
            del rest[twin]
        return not rest
    if isinstance(a, dt.datetime):
        return repr(a) == repr(b) and a.fold == b.fold and type(a.tzinfo) is type(b.tzinfo)
    return bool(a == b)


def has_set(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_set, value.items()))
    if isinstance(value, (list, tuple)):
        return any(map(has_set, value))
    return isinstance(value, (set, frozenset))


def comes_back(store: Store, value: Any) -> None:
    store["k"] = value
    got = store["k"]
    assert same(got, value)
    if not has_set(value) and not isinstance(value, int):
        assert repr(got) == repr(value)
    assert same(store.get_many(["k"])["k"], value)
    assert same(store.gets("k").value, value)
    assert same(store.pop("k"), value)


SCALARS = [
    b"", b"a", b"\0\xff", bytes(range(256)) * 40,
    "", "a", "ä€𝄞\0", "x" * 100_000, "\x7f\x80\xff\u0100\uffff\U0010ffff",
    0, 1, -1, 127, 128, -128, 2**31, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, -(2**64), 2**64 - 1,
    10**100, -(10**100), 1 << 50_000, -(1 << 50_000) + 1, 255 << 64, -(256**9), 1 << 71, -(1 << 71),
    0.0, -0.0, 1.5, math.pi, 1e308, 5e-324, math.inf, -math.inf, math.nan, -math.nan, sys.float_info.max,
    True, False, None,
]  # fmt: skip

TIMES = [
    dt.date.min, dt.date.max, dt.date(2024, 2, 29),
    dt.timedelta(0), dt.timedelta.min, dt.timedelta.max, dt.timedelta(days=-1, microseconds=1),
    dt.datetime.min, dt.datetime.max, dt.datetime(2024, 2, 29, 12, 30, 15, 999_999),
    dt.datetime(2024, 10, 27, 2, 30, fold=1),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(seconds=1, microseconds=7))),
    dt.datetime(2024, 1, 1, tzinfo=dt.timezone(-dt.timedelta(hours=23, minutes=59))),
]  # fmt: skip

CONTAINERS = [
    [], (), {}, set(), frozenset(),
    [1, "a", b"a", None, True, 1.5], (1, (2, (3,))), [[], [[]]],
    {"b": 1, "a": 2, 1: "int", b"x": [], None: {}, (1, 2): {3}, frozenset({1}): (), True and 2.5: "f"},
    {1, "1", b"1", None, (1,), frozenset({frozenset()}), 2.5}, frozenset({(), ((),)}),
    [1, True, 1.0, 0, False, -0.0, math.nan], {1: "int"}, {True: "bool"}, {1.0: "float"}, {0: 0, "": ""},
    list(range(5000)), {f"k{i}": (i, str(i)) for i in range(2000)}, set(range(3000)),
    [dt.date(2024, 1, 1), {dt.timedelta(1): dt.datetime(2024, 1, 1)}],
]  # fmt: skip


@pytest.mark.parametrize("value", [*SCALARS, *TIMES, *CONTAINERS], ids=lambda v: type(v).__name__)
def test_comes_back_equal_and_of_the_same_type(store: Store, value: Any) -> None:
    comes_back(store, value)


@needs_zones
@pytest.mark.parametrize("fold", [0, 1])
def test_zoneinfo_keeps_key_and_fold(store: Store, fold: int) -> None:
    value = dt.datetime(2024, 10, 27, 2, 30, tzinfo=ZONE, fold=fold)
    store["k"] = value
    got = store["k"]
    assert isinstance(got.tzinfo, zoneinfo.ZoneInfo)
    assert got.tzinfo.key == "Europe/Berlin"
    assert got.fold == fold
    assert got.utcoffset() == value.utcoffset()
    assert repr(got) == repr(value)
    comes_back(store, [value])


def test_dict_keeps_its_order(store: Store) -> None:
    value = {f"{i * 7919 % 1000}": i for i in range(1000)}
    store["k"] = value
    assert list(store["k"]) == list(value)


WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda v: [v],
    "tuple": lambda v: (v,),
    "dict": lambda v: {"k": v},
    "frozenset": lambda v: frozenset({v}),
    "key": lambda v: {(v,): 1} if isinstance(v, int) else {"k": v},
}


def nested(wrap: str, depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = WRAPS[wrap](value)
    return value


@pytest.mark.parametrize("wrap", WRAPS)
def test_nested_to_100_levels(store: Store, wrap: str) -> None:
    value = nested(wrap, 100)
    comes_back(store, value)
    store["k"] = {(1, value) if wrap in ("tuple", "frozenset") else 1: value}


@pytest.mark.parametrize("wrap", ["list", "tuple", "dict"])
@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_nested_without_end_is_refused_or_kept(store: Store, wrap: str, depth: int) -> None:
    value = nested(wrap, depth)
    try:
        store["k"] = value
    except TypeError:
        assert "k" not in store
        return
    got = store["k"]
    for _ in range(depth):
        assert type(got) is type(value)
        got = got["k"] if isinstance(got, dict) else got[0]
    assert got == 1


def test_what_contains_itself_is_refused(store: Store) -> None:
    loop: list[Any] = []
    loop.append(loop)
    ring: dict[str, Any] = {}
    ring["ring"] = [ring]
    for value in (loop, ring):
        with pytest.raises(TypeError):
            store["k"] = value
    assert "k" not in store


class Colour(enum.IntEnum):
    RED = 1


class Name(str):
    pass


class Point(NamedTuple):
    x: int
    y: int


class Blob(bytes):
    pass


class Real(float):
    pass


class Moment(dt.datetime):
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "ZONE"


REFUSED = [
    Colour.RED, Name("a"), Point(1, 2), Blob(b"a"), Real(1.5), Moment(2024, 1, 1),
    collections.OrderedDict(a=1), collections.defaultdict(list), collections.Counter("a"), collections.deque(),
    bytearray(b"a"), memoryview(b"a"), 1j, decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=1),
    pathlib.PurePosixPath("/"), object(), object, len, lambda: 1, ..., NotImplemented, range(3), iter([]), {}.keys(),
    dt.time(12), dt.timezone.utc, dt.datetime(2024, 1, 1, tzinfo=Zone()), Exception("a"), sys,
    type("L", (list,), {})([1]), type("D", (dict,), {})(), type("S", (set,), {})(), type("T", (tuple,), {})(),
    type("F", (frozenset,), {})(), type("I", (int,), {})(3),
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("where", ["alone", "in a list", "as a dict value", "in a tuple"])
def test_what_cannot_be_kept_is_refused(store: Store, value: Any, where: str) -> None:
    wrapped = {"alone": value, "in a list": [1, value], "as a dict value": {"k": value}, "in a tuple": (value,)}[where]
    store["k"] = "before"
    with pytest.raises(TypeError) as refused:
        store["k"] = wrapped
    assert "pickle" in str(refused.value)
    with pytest.raises(TypeError):
        store.put_many({"other": 1, "k": wrapped})
    assert dict(store) == {"k": "before"}


@pytest.mark.parametrize("key", [Colour.RED, Name("a"), Point(1, 2), Real(1.5)], ids=lambda v: type(v).__name__)
def test_a_subclass_is_refused_as_key_of_a_dict_and_in_a_set(store: Store, key: Any) -> None:
    for value in ({key: 1}, {key}, frozenset({key})):
        with pytest.raises(TypeError):
            store["k"] = value
    assert "k" not in store


@pytest.mark.parametrize(
    "value",
    ["\ud800", ["a\udfff"], {"\ud800": 1}, dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "NAME"))],
    ids=ascii,
)
def test_kept_exactly_or_refused(store: Store, value: Any) -> None:
    try:
        store["k"] = value
    except TypeError:
        assert "k" not in store
    else:
        assert same(store["k"], value)
        assert repr(store["k"]) == repr(value)


@needs_zones
def test_zoneinfo_without_a_key_is_refused(store: Store) -> None:
    import importlib.resources
    import io

    try:
        with importlib.resources.files("tzdata.zoneinfo").joinpath("UTC").open("rb") as file:
            data = file.read()
    except ModuleNotFoundError:
        found = [pathlib.Path(path) / "UTC" for path in zoneinfo.TZPATH if (pathlib.Path(path) / "UTC").exists()]
        data = found[0].read_bytes()
    nameless = zoneinfo.ZoneInfo.from_file(io.BytesIO(data))
    with pytest.raises(TypeError):
        store["k"] = dt.datetime(2024, 1, 1, tzinfo=nameless)


# ---- Sizes -----------------------------------------------------------------------------------


def test_a_value_may_take_a_quarter_of_the_store(make_store: Any) -> None:
    store = make_store(size=16 * MIB)
    largest = b"x" * (4 * MIB)
    store["k"] = largest
    assert store["k"] == largest
    for too_large in (largest + b"x", "x" * (4 * MIB + 1), [b"x" * (4 * MIB)], b"x" * (20 * MIB)):
        with pytest.raises(ValueTooLargeError) as refused:
            store["k"] = too_large
        assert isinstance(refused.value, ValueError)
    assert store["k"] == largest
    assert len(store) == 1


@pytest.mark.parametrize("size", [2**n + d for n in range(3, 21) for d in (-17, -16, -1, 0, 1, 16) if 2**n + d >= 0])
def test_every_size_comes_back(shared_store: Store, size: int) -> None:
    value = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    shared_store["k"] = value
    shared_store[f"k{size}"] = value.decode()
    assert shared_store["k"] == value
    assert shared_store[f"k{size}"] == value.decode()


@pytest.fixture(scope="module")
def shared_store() -> Any:
    """One store for many small examples."""
    store = Store()
    yield store
    check(store)
    store.close()


# ---- Content types ---------------------------------------------------------------------------


def test_bytes_may_carry_a_content_type(store: Store) -> None:
    store.put("k", b"<p>", content_type="text/html; charset=utf-8")
    assert store["k"] == b"<p>"
    assert type(store["k"]) is bytes
    assert store.content_type("k") == "text/html; charset=utf-8"
    assert store.get_many(["k"]) == {"k": b"<p>"}
    version = store.gets("k").version
    store.touch("k", 100)
    store.persist("k")
    assert store.content_type("k") == "text/html; charset=utf-8"
    assert store.gets("k") == (b"<p>", version)
    store.put("k", b"<p>")
    assert store.content_type("k") is None


def test_content_type_limits(store: Store) -> None:
    store.set("k", b"", content_type="x" * 255)
    assert store.content_type("k") == "x" * 255
    assert store["k"] == b""
    for wrong in ("x" * 256, "ä"):
        with pytest.raises(ValueError, match=r"content.type"):
            store.put("k", b"new", content_type=wrong)
    with pytest.raises(TypeError):
        store.put("k", b"new", content_type=5)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        store.put("k", "text", content_type="text/plain")
    assert store["k"] == b""


# ---- Anything at all -------------------------------------------------------------------------

offsets = st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone)
zones: st.SearchStrategy[Any] = st.none() | st.just(dt.timezone.utc) | offsets
if ZONE is not None:
    zones |= st.sampled_from(["Europe/Berlin", "America/New_York", "UTC"]).map(zoneinfo.ZoneInfo)

hashable_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(timezones=zones, allow_imaginary=True)
)
hashables = st.recursive(
    hashable_leaves,
    lambda inner: st.frozensets(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=10,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(hashables, inner, max_size=5)
        | st.sets(hashables, max_size=5)
    ),
    max_leaves=30,
)


@pytest.mark.slow
@settings(max_examples=250)
@given(value=values)
def test_any_value(shared_store: Store, value: Any) -> None:
    comes_back(shared_store, value)


@settings(max_examples=60)
@given(leaf=hashable_leaves, path=st.lists(st.sampled_from("ltdf"), min_size=60, max_size=100))
def test_any_value_deep_down(shared_store: Store, leaf: Any, path: list[str]) -> None:
    value = leaf
    frozen = True
    for step in path:
        if step == "f" and frozen:
            value = frozenset({value})
        elif step == "t":
            value = (value,)
        elif step == "d":
            value, frozen = {"k": value}, False
        else:
            value, frozen = [value], False
    shared_store["deep"] = value
    got = shared_store["deep"]
    assert same(got, value)
    assert repr(got) == repr(value)

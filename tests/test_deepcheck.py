"""The second opinion agrees with the engine's on healthy stores, and finds what is planted in others."""

from __future__ import annotations

import ast
import mmap
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import MIB, Forked, region_path, unique_name, wait_until

from shmkv import Store, StoreFullError, StoreNotFoundError, deepcheck
from shmkv.deepcheck import DeepReport, deep_check

MakeStore = Callable[..., Store]

SHARED_NUMBERS = ("items", "tables", "records", "blocks_used", "blocks_leaked", "pages_used")


def assert_agree(store: Store) -> DeepReport:
    shallow, deep = store.check(), deep_check(store.name)
    assert shallow.ok, shallow.problems
    assert deep.ok, deep.problems
    assert deep.quiet
    assert deep.problems_found == 0
    assert {n: getattr(deep, n) for n in SHARED_NUMBERS} == {n: getattr(shallow, n) for n in SHARED_NUMBERS}
    return deep


# ---- Healthy stores --------------------------------------------------------------------------------


def random_value(rng: random.Random) -> bytes:
    top = rng.choice([20, 20, 20, 200, 3000, 20_000, 100_000])
    return bytes(rng.randrange(top))


def random_step(store: Store, rng: random.Random) -> None:
    key: str | bytes = f"key:{rng.randrange(3000):05}"
    if rng.random() < 0.2:
        key = key.encode()
    chance = rng.random()
    if chance < 0.45:
        store.put(key, random_value(rng), ttl=rng.choice([None, None, 3600]))
    elif chance < 0.6:
        store.pop(key, None)
    elif chance < 0.7:
        store.incr(f"count:{rng.randrange(50)}")
    elif chance < 0.8:
        store.touch(key, 1000)
    elif chance < 0.9:
        store.update({f"many:{rng.randrange(2000)}": random_value(rng)[:500] for _ in range(rng.randrange(100))})
    elif chance < 0.95:
        store.delete_many([f"many:{rng.randrange(2000)}" for _ in range(rng.randrange(100))])


@pytest.mark.parametrize("attempt", range(6))
def test_agrees_on_random_stores(make_store: MakeStore, rng: random.Random, attempt: int) -> None:
    options = [{}, {"size": 8 * MIB, "on_full": "evict"}, {"size": 2 * MIB}][attempt % 3]
    store = make_store(**options)
    for part in range(4):
        for _ in range(rng.randrange(1500)):
            try:
                random_step(store, rng)
            except StoreFullError:
                store.pop(next(iter(store.keys())), None)
        if part == 2:
            store.compact()
        if part == 3 and attempt in (3, 4):
            store.clear()
        assert_agree(store)


def test_empty_store(store: Store) -> None:
    report = assert_agree(store)
    assert (report.items, report.tables, report.blocks_used, report.locks_held) == (0, 0, 0, 0)
    assert report


def test_every_size_of_block(store: Store) -> None:
    sizes = [*range(0, 300, 7), *range(300, 9000, 241), *range(9000, 70_000, 1777), 100_000, 1_000_000, 5_000_000]
    for size in sizes:
        store.put(f"size:{size}", b"s" * size)
    assert assert_agree(store).records == len(sizes)
    for size in sizes[::2]:
        del store[f"size:{size}"]
    assert assert_agree(store).records == len(sizes[1::2])


def test_expired_items_are_records_but_no_items(store: Store) -> None:
    store.put("short", 1, ttl=0.5)
    store.put("long", 1, ttl=3600)
    store["for ever"] = 1
    time.sleep(0.55)
    report = assert_agree(store)
    assert (report.items, report.records) == (2, 3)


def test_a_hundred_thousand_items(make_store: MakeStore) -> None:
    store = make_store(size=64 * MIB)
    for start in range(0, 100_000, 1000):
        store.update({f"user:{i:08}": i for i in range(start, start + 1000)})
    report = deep_check(store.name)
    assert report.ok, report.problems
    assert report.items == 100_000


def test_what_a_kill_leaves_is_no_problem(make_store: MakeStore, rng: random.Random) -> None:
    store = make_store(size=16 * MIB)

    def write() -> None:
        own = random.Random(1)
        while True:
            random_step(store, own)

    for _ in range(5):
        child = Forked(write)
        time.sleep(rng.uniform(0.02, 0.1))
        child.kill()
        report = deep_check(store.name)
        assert report.ok, report.problems
        shallow = store.check()  # repairs what the dead one locked
        assert shallow.ok, shallow.problems
        assert_agree(store)
    store.compact()
    assert assert_agree(store).blocks_leaked == 0


def test_beside_a_writer_nothing_is_invented(make_store: MakeStore) -> None:
    store = make_store(size=16 * MIB)

    def write() -> None:
        own = random.Random(1)
        while True:
            random_step(store, own)

    child = Forked(write)
    wait_until(lambda: len(store) > 100)
    for _ in range(10):
        report = deep_check(store.name)
        assert report.ok, report.problems
    child.kill()


# ---- How a store is named ------------------------------------------------------------------------------


def test_by_name_path_and_descriptor(store: Store) -> None:
    store["a"] = 1
    path = region_path(store)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = [deep_check(store.name), deep_check(path), deep_check(str(path)), deep_check(fd)]
        assert os.fstat(fd).st_size > 0  # still open
    finally:
        os.close(fd)
    assert {report.records for report in found} == {1}
    assert deep_check(store.name, uid=os.geteuid()).ok


def test_nothing_there() -> None:
    with pytest.raises(StoreNotFoundError):
        deep_check(unique_name())
    with pytest.raises(FileNotFoundError):
        deep_check(Path("/dev/shm/shmkv-test-there-is-no-such-file"))


def test_no_store(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"short", os.urandom(4096), bytes(1 << 20))):
        path = tmp_path / str(number)
        path.write_bytes(content)
        report = deep_check(path)
        assert not report
        assert report.problems[0].invariant == "header"


def test_it_knows_nothing_of_the_engine() -> None:
    tree = ast.parse(Path(deepcheck.__file__).read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name for name in modules if name.startswith("shmkv")} == {"shmkv.errors"}


def test_holes_stay_holes(make_store: MakeStore) -> None:
    """Memory that is not committed, or was given back, is not touched: reading it would allocate it."""
    store = make_store(size=256 * MIB)
    for i in range(200):
        store[f"large:{i}"] = bytes(100_000)
    for i in range(190):
        del store[f"large:{i}"]
    store.compact()
    path = region_path(store)
    before = path.stat().st_blocks
    assert before * 512 < 64 * MIB
    assert deep_check(path).ok
    assert path.stat().st_blocks == before


# ---- Damage ------------------------------------------------------------------------------------------------


class Region:
    """A region as bytes that can be damaged and put right again."""

    def __init__(self, store: Store) -> None:
        with region_path(store).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.header = deepcheck._Header(*deepcheck._FIXED.unpack_from(self._map))

    def close(self) -> None:
        self._map.close()

    def get(self, at: int, form: str = "Q") -> int:
        return int(struct.unpack_from("=" + form, self._map, at)[0])

    @contextmanager
    def planted(self, at: int, value: int, form: str = "Q") -> Iterator[None]:
        good = self.get(at, form)
        struct.pack_into("=" + form, self._map, at, value)
        try:
            yield
        finally:
            struct.pack_into("=" + form, self._map, at, good)

    # Places, in bytes from the region's start.

    def bucket(self, number: int) -> int:
        return self.header.buckets_offset + 64 * number

    def slots(self, number: int) -> tuple[int, int]:
        """(first slot, capacity) of a bucket."""
        word = self.get(self.bucket(number) + 16)
        return (word & 0xFF_FFFF_FFFF) * 16 + 16, word >> 40

    def live_slots(self) -> Iterator[tuple[int, int]]:
        """(bucket, place of the slot) of every live slot."""
        for number in range(self.header.buckets):
            first, capacity = self.slots(number)
            for i in range(capacity):
                if self.get(first + 16 * i) & 0xFF_FFFF_FFFF > 1:
                    yield number, first + 16 * i

    def descriptor(self, page: int) -> int:
        return self.header.descriptors_offset + 320 * page

    def page_of(self, offset: int) -> int:
        return (offset - self.header.pages_offset) >> 16

    def page_in(self, state: int, cls: int | None = None) -> int:
        for page in range(self.get(448)):
            word = self.get(self.descriptor(page))
            if word & 15 == state and (cls is None or word >> 20 & 255 == cls):
                return page
        raise AssertionError(f"no page in state {state}")


@pytest.fixture
def filled(make_store: MakeStore) -> Store:
    store = make_store(size=16 * MIB)
    for i in range(2000):
        store.put(f"key:{i}", b"v" * (i % 100), ttl=3600 if i % 4 == 0 else None)
    for i in range(8):
        store[f"unit:{i}"] = bytes(9000 + 2000 * i)
    for i in range(3):
        store[f"run:{i}"] = bytes(150_000)
    del store["run:0"]
    for i in range(0, 2000, 3):
        del store[f"key:{i}"]
    assert_agree(store)
    return store


@pytest.fixture
def region(filled: Store) -> Iterator[Region]:
    opened = Region(filled)
    yield opened
    opened.close()


@pytest.fixture
def expect(filled: Store) -> Callable[..., None]:
    """`expect("I1", "tag")`: both checkers find it; `engine=False`: only this one looks for it."""

    def expect(invariant: str, part: str = "", *, engine: bool = True) -> None:
        deep = deep_check(filled.name)
        assert not deep
        assert any(p.invariant == invariant and part in p.sentence for p in deep.problems), deep.problems
        assert deep.problems_found >= len(deep.problems)
        if engine:
            shallow = filled.check()
            assert invariant in {p.invariant for p in shallow.problems}, shallow.problems

    return expect


@pytest.mark.parametrize(
    ("xor", "invariant", "part"),
    [
        (1 << 40, "I1", "tag"),
        (1 << 39, "I1", "outside the committed pages"),
        (1, "I3", "is not where a block in use starts"),
    ],
)
def test_word_a(
    region: Region, expect: Callable[..., None], rng: random.Random, xor: int, invariant: str, part: str
) -> None:
    _, slot = rng.choice(list(region.live_slots()))
    with region.planted(slot, region.get(slot) ^ xor):
        expect(invariant, part)


def test_word_a_that_is_nothing(region: Region, expect: Callable[..., None]) -> None:
    _, slot = next(region.live_slots())
    with region.planted(slot, 5 << 40 | 1):
        expect("I1", "neither")


def test_records(region: Region, expect: Callable[..., None], rng: random.Random) -> None:
    _, slot = rng.choice(
        [s for s in region.live_slots() if not region.get((region.get(s[1]) & (1 << 40) - 1) * 16 + 7, "B")]
    )
    record = (region.get(slot) & (1 << 40) - 1) * 16
    with region.planted(record + 16, region.get(record + 16, "B") ^ 1, "B"):
        expect("I1")
    with region.planted(record, 0xFFFFFFFF, "I"):
        expect("I1", "does not fit its block")
    with region.planted(record + 6, 77, "B"):
        expect("I1", "type 77")
    with region.planted(record + 7, 0x40, "B"):
        expect("I1", "flags 0x40")
    with region.planted(record + 8, 1 << 60):
        expect("I11", "version")


def test_the_same_record_twice(region: Region, expect: Callable[..., None]) -> None:
    number, slot = next(region.live_slots())
    first, capacity = region.slots(number)
    i = (slot - first) // 16
    while region.get(first + 16 * i) & 0xFF_FFFF_FFFF > 1:
        i = (i + 1) % capacity
    with region.planted(first + 16 * i, region.get(slot)), region.planted(first + 16 * i + 8, region.get(slot + 8)):
        expect("I2", "hold the same key")


def test_a_record_in_two_buckets(region: Region, expect: Callable[..., None]) -> None:
    number, slot = next(region.live_slots())
    first, capacity = region.slots(number + 1)
    free = next(first + 16 * i for i in range(capacity) if region.get(first + 16 * i) == 0)
    with region.planted(free, region.get(slot)):
        expect("I1", f"belongs into bucket {number}")
        expect("I2", "which something else names too", engine=False)


def test_a_hidden_item(region: Region, expect: Callable[..., None]) -> None:
    for number, slot in region.live_slots():
        first, capacity = region.slots(number)
        home = first + ((region.get(slot) >> 40) * capacity >> 24) * 16
        if home < slot:
            break
    with region.planted(home, 0):
        expect("I1", "misses it")


def test_freed_but_named(region: Region, expect: Callable[..., None]) -> None:
    number, slot = next(region.live_slots())
    record, table = (region.get(slot) & (1 << 40) - 1) * 16, region.slots(number)[0] - 16
    for offset in (record, table):
        page = region.page_of(offset)
        cls = region.get(region.descriptor(page)) >> 20 & 255
        size = 1024 if cls == 55 else deepcheck._class_bytes(cls)
        block = (offset - region.header.pages_offset) % 65536 // size
        word = region.descriptor(page) + 64 + block // 64 * 8
        with region.planted(word, region.get(word) & ~(1 << block % 64)):
            expect("I3", "is not where a block in use starts")


def test_table_words(region: Region, expect: Callable[..., None]) -> None:
    place = region.bucket(3) + 16
    word = region.get(place)
    for bad, part in (
        (word - (1 << 40), "header of something else"),
        (word | 0xFFFFFF << 40, "does not fit its block"),
        (word | (1 << 40) - 1, "outside the committed pages"),
        (region.get(region.bucket(4) + 16), "header of something else"),
    ):
        with region.planted(place, bad):
            expect("I1", part)


@pytest.mark.parametrize(
    ("at", "form", "name"), [(4, "I", "count"), (32, "I", "tombstones"), (40, "Q", "value_bytes"), (48, "Q", "expiry")]
)
def test_derived_numbers(region: Region, expect: Callable[..., None], at: int, form: str, name: str) -> None:
    number = next(
        bucket for bucket, slot in region.live_slots() if region.get(slot + 8) & (1 << 40) - 1
    )  # has an expiry
    place = region.bucket(number) + at
    with region.planted(place, region.get(place, form) + (1 << 20), form):
        expect("I11", name)


def test_hints(filled: Store, region: Region, expect: Callable[..., None]) -> None:
    _, slot = next(region.live_slots())
    with region.planted(slot + 8, region.get(slot + 8) ^ 1):
        expect("I11", "word B says expiry")
    with region.planted(slot + 8, region.get(slot + 8) ^ 1 << 45):
        expect("I11", "other hash bits")
    with region.planted(slot + 8, region.get(slot + 8) ^ 3 << 62):  # clock bits
        assert deep_check(filled.name).ok


def test_locks_and_batches(region: Region, expect: Callable[..., None]) -> None:
    with region.planted(region.bucket(2) + 24, region.header.pages_offset):
        expect("I5", "refers to a batch")
    with region.planted(region.bucket(2), 1, "I"), region.planted(region.bucket(2) + 24, 12345):
        expect("I5", "no intent is there")  # slot 0 is this process: the engine waits for its lock, then looks
    with region.planted(region.bucket(2), 900, "I"):
        expect("I7", "process slot 899, which is free", engine=False)  # the engine repairs that
    with region.planted(region.bucket(2), 1 << 31, "I"):
        expect("I4", "locked by nobody")
    row = region.header.procs_offset + 320 * 77
    with region.planted(row, 5, "I"):
        expect("I7", "state 5")
    with region.planted(row + 72, 2):
        expect("I6", "is free, but has a batch")
    own = region.header.procs_offset
    with region.planted(own + 72, region.get(own + 72) | 1):
        expect("I6", "no intent")
    with region.planted(row + 72, 3):
        expect("I6", "status 3")


def test_pages(region: Region, expect: Callable[..., None]) -> None:
    blocks, units = region.descriptor(region.page_in(1, 2)), region.descriptor(region.page_in(1, 55))
    run, free = region.descriptor(region.page_in(2)), region.descriptor(region.page_in(0))
    for place, value, part in (
        (blocks, region.get(blocks) | 15, "descriptor"),
        (blocks, region.get(blocks) | 200 << 20, "descriptor"),
        (blocks, region.get(blocks) | 1 << 62, "descriptor"),
        (blocks + 312, 1 << 63, "beyond"),
        (units + 312, 1, "behind the lengths"),
        (units + 72, 0, "units"),
        (free + 64, 1, "bits in its bitmap"),
        (free, 7 << 32, "descriptor"),
        (free, 3 | 1 << 32, "there is none"),
        (run, region.get(run) + (1 << 32), "of the run"),
        (run, region.get(run) + (1 << 60), "does not fit"),
        (run + 320, 0, "of the run"),
        (448, region.header.pages + 1, "are committed"),
    ):
        with region.planted(place, value):
            expect("I8", part)
    with region.planted(blocks, region.get(blocks) & ~(0x7FF << 8) | 1000 << 8):
        expect("I7", "process slot 999")


def test_leaked_blocks_are_a_number(filled: Store, region: Region) -> None:
    page = region.descriptor(region.page_in(1, 2))
    word, bits = next((page + 64 + 8 * w, region.get(page + 64 + 8 * w)) for w in range(10))
    free = next(i for i in range(64) if not bits >> i & 1)
    with region.planted(word, bits | 1 << free):
        assert assert_agree(filled).blocks_leaked == 1
    assert assert_agree(filled).blocks_leaked == 0


def test_header(filled: Store, region: Region) -> None:
    for at in range(0, 256, 8):
        with region.planted(at, region.get(at) ^ 1 << 5):
            report = deep_check(filled.name)
            assert [problem.invariant for problem in report.problems[:1]] == ["header"]
    with region.planted(256, 2, "I"):
        assert deep_check(filled.name).problems[0] == ("header", "the store's state is 2, not ready (1)")
    assert str(deepcheck.Problem("I1", "so")) == "I1: so"


def test_many_problems_are_counted_and_some_kept(filled: Store, region: Region) -> None:
    slots = list(region.live_slots())
    good = [region.get(slot) for _, slot in slots]
    for (_, slot), a in zip(slots, good, strict=True):
        struct.pack_into("=Q", region._map, slot, a ^ 1 << 63)
    report = deep_check(filled.name)
    for (_, slot), a in zip(slots, good, strict=True):
        struct.pack_into("=Q", region._map, slot, a)
    assert len(report.problems) == deepcheck.MAX_PROBLEMS
    assert report.problems_found >= len(slots)


def test_any_damage_ends_in_a_report(filled: Store, region: Region, rng: random.Random) -> None:
    """No crash, no exception, no endless loop, whatever the words say."""
    header, pages = region.header, region.get(448)
    areas = [
        (header.procs_offset, 1023 * 320),
        (header.buckets_offset, header.buckets * 64),
        (header.descriptors_offset, pages * 320),
        (header.pages_offset, pages << 16),
    ]
    for _ in range(60):
        start, length = rng.choice(areas)
        places = [start + rng.randrange(length // 8) * 8 for _ in range(rng.randrange(1, 60))]
        good = [region.get(place) for place in places]
        for place, word in zip(places, good, strict=True):
            struct.pack_into("=Q", region._map, place, rng.choice([rng.getrandbits(64), word ^ 1 << rng.randrange(64)]))
        deep_check(filled.name)
        for place, word in reversed(list(zip(places, good, strict=True))):
            struct.pack_into("=Q", region._map, place, word)
    assert_agree(filled)

"""A second opinion on a store: read by the published layout alone, without the engine that wrote it.

What: `deep_check` walks header, process table, page descriptors, tables and records of a region, as
      docs/memory-layout.md and `_core/layout.h` describe them, and names every invariant that does not hold.
How:  `struct` and `mmap`, read-only.  A byte per 16 bytes of the pages says where a block in use starts
      (from the bitmaps) and whether somebody names it (from tables and intents); at the end, what nobody names
      is leaked.  Nothing of `shmkv._core` is used: an error that writer and checker share would be found here.

Concurrency: meant for quiet stores.  No lock is taken.  If the store changed meanwhile the walk is
      repeated, and only what every walk found is reported (`quiet` is then false): with writers at work,
      `Store.check` is the better question.  Memory behind `committed_pages`, and of pages that were given back,
      is never touched: reading a hole would allocate it.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import xxhash

from shmkv.errors import StoreNotFoundError

# ---- The layout, once more (its first copy is _core/layout.h) ------------------------------------

_MAGIC: Final = 0x0A31766B6D68730D
_VERSION: Final = 1
_BYTE_ORDER: Final = 0x01020304
_FIXED: Final = struct.Struct("=Q I I Q B B H I 16s 16s Q Q Q Q Q Q Q Q Q Q I I 96s Q")
_HEADER_BYTES: Final = 4096
_CHECKED_BYTES: Final = _FIXED.size - 8
_STATE_AT: Final = 256
_COMMITTED_AT: Final = 448
_READY: Final = 1

_PAGE_BYTES: Final = 1 << 16
_UNIT: Final = 16  # bytes; offsets in slots and tables count these
_UNITS_IN_PAGE: Final = _PAGE_BYTES // _UNIT
_OFFSET_BITS: Final = 40
_OFFSET_MASK: Final = (1 << _OFFSET_BITS) - 1
_TAG_BITS: Final = 24
_TAG_MASK: Final = (1 << _TAG_BITS) - 1
_TOMBSTONE: Final = 1
_EXPIRY_MASK: Final = (1 << 40) - 1
_FLAG_EVICT: Final = 1
_B_HASH_MASK: Final = ((1 << 21) - 1) << 40
_BYTES_KEY_HASH: Final = 0x9E3779B97F4A7C15  # "a" and b"a" are two keys

_PROCS: Final = 1023
_REMOVAL_AT: Final = 96  # of a row of the process table: the intent of a removal, which has no entries
_PROC: Final = struct.Struct("=I 36x Q 16x Q Q 240x")  # state, spare block; intent, status
_BATCH_IDLE, _BATCH_COMMITTED = 0, 2
_BUCKET: Final = struct.Struct("=I I Q Q Q I I Q Q Q")
_RECORD: Final = struct.Struct("=I H B B Q")
_EXPIRY: Final = struct.Struct("=Q")
_META: Final = struct.Struct("=I I Q")
_META_TABLE, _META_INTENT = 0x6C626174, 0x746E746E
_INTENT: Final = struct.Struct("=I I Q I I Q")
_INTENT_ENTRY: Final = struct.Struct("=I I Q Q Q")
_REC_BYTES_KEY, _REC_EXPIRY = 1, 2
_TYPES: Final = frozenset((*range(1, 18), 32, 33, 34))
_TYPE_INT: Final = 3

_DESCRIPTOR: Final = struct.Struct("=Q 56x 256s")
_BITMAP_BITS: Final = 2048
_FREE, _BLOCKS, _RUN, _TAIL, _PUNCHED = range(5)
_EVACUATED: Final = 1 << 19
_CLASSES: Final = 56
_UNIT_CLASS: Final = _CLASSES - 1
_BLOCK_UNIT: Final = 1024  # bytes; blocks of the unit class are multiples of these
_BLOCK_UNITS: Final = _PAGE_BYTES // _BLOCK_UNIT
_RECORDS, _TABLES = 0, 1

# ---- What is found ---------------------------------------------------------------------------------

MAX_PROBLEMS: Final = 100
MAX_WALKS: Final = 5
_CLOCK_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Problem(NamedTuple):
    """One broken invariant."""

    invariant: str  # "I1" to "I11", see docs/concurrency.md, or "header"
    sentence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class DeepReport:
    """What `deep_check` found; true in a boolean context if all is well."""

    problems: tuple[Problem, ...]  # at most 100 of them
    problems_found: int
    items: int  # not expired
    tables: int
    records: int
    blocks_used: int
    blocks_leaked: int
    pages_used: int
    locks_held: int  # buckets; by the living or the dead
    quiet: bool  # nothing changed during the walk: what it found is certain

    @property
    def ok(self) -> bool:
        """No invariant is broken."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok


def deep_check(store: int | str | os.PathLike[str], *, uid: int | None = None) -> DeepReport:
    """Check a store by its bytes alone, without the engine.

    `store` is a name as in `Store.attach`, the path of a shared-memory object, or a descriptor (which stays open).

    Atomicity: none; what moves while it is read is read again, and the report tells by `quiet`.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     store["a"] = 1
    ...     report = deep_check(store.name)
    >>> report.ok, report.records
    (True, 1)

    Args:
        store: str or path-like or int.
        uid: the user whose store the name means; default: this one.

    Raises:
        StoreNotFoundError: there is nothing under the name or path.
        OSError: it cannot be read.
    """
    if isinstance(store, int):
        return _check_descriptor(store)
    path = _path_of(store, uid)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise StoreNotFoundError(f"there is no store {os.fspath(store)!r} ({path} does not exist)") from None
    try:
        return _check_descriptor(fd)
    finally:
        os.close(fd)


def _path_of(store: str | os.PathLike[str], uid: int | None) -> str:
    path = os.fspath(store)
    if not isinstance(store, str) or os.sep in path:
        return path
    return f"/dev/shm/shmkv{_VERSION if _VERSION > 1 else ''}.{os.geteuid() if uid is None else uid}.{path}"


class _Found:
    """Problems of one walk: all are counted, some are kept."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.count = 0

    def add(self, invariant: str, sentence: str) -> None:
        self.count += 1
        if len(self.kept) < MAX_PROBLEMS:
            self.kept.append(Problem(invariant, sentence))


# ---- Header -------------------------------------------------------------------------------------------


class _Header(NamedTuple):
    """`skv_fixed`, field by field."""

    magic: int
    layout_version: int
    byte_order: int
    size: int
    page_shift: int
    bucket_bits: int
    flags: int
    mode: int
    uuid: bytes
    boot_id: bytes
    hash_seed: int
    created_boot_ms: int
    created_wall_ms: int
    procs_offset: int
    buckets_offset: int
    kinds_offset: int
    descriptors_offset: int
    pages_offset: int
    pages: int
    time_namespace: int
    uid: int
    reserved32: int
    reserved: bytes
    checksum: int

    @property
    def buckets(self) -> int:
        return int(1 << self.bucket_bits)


def _header_faults(raw: bytes, header: _Header, file_size: int) -> Iterator[str]:
    """Sentences; nothing else can be trusted if there is one."""
    if header.magic != _MAGIC:
        yield "this is no store: the magic number does not fit"
        return
    if (header.layout_version, header.byte_order) != (_VERSION, _BYTE_ORDER):
        yield f"layout version {header.layout_version}, byte order {header.byte_order:#010x}: not for this checker"
        return
    if xxhash.xxh3_64_intdigest(raw[:_CHECKED_BYTES]) != header.checksum:
        yield "the checksum does not fit"
    if header.size > file_size:
        yield f"it speaks of {header.size} bytes, the object has {file_size}"
    if header.page_shift != 16 or not 4 <= header.bucket_bits <= 26 or not header.pages:
        yield "page size, number of buckets or number of pages is impossible"
        return
    ends = (
        ("process table", header.procs_offset, _PROCS * _PROC.size, header.buckets_offset),
        ("buckets", header.buckets_offset, header.buckets * _BUCKET.size, header.kinds_offset),
        ("page kinds", header.kinds_offset, header.pages, header.descriptors_offset),
        ("page descriptors", header.descriptors_offset, header.pages * _DESCRIPTOR.size, header.pages_offset),
        ("pages", header.pages_offset, header.pages * _PAGE_BYTES, header.size),
    )
    for name, start, length, end in ends:
        if start < _HEADER_BYTES or start + length > end:
            yield f"the {name} do not fit between {start} and {end}"
    if header.buckets_offset % 64 or header.descriptors_offset % 64 or header.pages_offset % _PAGE_BYTES:
        yield "an area is not aligned"


# ---- One walk ---------------------------------------------------------------------------------------------


class _Walk:
    """One look at everything.  `view` is the region; `found` and the numbers are the result."""

    def __init__(self, view: memoryview, header: _Header) -> None:
        self.view = view
        self.words = view.cast("Q")
        self.header = header
        self.found = _Found()
        self.now_ms = time.clock_gettime_ns(_CLOCK_BOOTTIME) // 1_000_000
        self.items = self.tables = self.records = self.blocks_used = self.pages_used = self.locks_held = 0
        committed = self.words[_COMMITTED_AT // 8]
        if committed > header.pages:
            self.found.add("I8", f"{committed} pages are committed, but only {header.pages} fit the region")
        self.pages = min(committed, header.pages)
        self.end = header.pages_offset + self.pages * _PAGE_BYTES
        # By page: family of the blocks (-1: none), and their size in bytes (0: see `extents`).
        self.family = [-1] * self.pages
        self.block_bytes = [0] * self.pages
        self.extents: dict[int, int] = {}  # bytes of runs and of blocks of the unit class, by offset
        # By 16 bytes: 1 = a block in use starts here, 2 = and somebody names it.
        self.marks = bytearray(self.pages * _UNITS_IN_PAGE)
        self.used_rows = [False] * _PROCS
        self.txns: set[int] = set()  # intents that locked buckets refer to

    def run(self) -> None:
        self.check_state()
        self.check_rows()
        _PageWalk(self).run()
        self.check_buckets()
        self.check_intents()

    @property
    def blocks_leaked(self) -> int:
        return self.marks.count(1)

    def fingerprint(self) -> tuple[int, int, int]:
        """Differs if something happened in between: buckets, committed descriptors, batches."""
        header = self.header
        return (
            self._digest(header.buckets_offset, header.buckets * _BUCKET.size),
            self._digest(header.descriptors_offset, self.pages * _DESCRIPTOR.size),
            self.words[_COMMITTED_AT // 8],
        )

    def _digest(self, offset: int, length: int) -> int:
        return xxhash.xxh3_64_intdigest(self.view[offset : offset + length])

    # ---- State and process table ----

    def check_state(self) -> None:
        state = int.from_bytes(self.view[_STATE_AT : _STATE_AT + 4], sys.byteorder)
        if state != _READY:
            self.found.add("header", f"the store's state is {state}, not ready ({_READY})")

    def rows(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(slot, state, spare block, intent, batch status) of the process table."""
        start = self.header.procs_offset
        table = self.view[start : start + _PROCS * _PROC.size]
        for slot, (state, spare, intent, status) in enumerate(_PROC.iter_unpack(table)):
            yield slot, state, spare, intent, status & 3

    def check_rows(self) -> None:
        for slot, state, _, intent, batch in self.rows():
            self.used_rows[slot] = state == 1
            if state > 1:
                self.found.add("I7", f"process slot {slot} has the state {state}")
            elif batch > _BATCH_COMMITTED:
                self.found.add("I6", f"process slot {slot} has the batch status {batch}")
            elif state == 0 and (intent or batch != _BATCH_IDLE):
                self.found.add("I6", f"process slot {slot} is free, but has a batch in flight")

    # ---- Blocks by offset ----

    def fault_of_block(self, offset: int, family: int) -> tuple[str, str] | None:
        """(invariant, why) there is no block in use of this family at `offset`."""
        if offset < self.header.pages_offset or offset + _UNIT > self.end:
            return "I1", "lies outside the committed pages"
        page = (offset - self.header.pages_offset) // _PAGE_BYTES
        if not self.marks[(offset - self.header.pages_offset) // _UNIT]:
            return "I3", "is not where a block in use starts"
        if self.family[page] != family:
            return "I1", "lies among " + ("records" if family == _TABLES else "tables")
        return None

    def bytes_of_block(self, offset: int) -> int:
        page = (offset - self.header.pages_offset) // _PAGE_BYTES
        return self.block_bytes[page] or self.extents[offset]

    def mark(self, offset: int, who: str) -> None:
        """`who` names the block at `offset`, which fault_of_block has looked at."""
        unit = (offset - self.header.pages_offset) // _UNIT
        if self.marks[unit] == 2:
            self.found.add("I2", f"{who} names the block at offset {offset}, which something else names too")
        self.marks[unit] = 2

    # ---- Buckets and intents ----

    def check_buckets(self) -> None:
        start = self.header.buckets_offset
        buckets = self.view[start : start + self.header.buckets * _BUCKET.size]
        for number, fields in enumerate(_BUCKET.iter_unpack(buckets)):
            _BucketWalk(self, number, _Bucket(*fields[:9])).run()

    def check_intents(self) -> None:
        for slot, state, spare, offset, batch in self.rows():
            self.note_spare(slot, state, spare)
            # Of a dead process the block may have been freed already: whether it is in use is not asked.
            outside = offset < self.header.pages_offset or offset + _INTENT.size > self.end
            if state == 1 and batch != _BATCH_IDLE and outside and not self.is_in_row(offset):
                self.found.add("I6", f"process slot {slot} has a batch in flight, but no intent ({offset} is no place)")
        for offset in self.txns:
            if not self.is_in_row(offset):
                self.note_intent(offset)

    def note_spare(self, slot: int, state: int, offset: int) -> None:
        """The block that a process keeps for its next put is no leak."""
        if state == 1 and offset and not self.fault_of_block(offset, _RECORDS):
            self.mark(offset, f"process slot {slot}, as its spare block,")

    def is_in_row(self, offset: int) -> bool:
        row, within = divmod(offset - self.header.procs_offset, _PROC.size)
        return 0 <= row < _PROCS and within == _REMOVAL_AT

    def entries_of(self, offset: int) -> memoryview | None:
        """The entries of the intent at `offset`; None if there is none."""
        if self.fault_of_block(offset, _TABLES):
            return None
        kind, _, _, _, count, _ = _INTENT.unpack_from(self.view, offset)
        size = _INTENT.size + count * _INTENT_ENTRY.size
        if kind != _META_INTENT or size > self.bytes_of_block(offset):
            return None
        return self.view[offset + _INTENT.size : offset + size]

    def note_intent(self, offset: int) -> None:
        """What an intent names is in use, whether its batch is committed or not."""
        entries = self.entries_of(offset)
        if entries is None:
            self.found.add("I5", f"a bucket refers to a batch (txn {offset}), but no intent is there")
            return
        self.note_name(offset)
        for entry in _INTENT_ENTRY.iter_unpack(entries):
            self.note_name((entry[2] & _OFFSET_MASK) * _UNIT)
            self.note_name((entry[3] & _OFFSET_MASK) * _UNIT)

    def note_name(self, offset: int) -> None:
        unit = (offset - self.header.pages_offset) // _UNIT
        if 0 <= unit < len(self.marks) and self.marks[unit]:
            self.marks[unit] = 2


# ---- Pages -------------------------------------------------------------------------------------------------


def _class_bytes(cls: int) -> int:
    """Block size of a class, but not of the unit class: 32, 48, ... 128, then eight to a doubling."""
    if cls < 7:
        return 32 + 16 * cls
    base: int = 128 << ((cls - 7) // 8)
    return base + base // 8 * ((cls - 7) % 8 + 1)


_CLASS_BYTES: Final = tuple(_class_bytes(cls) for cls in range(_UNIT_CLASS))
_DIGITS_TO_MARKS: Final = bytes.maketrans(b"01", b"\0\1")


class _PageWalk:
    """Descriptors and bitmaps: fills `family`, `block_bytes`, `extents` and `marks` of the walk."""

    def __init__(self, walk: _Walk) -> None:
        self.walk = walk
        self.run_head = 0
        self.run_end = 0  # pages before it belong to the run at `run_head`

    def run(self) -> None:
        start = self.walk.header.descriptors_offset
        descriptors = self.walk.view[start : start + self.walk.pages * _DESCRIPTOR.size]
        for page, (word, bitmap) in enumerate(_DESCRIPTOR.iter_unpack(descriptors)):
            self.check_page(page, word, bitmap)

    def fault(self, page: int, why: str, invariant: str = "I8") -> None:
        self.walk.found.add(invariant, f"page {page}: {why}")

    def check_page(self, page: int, word: int, bitmap: bytes) -> None:
        state = word & 0xF
        if page < self.run_end:
            if word != _TAIL | (page - self.run_head) << 32:
                self.fault(page, f"number {page - self.run_head} of the run at page {self.run_head} says {word:#018x}")
        elif state == _TAIL:
            self.fault(page, "it says that it is inside a run, but there is none")
        if state != _BLOCKS and any(bitmap):
            self.fault(page, "it has no blocks, but bits in its bitmap")
        self.walk.pages_used += state not in (_FREE, _PUNCHED)
        if state == _BLOCKS:
            self.check_blocks(page, word, bitmap)
        elif state == _RUN:
            self.check_run(page, word)
        elif state > _PUNCHED or (state != _TAIL and word != state):
            self.fault(page, f"no page has the descriptor {word:#018x}")

    def check_run(self, page: int, word: int) -> None:
        family, length = word >> 4 & 0xF, word >> 32
        walk = self.walk
        if word != _RUN | family << 4 | length << 32 or family > _TABLES:
            self.fault(page, f"no run has the descriptor {word:#018x}")
        if page < self.run_end or not 1 <= length <= walk.pages - page:
            self.fault(page, f"a run of {length} pages does not fit here")
            return
        self.run_head, self.run_end = page, page + length
        walk.family[page] = family
        walk.extents[walk.header.pages_offset + page * _PAGE_BYTES] = length * _PAGE_BYTES
        walk.marks[page * _UNITS_IN_PAGE] = 1
        walk.blocks_used += 1

    def check_blocks(self, page: int, word: int, bitmap: bytes) -> None:
        family, owner, cls = word >> 4 & 0xF, word >> 8 & 0x7FF, word >> 20 & 0xFF
        plain = _BLOCKS | family << 4 | owner << 8 | (word & _EVACUATED) | cls << 20
        if word != plain or family > _TABLES or cls >= _CLASSES or owner > _PROCS or (word & _EVACUATED and not owner):
            self.fault(page, f"no page of blocks has the descriptor {word:#018x}")
            return
        if owner and not self.walk.used_rows[owner - 1]:
            self.fault(page, f"it is owned by process slot {owner - 1}, which is free", "I7")
        self.walk.family[page] = family
        if cls == _UNIT_CLASS:
            self.mark_units(page, int.from_bytes(bitmap[:8], sys.byteorder), bitmap[8 : 8 + _BLOCK_UNITS])
            if any(bitmap[8 + _BLOCK_UNITS :]):
                self.fault(page, "behind the lengths of its blocks something is set")
        else:
            self.mark_blocks(page, _CLASS_BYTES[cls], _bits_of(bitmap))

    def mark_blocks(self, page: int, size: int, bits: int) -> None:
        blocks = _PAGE_BYTES // size
        if bits >> blocks:
            self.fault(page, f"its bitmap has bits beyond its {blocks} blocks")
            bits &= (1 << blocks) - 1
        self.walk.block_bytes[page] = size
        self.walk.blocks_used += bits.bit_count()
        # Block i of the page starts `i * size` bytes in; a binary number has its lowest bit last.
        marks = f"{bits:0{blocks}b}".encode().translate(_DIGITS_TO_MARKS)[::-1]
        first, step = page * _UNITS_IN_PAGE, size // _UNIT
        self.walk.marks[first : first + blocks * step : step] = marks

    def mark_units(self, page: int, bits: int, lengths: bytes) -> None:
        walk = self.walk
        unit = 0
        while unit < _BLOCK_UNITS:
            if not bits >> unit & 1:
                unit += 1
                continue
            length = lengths[unit]
            mask = (1 << length) - 1
            if not 1 <= length <= _BLOCK_UNITS - unit or bits >> unit & mask != mask:
                self.fault(page, f"the block at unit {unit} says that it has {length} units, in use are {bits:#018x}")
                return
            offset = walk.header.pages_offset + page * _PAGE_BYTES + unit * _BLOCK_UNIT
            walk.extents[offset] = length * _BLOCK_UNIT
            walk.marks[(offset - walk.header.pages_offset) // _UNIT] = 1
            walk.blocks_used += 1
            unit += length


def _bits_of(bitmap: bytes) -> int:
    """Bit i of the result is block i: the words of a bitmap are in the machine's byte order, lowest first."""
    if sys.byteorder == "little":
        return int.from_bytes(bitmap, "little")
    return sum(word << 64 * i for i, word in enumerate(struct.unpack("=32Q", bitmap)))


# ---- Buckets -----------------------------------------------------------------------------------------------


class _Bucket(NamedTuple):
    """`skv_bucket`, field by field."""

    lock: int
    live: int
    seq: int
    table: int
    txn: int
    tombstones: int
    hand: int
    value_bytes: int
    earliest_expiry: int


class _Item(NamedTuple):
    """What a slot's record says."""

    key: bytes
    is_bytes: bool
    value_len: int
    expires_ms: int
    version: int


class _BucketWalk:
    """One bucket: table, slots, records, and the numbers that are derived from them."""

    def __init__(self, walk: _Walk, number: int, bucket: _Bucket) -> None:
        self.walk = walk
        self.number = number
        self.bucket = bucket
        self.live = self.tombstones = self.value_bytes = self.earliest = 0
        self.seen: dict[tuple[bytes, bool], int] = {}  # slot by key
        self.empty_before: list[int] = []

    def fault(self, invariant: str, why: str) -> None:
        self.walk.found.add(invariant, f"bucket {self.number}: {why}")

    def run(self) -> None:
        bucket = self.bucket
        self.check_lock()
        words = self.slots() if bucket.table else []
        if words is None:
            return
        self.check_slots(words[0::2], words[1::2])
        if not bucket.lock:
            self.check_derived()

    def check_lock(self) -> None:
        lock, txn = self.bucket.lock, self.bucket.txn
        owner = lock & 0x3FF
        if not lock:
            if txn:
                self.fault("I5", f"it refers to a batch (txn {txn}) while nobody has its lock")
            return
        self.walk.locks_held += 1
        if txn:
            self.walk.txns.add(txn)
        if not owner:
            self.fault("I4", f"it is locked by nobody (word {lock:#010x})")
        elif not self.walk.used_rows[owner - 1]:
            self.fault("I7", f"it is locked by process slot {owner - 1}, which is free")

    def slots(self) -> list[int] | None:
        """Words A and B of all slots in turn; None if there is no table that can be read."""
        walk, word = self.walk, self.bucket.table
        capacity, offset = word >> _OFFSET_BITS, (word & _OFFSET_MASK) * _UNIT
        fault = walk.fault_of_block(offset, _TABLES)
        if fault:
            self.fault(fault[0], f"its table (offset {offset}, capacity {capacity}) {fault[1]}")
            return None
        walk.mark(offset, f"bucket {self.number} (its table word)")
        walk.tables += 1
        why = None
        if not capacity or (capacity + 1) * 16 > walk.bytes_of_block(offset):
            why = "does not fit its block"
        elif _META.unpack_from(walk.view, offset) != (_META_TABLE, self.number, capacity):
            why = "opens with the header of something else"
        if why:
            self.fault("I1", f"its table (offset {offset}, capacity {capacity}) {why}")
            return None
        first = offset // 8 + 2
        return walk.words[first : first + 2 * capacity].tolist()

    def check_slots(self, a_words: list[int], b_words: list[int]) -> None:
        empty = 0
        self.empty_before = []
        for a in a_words:
            self.empty_before.append(empty)
            empty += a == 0
        self.empty_before.append(empty)
        for i, a in enumerate(a_words):
            if a > _TOMBSTONE:
                self.check_live(i, a, b_words[i])
            else:
                self.tombstones += a == _TOMBSTONE
        if a_words and not empty:
            self.fault("I11", "its table has no empty slot, so that a miss looks at all of it")

    def check_live(self, i: int, a: int, b: int) -> None:
        if a & _OFFSET_MASK <= _TOMBSTONE:
            self.fault("I1", f"slot {i}: word A {a:#018x} is neither empty, nor a tombstone, nor a record")
            return
        self.live += 1
        item = self.read_record(i, (a & _OFFSET_MASK) * _UNIT)
        if item is None:
            return
        walk = self.walk
        walk.records += 1
        walk.items += not item.expires_ms or walk.now_ms < item.expires_ms
        self.value_bytes += item.value_len
        if item.expires_ms and (not self.earliest or item.expires_ms < self.earliest):
            self.earliest = item.expires_ms
        key_hash = xxhash.xxh3_64_intdigest(item.key, walk.header.hash_seed) ^ (_BYTES_KEY_HASH if item.is_bytes else 0)
        if self.belongs_here(i, a >> _OFFSET_BITS, key_hash):
            self.check_place(i, a >> _OFFSET_BITS, item)
            self.check_hints(i, b, key_hash, item)

    def read_record(self, i: int, offset: int) -> _Item | None:
        walk = self.walk
        fault = walk.fault_of_block(offset, _RECORDS)
        if fault:
            self.fault(fault[0], f"slot {i}: its record (offset {offset}) {fault[1]}")
            return None
        walk.mark(offset, f"bucket {self.number}, slot {i}")
        value_len, key_len, kind, flags, version = _RECORD.unpack_from(walk.view, offset)
        start = offset + _RECORD.size + (8 if flags & _REC_EXPIRY else 0)
        if start + key_len + value_len - offset > walk.bytes_of_block(offset):
            self.fault("I1", f"slot {i}: its record (offset {offset}) does not fit its block")
            return None
        if flags & ~(_REC_BYTES_KEY | _REC_EXPIRY) or kind not in _TYPES or (kind == _TYPE_INT and value_len != 8):
            self.fault("I1", f"slot {i}: no record has the type {kind}, the flags {flags:#x} and {value_len} bytes")
        expires_ms: int = _EXPIRY.unpack_from(walk.view, offset + _RECORD.size)[0] if flags & _REC_EXPIRY else 0
        key = bytes(walk.view[start : start + key_len])
        return _Item(key, bool(flags & _REC_BYTES_KEY), value_len, expires_ms, version)

    def belongs_here(self, i: int, tag: int, key_hash: int) -> bool:
        bucket = key_hash >> (64 - self.walk.header.bucket_bits)
        if bucket != self.number:
            self.fault("I1", f"slot {i}: its key belongs into bucket {bucket}")
        elif tag != key_hash & _TAG_MASK:
            self.fault("I1", f"slot {i}: its tag is {tag:#08x}, its key's is {key_hash & _TAG_MASK:#08x}")
        else:
            return True
        return False

    def check_place(self, i: int, tag: int, item: _Item) -> None:
        """A reader who starts at the key's home meets no empty slot, and the key nowhere else."""
        empty = self.empty_before
        capacity = len(empty) - 1
        home = tag * capacity >> _TAG_BITS
        between = empty[i] - empty[home] if home <= i else empty[capacity] - empty[home] + empty[i]
        if between:
            self.fault("I1", f"slot {i}: a reader stops at an empty slot after {home} and misses it")
        first = self.seen.setdefault((item.key, item.is_bytes), i)
        if first != i:
            self.fault("I2", f"slots {first} and {i} hold the same key")

    def check_hints(self, i: int, b: int, key_hash: int, item: _Item) -> None:
        if item.version > self.bucket.seq + bool(self.bucket.lock):
            self.fault("I11", f"slot {i}: its version {item.version} is later than the bucket's seq {self.bucket.seq}")
        if self.bucket.lock:
            return
        if b & _EXPIRY_MASK != min(item.expires_ms, _EXPIRY_MASK):
            self.fault("I11", f"slot {i}: word B says expiry {b & _EXPIRY_MASK}, the record {item.expires_ms}")
        # Where items are evicted, what eviction goes by lies there, and may be anything.
        evicts = self.walk.header.flags & _FLAG_EVICT
        if not evicts and b & _B_HASH_MASK != key_hash >> _TAG_BITS << _OFFSET_BITS & _B_HASH_MASK:
            self.fault("I11", f"slot {i}: word B has other hash bits than the key")

    def check_derived(self) -> None:
        bucket = self.bucket
        for name, says, counted in (
            ("count", bucket.live, self.live),
            ("tombstones", bucket.tombstones, self.tombstones),
            ("value_bytes", bucket.value_bytes, self.value_bytes),
        ):
            if says != counted:
                self.fault("I11", f"{name} is {says}, a recount gives {counted}")
        if self.earliest and not 0 < bucket.earliest_expiry <= self.earliest:
            self.fault("I11", f"earliest_expiry is {bucket.earliest_expiry}, an item expires at {self.earliest}")


# ---- All of it ------------------------------------------------------------------------------------------------


def _check_descriptor(fd: int) -> DeepReport:
    size = os.fstat(fd).st_size
    raw = os.pread(fd, _HEADER_BYTES, 0)
    if len(raw) < _HEADER_BYTES:
        return _refused([f"this is no store: it has only {size} bytes"])
    header = _Header(*_FIXED.unpack_from(raw))
    faults = list(_header_faults(raw, header, size))
    if faults:
        return _refused(faults)
    # Unmapped when the last view of it is gone.
    return _walk_until_quiet(memoryview(mmap.mmap(fd, header.size, access=mmap.ACCESS_READ)), header)


def _refused(faults: list[str]) -> DeepReport:
    problems = tuple(Problem("header", fault) for fault in faults)
    return DeepReport(problems, len(problems), 0, 0, 0, 0, 0, 0, 0, quiet=True)


def _walk_until_quiet(view: memoryview, header: _Header) -> DeepReport:
    """Repeats the walk while the store changes; what not every walk found was in motion."""
    lasting: list[Problem] | None = None
    for _ in range(MAX_WALKS):
        walk = _Walk(view, header)
        before = walk.fingerprint()
        walk.run()
        quiet = walk.fingerprint() == before
        found = walk.found.kept
        lasting = found if quiet or lasting is None else [problem for problem in lasting if problem in found]
        report = _report_of(walk, lasting, quiet)
        if quiet or not lasting:
            break
    return report


def _report_of(walk: _Walk, problems: list[Problem], quiet: bool) -> DeepReport:
    return DeepReport(
        problems=tuple(problems),
        problems_found=walk.found.count if quiet else len(problems),
        items=walk.items,
        tables=walk.tables,
        records=walk.records,
        blocks_used=walk.blocks_used,
        blocks_leaked=walk.blocks_leaked,
        pages_used=walk.pages_used,
        locks_held=walk.locks_held,
        quiet=quiet,
    )

"""What a store tells about itself: numbers, findings, who is attached, what there is on this machine.

Apart from store.py, which imports this when it is asked: whoever only reads and writes does not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

__all__ = ["CheckReport", "CompactReport", "Problem", "ProcessInfo", "StoreInfo", "StoreStats"]


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Numbers of a store; counters are summed over all processes that ever used it, dead ones included."""

    items: int  # live ones, expired ones not counted
    value_bytes: int  # of the live values, as stored
    gets: int  # keys looked up: hits + misses
    hits: int
    misses: int
    sets: int
    deletes: int
    expired: int  # items dropped because their time had come
    evicted: int  # items dropped to make room
    retries: int  # reads repeated because a writer had been there
    lock_waits: int  # writes that had to wait for another writer
    size: int  # bytes, the most that the store may take
    committed: int  # bytes of memory that it takes now
    used: int  # bytes of that which are in use: fixed areas, and pages that hold something
    processes: int  # that live and are attached with the right to write
    buckets: int
    table_bytes: int  # bytes of `used` that are tables
    stale: bool = False  # its name leads to another store by now, or to none: `Store.stale`

    @property
    def hit_rate(self) -> float:
        """Hits per lookup, 0.0 to 1.0; 0.0 before the first lookup."""
        return self.hits / self.gets if self.gets else 0.0

    @property
    def bytes_per_item(self) -> float:
        """Memory in use per item, keys and values included; 0.0 in an empty store."""
        return self.used / self.items if self.items else 0.0


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken invariant."""

    invariant: str  # "I1" to "I11", see docs/concurrency.md
    sentence: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `Store.check` found; true in a boolean context if all is well."""

    problems: tuple[Problem, ...]
    items: int
    tables: int
    records: int
    blocks_used: int
    blocks_leaked: int  # tentative while others write
    pages_used: int
    dead_slots: int  # processes that ended without closing; `compact` clears up after them

    @property
    def ok(self) -> bool:
        """No invariant is broken."""
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What `Store.compact` did."""

    expired: int  # items dropped
    leaks: int  # blocks that a dead process had left
    moved: int  # blocks gathered into fuller pages
    pages_freed: int  # of 64 KiB, for any later size
    bytes_returned: int  # to the system
    slots_reclaimed: int  # places of dead processes


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A living process that is attached to a store with the right to write."""

    slot: int
    pid: int  # in its own pid namespace
    name: str | None  # None where it cannot be seen from here
    status: str | None  # "running", "sleeping", "stopped", ... as psutil says
    this: bool  # the process that asks


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store of this machine, as `list_stores` found it."""

    name: str
    size: int | None  # bytes; None where `problem` says why
    committed: int  # bytes of memory that it takes
    uid: int
    mode: int | None
    on_full: str | None
    created: datetime | None  # UTC
    uuid: UUID | None
    processes: int  # that live and are attached with the right to write
    problem: str | None  # None, or why nobody can attach to it
    path: str | None = None  # of a durable one: its directory, as who opened it last called it

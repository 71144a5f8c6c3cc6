"""Who fills a store: its largest items, and what the keys that begin alike take together; and how full it is.

What: numbers over the facts of every key (name, type, bytes, expiry), which a walk tells without reading a value.  The
      command `keys` and the server's report say the same of a store.
How:  one pass and bounded memory: some largest ones in a heap, and at most so many prefixes by name; keys whose prefix
      came too late are counted together.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from shmkv.reports import StoreStats

SEPARATORS: Final = ":/"  # a prefix ends with the first of them
MOST_PREFIXES: Final = 10_000
NEARLY_FULL: Final = 0.9  # of what a store may take
_SHARED_MEMORY: Final = "/dev/shm"

Key = str | bytes


class Fact(NamedTuple):
    """What is known of an item without its value."""

    key: Key
    type: str  # of Python: "bytes", "str", ...
    size: int  # bytes of the value, as stored
    ttl: float | None  # seconds left


def largest(facts: Iterable[Fact], count: int) -> list[Fact]:
    """The items with the largest values, the largest first.

    >>> [fact.key for fact in largest([Fact("a", "str", 5, None), Fact("b", "str", 9, None)], 1)]
    ['b']
    """
    return heapq.nlargest(count, facts, key=lambda fact: fact.size)


# ---- Prefixes --------------------------------------------------------------------------------


@dataclass
class Share:
    """What the keys of one prefix take."""

    items: int = 0
    size: int = 0  # bytes of keys and values
    expiring: int = 0  # items that have an expiry
    next_ttl: float | None = None  # seconds until the first of them goes

    def add(self, size: int, ttl: float | None) -> None:
        self.items += 1
        self.size += size
        if ttl is not None:
            self.expiring += 1
            self.next_ttl = ttl if self.next_ttl is None else min(ttl, self.next_ttl)

    def merge(self, other: Share) -> None:
        """Add what another one counted."""
        self.items += other.items
        self.size += other.size
        self.expiring += other.expiring
        if other.next_ttl is not None:
            self.next_ttl = other.next_ttl if self.next_ttl is None else min(other.next_ttl, self.next_ttl)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {"items": self.items, "bytes": self.size, "expiring": self.expiring, "next_ttl": self.next_ttl}


class Prefixes:
    """Shares by prefix, a key at a time.

    >>> shares = Prefixes()
    >>> for key in ("user:1", "user:2", "plain"):
    ...     shares.add(key, 10, None)
    >>> [(prefix, share.items) for prefix, share in shares.sorted()], shares.without.items
    ([('user:', 2)], 1)
    """

    def __init__(self, separators: str = SEPARATORS) -> None:
        text = f"[{re.escape(separators)}]"
        self._find: Callable[[str], re.Match[str] | None] = re.compile(text).search
        self._find_bytes: Callable[[bytes], re.Match[bytes] | None] = re.compile(text.encode()).search
        self._shares: dict[Key, Share] = {}
        self.without = Share()  # keys without any separator
        self.others = Share()  # keys whose prefix came when there were too many

    def add(self, key: Key, value_size: int, ttl: float | None) -> None:
        """Count an item."""
        length = len(key) if isinstance(key, bytes) or key.isascii() else len(key.encode())
        self._share_of(key).add(length + value_size, ttl)

    def _share_of(self, key: Key) -> Share:
        found = self._find_bytes(key) if isinstance(key, bytes) else self._find(key)
        if found is None:
            return self.without
        prefix = key[: found.end()]
        share = self._shares.get(prefix)
        if share is None:
            if len(self._shares) >= MOST_PREFIXES:
                return self.others
            share = self._shares[prefix] = Share()
        return share

    def sorted(self) -> list[tuple[Key, Share]]:
        """Those with a prefix, the one that takes most first."""
        return sorted(self._shares.items(), key=lambda pair: pair[1].size, reverse=True)

    def told(self, count: int) -> list[dict[str, Any]]:
        """As JSON: the `count` largest, then what keys without a prefix take, and those of all other prefixes."""
        listed = self.sorted()
        rest = Share()
        for share in (self.others, *(share for _, share in listed[count:])):
            rest.merge(share)
        rows = [{**_prefix_form(prefix), **share.told()} for prefix, share in listed[:count]]
        ends = (("without", self.without), ("others", rest))
        return [*rows, *({"prefix": None, "which": which, **share.told()} for which, share in ends if share.items)]


def _prefix_form(prefix: Key) -> dict[str, str]:
    if isinstance(prefix, str):
        return {"prefix": prefix}
    from base64 import b64encode

    return {"prefix_base64": b64encode(prefix).decode()}


# ---- How full --------------------------------------------------------------------------------


class Fill(NamedTuple):
    """How much of its room a store uses."""

    limit: int  # bytes, the most that it can take now: its size, or less where /dev/shm has no more
    share: float  # used of that, 0.0 to 1.0
    refuses: bool  # what finds no room is refused; else something is evicted for it

    @property
    def is_nearly_full(self) -> bool:
        """Soon writes are refused."""
        return self.refuses and self.share >= NEARLY_FULL


def fill_of(stats: StoreStats, evicts: bool, free: int | None = None) -> Fill:
    """How full a store is.

    Args:
        free: bytes that /dev/shm has left; by default it is asked.

    >>> from shmkv import Store
    >>> with Store(size="4MiB") as store:
    ...     fill_of(store.stats(), False, free=0).limit == store.stats().committed
    True
    """
    left = _free_memory() if free is None else free
    limit = min(stats.size, stats.committed + left)
    return Fill(limit, min(1.0, stats.used / limit) if limit else 1.0, not evicts)


def _free_memory() -> int:
    found = os.statvfs(_SHARED_MEMORY)
    return found.f_bavail * found.f_frsize

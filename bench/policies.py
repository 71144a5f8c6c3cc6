"""Simulators of eviction policies, for items of one size: what a cache of so many items would have had.

Each takes one request after the other: `request(key)` is True for a hit; a miss puts the key.  Written from the papers
that their docstrings name; the numbers in the constructors are the papers' own.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from typing import Protocol


class Policy(Protocol):
    """A cache of a fixed number of items."""

    name: str

    def request(self, key: int) -> bool:
        """Ask for a key, and put it if it is not there.  True: it was."""


class Lru:
    """The least recently used item goes."""

    name = "LRU"

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[int, None] = OrderedDict()

    def request(self, key: int) -> bool:
        if key in self._items:
            self._items.move_to_end(key)
            return True
        if len(self._items) >= self._capacity:
            self._items.popitem(last=False)
        self._items[key] = None
        return False


class Sieve:
    """A hand goes from old to new and takes what was not read since it last passed (Zhang et al., NSDI 2024)."""

    name = "SIEVE"

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._read: dict[int, bool] = {}
        self._newer: dict[int, int | None] = {}
        self._older: dict[int, int | None] = {}
        self._newest: int | None = None
        self._oldest: int | None = None
        self._hand: int | None = None

    def request(self, key: int) -> bool:
        if key in self._read:
            self._read[key] = True
            return True
        if len(self._read) >= self._capacity:
            self._evict()
        self._insert(key)
        return False

    def _insert(self, key: int) -> None:
        self._read[key] = False
        self._newer[key], self._older[key] = None, self._newest
        if self._newest is None:
            self._oldest = key
        else:
            self._newer[self._newest] = key
        self._newest = key

    def _evict(self) -> None:
        at = self._oldest if self._hand is None else self._hand
        assert at is not None
        while self._read[at]:
            self._read[at] = False
            newer = self._newer[at]
            at = self._oldest if newer is None else newer
            assert at is not None
        self._hand = self._newer[at]
        self._unlink(at)

    def _unlink(self, key: int) -> None:
        newer, older = self._newer.pop(key), self._older.pop(key)
        del self._read[key]
        if newer is None:
            self._newest = older
        else:
            self._older[newer] = older
        if older is None:
            self._oldest = newer
        else:
            self._newer[older] = newer


class S3Fifo:
    """Three queues: a small one for what is new, a main one, and the keys of what has left (Yang et al., SOSP 2023)."""

    name = "S3-FIFO"
    SMALL_PART = 10
    MOST_READS = 3

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._small_room = max(1, capacity // self.SMALL_PART)
        self._small: deque[int] = deque()
        self._main: deque[int] = deque()
        self._reads: dict[int, int] = {}
        self._ghosts: OrderedDict[int, None] = OrderedDict()

    def request(self, key: int) -> bool:
        if key in self._reads:
            self._reads[key] = min(self._reads[key] + 1, self.MOST_READS)
            return True
        while len(self._reads) >= self._capacity:
            self._evict()
        if key in self._ghosts:
            del self._ghosts[key]
            self._main.append(key)
        else:
            self._small.append(key)
        self._reads[key] = 0
        return False

    def _evict(self) -> None:
        if self._small and (len(self._small) >= self._small_room or not self._main):
            self._evict_small()
        else:
            self._evict_main()

    def _evict_small(self) -> None:
        key = self._small.popleft()
        if self._reads[key] > 1:
            self._reads[key] = 0
            self._main.append(key)
            return
        del self._reads[key]
        self._ghosts[key] = None
        if len(self._ghosts) > self._capacity - self._small_room:
            self._ghosts.popitem(last=False)

    def _evict_main(self) -> None:
        key = self._main.popleft()
        if self._reads[key] > 0:
            self._reads[key] -= 1
            self._main.append(key)
        else:
            del self._reads[key]


class WTinyLfu:
    """A window of 1 %, then whoever was asked for more often (Einziger, Friedman and Manes, ACM TOS 2017).

    Frequencies are counted exactly, over ten times the capacity in requests, and halved then: what a sketch of a few
    bits an item comes near to.  The main part is a segmented LRU, of which 80 % are protected.
    """

    name = "W-TinyLFU"
    WINDOW_PART = 100
    PROTECTED = 0.8
    SAMPLE = 10

    def __init__(self, capacity: int) -> None:
        self._window_room = max(1, capacity // self.WINDOW_PART)
        self._main_room = capacity - self._window_room
        self._protected_room = int(self._main_room * self.PROTECTED)
        self._sample = self.SAMPLE * capacity
        self._window: OrderedDict[int, None] = OrderedDict()
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._protected: OrderedDict[int, None] = OrderedDict()
        self._counts: Counter[int] = Counter()
        self._counted = 0

    def request(self, key: int) -> bool:
        self._count(key)
        if key in self._window:
            self._window.move_to_end(key)
        elif key in self._protected:
            self._protected.move_to_end(key)
        elif key in self._probation:
            self._promote(key)
        else:
            self._insert(key)
            return False
        return True

    def _count(self, key: int) -> None:
        self._counts[key] += 1
        self._counted += 1
        if self._counted >= self._sample:
            self._counted //= 2
            self._counts = Counter({each: count // 2 for each, count in self._counts.items() if count > 1})

    def _promote(self, key: int) -> None:
        del self._probation[key]
        self._protected[key] = None
        if len(self._protected) > self._protected_room:
            oldest, _ = self._protected.popitem(last=False)
            self._probation[oldest] = None

    def _insert(self, key: int) -> None:
        self._window[key] = None
        if len(self._window) <= self._window_room:
            return
        candidate, _ = self._window.popitem(last=False)
        if len(self._probation) + len(self._protected) < self._main_room:
            self._probation[candidate] = None
            return
        victim = next(iter(self._probation or self._protected))
        if self._counts[candidate] > self._counts[victim]:
            del (self._probation if victim in self._probation else self._protected)[victim]
            self._probation[candidate] = None


POLICIES = (Lru, Sieve, S3Fifo, WTinyLfu)

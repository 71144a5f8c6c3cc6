"""A histogram of durations that can be merged: exact counts, values within 1 %.

The idea is Gil Tene's HdrHistogram: bars of equal width within each power of two, so that the
relative error is bounded and the size is fixed (a few thousand counters), whatever is recorded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

_SUB_BITS: Final = 7
_SUB: Final = 1 << _SUB_BITS  # bars per power of two: half of 1/128 is the largest error, 0.4 %
_EXACT: Final = 2 * _SUB  # below it each value has a bar of its own
_MAX_BITS: Final = 44  # 2**44 ns are 4.9 hours; more is counted as that
_BARS: Final = (_MAX_BITS - _SUB_BITS) * _SUB + _SUB


def bar_of(value: int) -> int:
    """The bar that counts `value` (nanoseconds, >= 0).

    >>> bar_of(0), bar_of(255), bar_of(256), bar_of(257), bar_of(258)
    (0, 255, 256, 256, 257)
    """
    if value < _EXACT:
        return value if value > 0 else 0
    shift = value.bit_length() - _SUB_BITS - 1
    return min((shift << _SUB_BITS) + (value >> shift), _BARS - 1)


def highest_in(bar: int) -> int:
    """The largest value that a bar counts.

    >>> all(bar_of(highest_in(b)) == b and bar_of(highest_in(b) + 1) == b + 1 for b in range(3_000))
    True
    """
    if bar < _EXACT:
        return bar
    shift = (bar >> _SUB_BITS) - 1
    low = ((bar & (_SUB - 1)) + _SUB) << shift
    return low + (1 << shift) - 1


class Histogram:
    """Counts of durations in nanoseconds.

    >>> h = Histogram()
    >>> h.record(range(1, 101))
    >>> h.percentile(50), h.percentile(99), h.max, h.count
    (50, 99, 100, 100)
    """

    __slots__ = ("_bars", "count", "max", "total")

    def __init__(self) -> None:
        self._bars = array("Q", bytes(8 * _BARS))
        self.count = 0
        self.max = 0
        self.total = 0

    def record(self, values: Iterable[int]) -> None:
        """Count each of `values`."""
        bars, last, largest, count, total = self._bars, _BARS - 1, self.max, 0, 0
        for value in values:
            if value < _EXACT:
                bars[value if value > 0 else 0] += 1
            else:
                shift = value.bit_length() - _SUB_BITS - 1
                bar = (shift << _SUB_BITS) + (value >> shift)
                bars[bar if bar < last else last] += 1
            if value > largest:
                largest = value
            count += 1
            total += value
        self.count += count
        self.total += total
        self.max = largest

    def merge(self, other: Histogram) -> None:
        """Add all that `other` counted.

        >>> a, b = Histogram(), Histogram()
        >>> a.record([1]), b.record([1_000_000])
        (None, None)
        >>> a.merge(b); a.count, a.max
        (2, 1000000)
        """
        mine = self._bars
        for bar, n in enumerate(other._bars):
            if n:
                mine[bar] += n
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    @property
    def mean(self) -> float:
        """Exact mean in nanoseconds; 0.0 of nothing."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The smallest value that `percent` of all are at most (within 1 %, never above the max)."""
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for bar, n in enumerate(self._bars):
            seen += n
            if seen >= wanted:
                return min(highest_in(bar), self.max)
        return self.max

    def summary(self) -> dict[str, int]:
        """count, p50, p95, p99, p99.9 and max, in nanoseconds.

        >>> Histogram().summary()
        {'count': 0, 'p50': 0, 'p95': 0, 'p99': 0, 'p99.9': 0, 'max': 0}
        """
        points = {name: self.percentile(p) for name, p in (("p50", 50), ("p95", 95), ("p99", 99), ("p99.9", 99.9))}
        return {"count": self.count, **points, "max": self.max}

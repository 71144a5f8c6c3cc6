"""How long requests took, over all workers: counted in a store of the server's own, so that a worker's death loses no
more than its last quarter of a second.

The side store is private to the server: the supervisor makes it, hands it to each worker, and it goes when the server
ends.  What all workers have to share lies in it, request times here, the report of about.py.
"""

from __future__ import annotations

from asyncio import get_running_loop
from bisect import bisect_left
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from shmkv.errors import LockTimeoutError

if TYPE_CHECKING:
    from shmkv import Store

BOUNDS_S: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in BOUNDS_S)
METHODS: Final = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE"))
FLUSH_S: Final = 0.25
_PREFIX: Final = "requests|"


class Times(NamedTuple):
    """Of one route, method and status."""

    route: str
    method: str
    status: str
    counts: list[int]  # by the bounds, and beyond the last one
    seconds: float  # of all together


class Observer:
    """Counts requests: at once in this worker, and every FLUSH_S in the side store."""

    def __init__(self, side: Store) -> None:
        self._side = side
        self._counts: dict[tuple[str, str, int], list[int]] = {}  # by the bounds, beyond them, nanoseconds
        self._flushing = False

    def note(self, route: str, method: str, status: int, took_ns: int) -> None:
        """A request was answered."""
        kind = (route, method, status)
        counts = self._counts.get(kind) or self._new_counts(route, method, status)
        counts[bisect_left(_BOUNDS_NS, took_ns)] += 1
        counts[-1] += took_ns
        if not self._flushing:
            self._flushing = True
            get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        """Tell the other workers what was counted here.  In the event loop's thread, as `note`."""
        self._flushing = False
        with suppress(LockTimeoutError):  # a worker was stopped while it counted: the next flush tells the rest
            for kind, counts in self._counts.items():
                label = _PREFIX + "|".join(map(str, kind))
                for at, count in enumerate(counts):
                    if count:
                        self._side.incr(f"{label}|{at}", count)
                        counts[at] = 0

    def _new_counts(self, route: str, method: str, status: int) -> list[int]:
        """Methods are what clients make up: all but a few are one."""
        kind = (route, method if method in METHODS else "other", status)
        return self._counts.setdefault(kind, [0] * (len(BOUNDS_S) + 2))

    def times(self) -> list[Times]:
        """Of all workers, sorted; of this one, what `flush` has told."""
        found: dict[tuple[str, str, str], Times] = {}
        for key, count in self._side.range(_PREFIX, _PREFIX[:-1] + "}"):
            _, route, method, status, at = str(key).split("|")
            empty = Times(route, method, status, [0] * (len(BOUNDS_S) + 1), 0.0)
            times = found.setdefault((route, method, status), empty)
            if int(at) == len(empty.counts):
                found[route, method, status] = times._replace(seconds=count / 1e9)
            else:
                times.counts[int(at)] = count
        return [found[kind] for kind in sorted(found)]

"""How long requests took, over all workers: counted in a store of the server's own, so that a worker's death loses
nothing that it had counted.

The side store is private to the server: the supervisor makes it, hands it to each worker, and it goes when the server
ends.  What all workers have to share lies in it, request times here, the report of about.py.
"""

from __future__ import annotations

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
_PREFIX: Final = "requests|"


class Times(NamedTuple):
    """Of one route, method and status."""

    route: str
    method: str
    status: str
    counts: list[int]  # by the bounds, and beyond the last one
    seconds: float  # of all together


class Observer:
    """Counts requests."""

    def __init__(self, side: Store) -> None:
        self._side = side
        self._keys: dict[tuple[str, str, int], list[str]] = {}

    def note(self, route: str, method: str, status: int, took_ns: int) -> None:
        """A request was answered."""
        kind = (route, method if method in METHODS else "other", status)
        keys = self._keys.get(kind) or self._new_keys(kind)
        with suppress(LockTimeoutError):  # a worker was stopped while it counted: requests do not wait for it
            self._side.incr(keys[bisect_left(_BOUNDS_NS, took_ns)])
            self._side.incr(keys[-1], took_ns)

    def _new_keys(self, kind: tuple[str, str, int]) -> list[str]:
        """One key for each bound, one beyond them, one for the sum."""
        label = _PREFIX + "|".join(map(str, kind))
        keys = self._keys[kind] = [f"{label}|{at}" for at in (*range(len(BOUNDS_S) + 1), "ns")]
        return keys

    def times(self) -> list[Times]:
        """Of all workers, sorted."""
        found: dict[tuple[str, str, str], Times] = {}
        for key, count in self._side.range(_PREFIX, _PREFIX[:-1] + "}"):
            _, route, method, status, at = str(key).split("|")
            empty = Times(route, method, status, [0] * (len(BOUNDS_S) + 1), 0.0)
            times = found.setdefault((route, method, status), empty)
            if at == "ns":
                found[route, method, status] = times._replace(seconds=count / 1e9)
            else:
                times.counts[int(at)] = count
        return [found[kind] for kind in sorted(found)]

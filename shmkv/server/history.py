"""The last hour of the figures that the status page draws, so that its charts do not begin empty.

What: a point each five seconds, in the side store: all workers tell the same hour, and one that is replaced loses none.
How:  whichever worker is first in an interval takes its point, as `add` of the interval's name tells; a point expires
      after an hour.  720 points of about 200 bytes.

Killed between `add` and the point, a worker leaves a gap of one interval.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from shmkv.errors import ShmkvError

if TYPE_CHECKING:
    from shmkv import Store
    from shmkv.server.backend import InThreads

STEP_S: Final = 5
KEPT_S: Final = 3_600
NAMES: Final = ("items", "value_bytes", "used", "gets", "hits", "sets", "deletes")
_PREFIX: Final = "history|"


class History:
    """Points over a store, taken by this worker and the others.

    Concurrency: `start` and `stop` in the event loop's thread; a point is taken in another one.
    """

    def __init__(self, store: Store, side: Store, threads: InThreads) -> None:
        self._store = store
        self._side = side
        self._threads = threads
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None  # the loop itself holds tasks weakly
        self._is_over = False

    def start(self) -> None:
        """Take points from now on."""
        self._task = asyncio.get_running_loop().create_task(self._take())

    def stop(self) -> None:
        """Take no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    async def _take(self) -> None:
        # A store that is closing, or a side store behind a stopped worker: a gap, and the next point is tried.
        with suppress(ShmkvError, RuntimeError):
            await self._threads.in_thread(self._take_point, time.time())
        if not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(STEP_S, self.start)

    def _take_point(self, now: float) -> None:
        name = f"{_PREFIX}{int(now // STEP_S):012d}"
        if self._side.add(name, (now,), ttl=KEPT_S):
            stats = self._store.stats()
            self._side.put(name, (now, *(getattr(stats, each) for each in NAMES)), ttl=KEPT_S)

    def told(self) -> dict[str, Any]:
        """What is kept, oldest first: {"step", "names", "points": [[seconds since the epoch, *numbers], ...]}."""
        found = self._side.range(_PREFIX, _PREFIX[:-1] + "}")
        points = [point for _, point in found if len(point) > 1]
        return {"step": STEP_S, "names": ["time", *NAMES], "points": points}

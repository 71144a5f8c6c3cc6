"""Waiting for another process: as long as it is at work, told after a while, and given up once it is stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from shmkv.ending import is_ending
from shmkv.errors import LockTimeoutError
from shmkv.processes import STOPPED, Process, seen

__all__ = ["Patience"]

_TELL_SECONDS = 2.0  # a wait that is longer is told, with whom it is for, and again after ten times as long
_log = logging.getLogger("shmkv")
# Who waits looks for whom it waits: first after so many seconds, then so often, for a twentieth of the time.
_FIRST_LOOK = 0.5
_LOOK_SECONDS = 0.1
_LOOK_SHARE = 20


class Patience:
    """One wait: `look()` and `nap()` at each of its turns.

    Args:
        timeout: seconds to wait for a process that is stopped all that time.
        deed: what it does meanwhile, for messages: "writing a snapshot of the store".
        holders: those that are waited for, as far as they can be seen.
    """

    def __init__(self, timeout: float, deed: str, holders: Callable[[], list[Process]]) -> None:
        self._timeout, self._deed, self._holders = timeout, deed, holders
        self._nap, now = 0.001, time.monotonic()
        self._look_at, self._tell_at, self._stopped_at = now + min(timeout, _FIRST_LOOK), now + _TELL_SECONDS, math.inf

    def is_due(self) -> bool:
        """Is it time for a look?"""
        return time.monotonic() >= self._look_at

    def look(self) -> None:
        """If it is time for it.

        Raises:
            LockTimeoutError: whoever is waited for has been stopped for `timeout`; or the interpreter ends.
        """
        if is_ending():
            raise LockTimeoutError("the interpreter ends, and nobody is waited for any more, nothing was changed")
        now = time.monotonic()
        if now < self._look_at:
            return
        found = [(process.pid, seen(process)) for process in self._holders()]
        if now >= self._tell_at:
            self._tell_at = now + 10 * _TELL_SECONDS
            names = [f"process {pid} ({', '.join(facts)})" for pid, facts in found if facts]
            whom = ", ".join(names) or "a process that cannot be seen from here"
            _log.warning("waiting for %s, which is %s", whom, self._deed)
        stopped = [f"{pid} ({', '.join(facts)})" for pid, facts in found if facts and facts[1] in STOPPED]
        is_stopped = bool(stopped) and len(stopped) == len(found)
        self._stopped_at = min(self._stopped_at, now) if is_stopped else math.inf
        self._look_at = now + max(_LOOK_SECONDS, _LOOK_SHARE * (time.monotonic() - now))
        if now - self._stopped_at >= self._timeout:
            raise LockTimeoutError(
                f"process {stopped[0]} has been {self._deed}, for longer than lock_timeout "
                f"({self._timeout:g} s), nothing was changed: let it go on (SIGCONT), or end it"
            )

    def nap(self) -> None:
        time.sleep(self._nap)
        self._nap = min(self._nap * 2, 0.05)

"""The thread of a durable store's handle: syncs the log within a second, says so in it, and has snapshots written."""

from __future__ import annotations

import contextlib
import time
import weakref

from shmkv import _core, ending
from shmkv.errors import LockTimeoutError, ShmkvError
from shmkv.realthread import Bell, RealThread

__all__ = ["Keeper"]

# A change is on stable storage within a second: a quarter until it is seen, and the rest for the disk.
SYNC_SECONDS = 0.25
# The log may be so many times as large as the data before a snapshot takes its place, and not before it has this size.
LOG_FACTOR = 2
LOG_LEAST = 64 << 20
# Seconds after an attempt in vain: a disk that is full is not to be written to four times a second.
RETRY_PAUSE = 10.0  # twice as long each time, for a snapshot


class Keeper:
    """A thread that syncs the log, and has a snapshot written when the log has outgrown the data.

    Each frame of the log says how far it was synced when the frame was made: what is damaged below that has rotted, and
    above it was torn by a power cut, and is cut off.  When nothing more comes, an empty frame says it of the last ones.
    """

    def __init__(self, opened: _core.Region, sync: str, timeout: float) -> None:
        self._region, self._timeout = opened, timeout
        self._syncs = sync == "interval"
        self._stopped, self._is_stopped = Bell(), False
        self._pause, self._next_snapshot = RETRY_PAUSE, 0.0
        self._end, self._next_vouch = -1, 0.0  # where the log ended at the last look
        self._start()

    def _start(self) -> None:
        self._thread = RealThread(_keep, (weakref.ref(self), self._stopped))
        self.runs = ending.start(self._thread)

    def stop(self) -> None:
        self._is_stopped = True
        self._stopped.ring()
        ending.join(self._thread)

    def let_go(self) -> None:
        """No more rounds, but the one that may be due."""
        if not self._is_stopped:
            self._is_stopped = True
            self._stopped.ring()
            self.look()
            with contextlib.suppress(ShmkvError, OSError):
                _core.durable_vouch(self._region)

    def look(self) -> None:
        """One round; a log that has failed says so to whoever writes next."""
        state = _core.durable_state(self._region)
        if state["failed"]:
            return
        for step in (self._sync, self._vouch, self._write_snapshot):
            try:
                step(state)
            except LockTimeoutError:  # who closes waits for this round, and the next one comes
                return
            except (ShmkvError, OSError):
                continue

    def _sync(self, state: dict[str, int]) -> None:
        if self._syncs and state["end"] > state["synced"]:
            _core.durable_sync(self._region, self._timeout)

    def _vouch(self, state: dict[str, int]) -> None:
        """What nobody has added to since the last look says that it is synced."""
        idle, self._end = state["end"] == self._end, state["end"]
        if not idle or not state["vouched"] != state["end"] == state["synced"] or time.monotonic() < self._next_vouch:
            return
        self._next_vouch = time.monotonic() + RETRY_PAUSE
        if _core.durable_vouch(self._region):
            _core.durable_sync(self._region, self._timeout)
        self._next_vouch = 0.0

    def _write_snapshot(self, state: dict[str, int]) -> None:
        grown = state["end"] - state["kept_from"]
        if grown <= LOG_LEAST or time.monotonic() < self._next_snapshot:
            return
        if grown > LOG_FACTOR * _core.durable_data_bytes(self._region):
            self._next_snapshot = time.monotonic() + self._pause
            self._pause *= 2
            if _core.durable_checkpoint(self._region, self._timeout) is not None:
                self._pause, self._next_snapshot = RETRY_PAUSE, 0.0

    def restart(self) -> None:
        """In a forked child."""
        if not self._is_stopped:
            self._stopped = Bell()
            self._start()


def _keep(to: weakref.ref[Keeper], stopped: Bell) -> None:
    while not stopped.wait(SYNC_SECONDS):
        keeper = to()
        if keeper is None:
            return
        keeper.look()
        del keeper

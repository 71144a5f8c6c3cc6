"""The end of the interpreter: whom nobody may wait for any more, and threads that cannot be started.

How:  once the interpreter ends, a daemon thread that comes back to Python is ended on the spot.  What it has locked
      there stays locked, and it can never be joined.  Only one thread runs Python code by then, so a lock that cannot
      be had at once is one of those.
"""

from __future__ import annotations

from sys import is_finalizing as is_ending
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import threading

__all__ = ["is_ending", "is_held_for_ever", "join", "start"]


class _Thread(Protocol):
    def start(self) -> None: ...

    def join(self) -> None: ...


def is_held_for_ever(lock: threading.RLock) -> bool:
    """Has a thread that the interpreter has ended left this lock locked?  To be asked before `with lock`, which would
    wait for ever."""
    if not is_ending():
        return False
    free: bool = lock.acquire(blocking=False)
    if free:
        lock.release()
    return not free


def start(thread: _Thread) -> bool:
    """Start it; False: the interpreter ends, or the system has no more threads for this process, it goes without."""
    if is_ending():
        return False  # start() would wait for a thread that never comes to run
    try:
        thread.start()
    except RuntimeError:  # also in the callbacks of atexit, from 3.12 on
        return False
    return True


def join(thread: _Thread) -> None:
    """Wait for its end, if it has begun and may still come to one."""
    if not is_ending():
        thread.join()

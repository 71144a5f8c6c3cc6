"""The normal end of a process that neither closes its stores nor runs `atexit`: a child of multiprocessing.

What: it ends by `os._exit`, after the finalizers that were registered with `multiprocessing.util`.  One of them gives
      back what the process keeps for its next write (a block and pages, _core/kept.h): the stores stay open, as other
      finalizers may use them.
How:  `watch` is called for each region that is attached, and after each fork.  `multiprocessing` is never imported: a
      process that has not loaded it is no child of it.  A forked child forgets its parent's finalizers and then calls
      what its parent registered with `register_after_fork`; so does a spawned one, whose program may have attached to
      stores before.

A process that is killed, or ends by `os._exit` otherwise, needs none of this: the next writer gives it back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

__all__ = ["watch"]

LAST = -(10**9)  # the higher the priority, the earlier a finalizer is called


class _Anchor:
    """`register_after_fork` wants an object, for whose life it remembers the call."""


_anchor = _Anchor()
_give_back: Callable[[], None] | None = None
_is_inherited = False
_watched_pid = 0


def watch(give_back: Callable[[], None]) -> None:
    """See to it that this process, and each that multiprocessing makes of it, calls `give_back` at its end."""
    global _give_back
    _give_back = give_back
    _watch()


def _watch() -> None:
    global _is_inherited
    util = sys.modules.get("multiprocessing.util")
    if _give_back is None or util is None or not hasattr(util, "_exit_function"):  # another thread is loading it
        return
    if not _is_inherited:
        util.register_after_fork(_anchor, _begin)
        _is_inherited = True
    if _watched_pid != os.getpid():
        _begin(_anchor)


def _begin(_: object) -> None:
    global _watched_pid
    _watched_pid = os.getpid()
    sys.modules["multiprocessing.util"].Finalize(None, _give_back, exitpriority=LAST)


os.register_at_fork(after_in_child=_watch)

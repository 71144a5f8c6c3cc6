"""Threads of the system, and what they wait with, whatever has been put in the place of Python's.

What: `RealThread` and `Bell`, for threads that have to run while all others wait: what a durable store promises within
      a second is not to depend on a greenlet's turn.
How:  gevent and eventlet put their own functions into the modules `threading`, `_thread`, `queue` and `time`, before
      or after this one is loaded.  The built-in module `_thread` is made once more here, as it was compiled; nobody
      else has this copy.

Concurrency: a bell may be rung by any thread, a signal handler or a finalizer, also in the middle of a ring or a wait.
"""

from __future__ import annotations

import contextlib
import importlib.util
from importlib.machinery import BuiltinImporter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bell", "RLock", "RealThread"]


def _made_again() -> Any:
    spec = BuiltinImporter.find_spec("_thread")
    assert spec is not None, "a built-in module of every CPython"
    module = importlib.util.module_from_spec(spec)
    BuiltinImporter.exec_module(module)
    return module


_thread = _made_again()
RLock = _thread.RLock


class Bell:
    """Who waits is woken by the next ring, or has been rung already."""

    def __init__(self) -> None:
        self._silent = _thread.allocate_lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Once more than it was waited for is as good as once."""
        with contextlib.suppress(RuntimeError):
            self._silent.release()

    def wait(self, seconds: float = -1) -> bool:
        """Until it rings, or for so long; has it rung?"""
        rung: bool = self._silent.acquire(timeout=seconds)
        return rung


class RealThread:
    """A thread of the system that nobody has to wait for at the end of the interpreter."""

    def __init__(self, target: Callable[..., object], args: tuple[Any, ...] = ()) -> None:
        self._target, self._args = target, args
        self._ended = Bell()
        self.ident: int | None = None

    def start(self) -> None:
        """
        Raises:
            RuntimeError: the system has no more threads, or the interpreter ends.
        """
        self.ident = _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        self.ident = _thread.get_ident()
        try:
            self._target(*self._args)
        finally:
            del self._target, self._args
            self._ended.ring()

    def join(self) -> None:
        """Wait for its end; called by itself it does nothing."""
        if self.ident not in (None, _thread.get_ident()):
            self._ended.wait()
            self._ended.ring()  # for who else waits

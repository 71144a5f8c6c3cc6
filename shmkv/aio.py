"""`AsyncStore`: a store for an event loop, which no call makes wait for more than 2 ms.

How:  two handles of one store.  What takes microseconds is done at once, in the loop, with the quick one, which hardly
      waits for a lock.  What has to wait (a lock is held, the disk has to sync), or is long, goes to a thread with the
      patient one, and the loop goes on.  The server's backend is made of the same parts.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from shmkv import surroundings
from shmkv.errors import LockTimeoutError
from shmkv.store import Store

if TYPE_CHECKING:
    from typing_extensions import Self

    from shmkv.store import Key

__all__ = ["QUICK_TIMEOUT_S", "THREADS", "AsyncStore", "InThreads", "QuickAndPatient"]

Answer = TypeVar("Answer")

QUICK_TIMEOUT_S: Final = 0.002
THREADS: Final = 16  # that wait for locks and the disk: a group commit serves all of them at once
LONG_BYTES: Final = 64 << 10  # copied in a thread


class _Threads(ThreadPoolExecutor):
    """Goes on with those that it has where the system gives no more."""

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise


def _do(done: Future[Answer], call: Callable[..., Answer], args: tuple[Any, ...]) -> None:
    """Make a call, unless nobody wants it any more, and tell how it went."""
    if done.set_running_or_notify_cancel():
        try:
            done.set_result(call(*args))
        except BaseException as error:
            done.set_exception(error)
            del done  # whose error holds this frame


class InThreads:
    """Makes calls in threads of its own."""

    def __init__(self) -> None:
        self._threads = _Threads(THREADS, thread_name_prefix="store")
        self._running: set[Future[Any]] = set()
        self._is_closed = False

    def made(self, call: Callable[..., Answer], *args: Any) -> Answer:
        """How a call is made; a face that says its errors in another way does so here."""
        return call(*args)

    async def in_thread(self, call: Callable[..., Answer], *args: Any) -> Answer:
        """Make a call that takes long.

        Raises:
            LimitError: there is no thread for it, and it is not made.
        """
        done: Future[Answer] = Future()
        try:
            self._threads.submit(_do, done, self.made, (call, *args))
        except RuntimeError as error:
            # It may lie in the queue of threads that could not be started, but not be made once they can.
            if self._is_closed or not done.cancel():
                raise
            raise surroundings.no_more("threads") from error
        self._running.add(done)
        done.add_done_callback(self._running.discard)
        return await asyncio.wrap_future(done)

    def close(self) -> None:
        """Wait for running calls."""
        self._is_closed = True
        self._threads.shutdown()

    async def aclose(self) -> None:
        """The same beside the loop, in a thread or, where there is none, once there is nothing to wait for."""
        closed: Future[None] = Future()
        try:
            threading.Thread(target=_do, args=(closed, self.close, ())).start()
        except RuntimeError:
            await asyncio.gather(*map(asyncio.wrap_future, list(self._running)), return_exceptions=True)
            self.close()
        else:
            await asyncio.wrap_future(closed)


class QuickAndPatient(InThreads):
    """Calls of two handles of one store.

    Args:
        quick: a handle with a `lock_timeout` of QUICK_TIMEOUT_S.
        patient: another handle of the same store.
        waits: every write waits for the disk (`sync="always"`).
    """

    def __init__(self, quick: Store, patient: Store, *, waits: bool) -> None:
        super().__init__()
        self.store = quick
        self.patient = patient
        self._waits = waits

    async def write(self, call: Callable[[Store], Answer], *, long: bool = False) -> Answer:
        """Make a call that changes the store."""
        if not (long or self._waits):
            try:
                return self.made(call, self.store)
            except LockTimeoutError:
                pass  # somebody has the lock: then a thread waits for it, not all of this loop
        return await self.in_thread(call, self.patient)

    def close(self) -> None:
        """Wait for running calls, and close both handles."""
        super().close()
        self.store.close()
        self.patient.close()


class AsyncStore(QuickAndPatient):
    """A store for asyncio: `await store.get(key)`, `put`, `incr` and the others never hold the loop for long.

    Args:
        store: a handle, whose `lock_timeout` is how long a call may wait, beside the loop.  It stays the caller's.

    Atomicity: of each call as of `Store`'s.

    >>> import asyncio
    >>> async def main():
    ...     with Store(size="1MiB") as store:
    ...         async with AsyncStore(store) as cache:
    ...             await cache.put("a", 1, ttl=60)
    ...             return await cache.incr("a"), await cache.get("b", "none")
    >>> asyncio.run(main())
    (2, 'none')
    """

    def __init__(self, store: Store) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"store must be a Store, not {type(store).__name__}")
        super().__init__(store._again(QUICK_TIMEOUT_S), store, waits=store.sync_mode == "always")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for running calls, beside the loop; the store that it was made of stays open."""
        await super().aclose()

    def close(self) -> None:
        InThreads.close(self)
        self.store.close()

    async def get(self, key: Key, default: Any = None) -> Any:
        """The value, or `default`.  A read never waits for a lock."""
        return self.store.get(key, default)

    async def put(self, key: Key, value: Any, ttl: Any = None) -> None:
        """Store a value; an earlier ttl is cleared."""
        long = isinstance(value, bytes | str) and len(value) >= LONG_BYTES
        await self.write(lambda store: store.put(key, value, ttl), long=long)

    async def add(self, key: Key, value: Any, ttl: Any = None) -> bool:
        """Store only if absent: was it stored?"""
        return await self.write(lambda store: store.add(key, value, ttl))

    async def incr(self, key: Key, delta: int = 1, initial: int = 0, ttl: Any = None) -> int:
        """Add to an int, or create it; the new value."""
        return await self.write(lambda store: store.incr(key, delta, initial, ttl))

    async def delete(self, key: Key) -> bool:
        """Remove an item: was it there?"""
        return await self.write(lambda store: store.delete(key))

    async def call(self, function: Callable[[Store], Answer]) -> Answer:
        """`function(store)` in a thread, with the patient handle: batches, walks, `change`, whatever is long."""
        return await self.in_thread(function, self.patient)

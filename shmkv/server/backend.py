"""What the server serves: a store behind two handles, so that no request makes the others of its worker wait.

A call that takes microseconds is made at once, in the event loop, with a handle that hardly waits for a lock.  A call
that has to wait (a lock is held, the disk has to sync) or is long goes to a thread, with a handle that is patient.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from shmkv import Store
from shmkv.errors import LockTimeoutError, ShmkvError
from shmkv.forms import FormError
from shmkv.server.problems import RefusedError

Answer = TypeVar("Answer")

QUICK_TIMEOUT_S: Final = 0.002
THREADS: Final = 16  # that wait for locks and the disk: a group commit serves all of them at once


class InThreads:
    """Makes calls in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")

    async def in_thread(self, call: Callable[..., Answer], *args: Any) -> Answer:
        """Make a call that takes long."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, judged, call, *args)

    def close(self) -> None:
        """Wait for running calls."""
        self._threads.shutdown()


class Backend(InThreads):
    """A store for the routes.

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
        self.tag = f'"{quick.uuid.hex}-'  # what every ETag of this store begins with
        self._tag = self.tag.encode() + b'%x"'

    async def write(self, call: Callable[[Store], Answer], *, long: bool = False) -> Answer:
        """Make a call that changes the store."""
        if not (long or self._waits):
            try:
                return judged(call, self.store)
            except LockTimeoutError:
                pass  # somebody has the lock: then a thread waits for it, not all of this worker
        return await self.in_thread(call, self.patient)

    def etag(self, version: int) -> bytes:
        """The entity tag of an item: it changes with every change, also after delete and re-create."""
        return self._tag % version

    def close(self) -> None:
        """Wait for running calls, and close both handles."""
        super().close()
        self.store.close()
        self.patient.close()


def judged(call: Callable[..., Answer], *args: Any) -> Answer:
    """The call; what a store says of a wrong argument is a refusal, as the argument is the client's.

    Raises:
        RefusedError: 422, in place of `ValueError` and `TypeError`.
    """
    try:
        return call(*args)
    except (ShmkvError, FormError):
        raise
    except (ValueError, TypeError) as error:
        raise RefusedError(422, str(error)) from error

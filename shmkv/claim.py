"""The directory of a DataStore belongs to one process at a time.

How:  a record lock (fcntl) on its file `lock` is given back by the system when the process ends, however it does, and
      is not inherited by its children: a child that lives on does not keep the directory.  It does not hold between
      two parts of one process, so those that this process has are noted.
      The lock is gone as soon as any descriptor of its file is closed in this process, by whatever code: so it is
      taken again, CLAIM_SECONDS after the last time at most.  Whether somebody else had it meanwhile is to be read in
      the file: each claim writes a word of its own.

Concurrency: any threads of one process; a signal handler and a finalizer may come in at any place, so the locks may be
      taken again by the thread that has them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from shmkv._core import Descriptor
from shmkv.ending import is_ending, is_held_for_ever
from shmkv.errors import ClosedStoreError, StoreLockedError
from shmkv.folder import LOCK_FILE, close_own, identity_of

__all__ = ["CLAIM_SECONDS", "CLOSED", "LOCK_BYTES", "Claim"]

LOCK_BYTES = 64  # the lock file is never longer
CLAIM_SECONDS = 0.01
_ENDING = "the interpreter ends, and a thread that it has ended was at work here, nothing was changed"
CLOSED = "the DataStore is closed: open it again"
_FLAGS = os.O_RDWR | os.O_NOFOLLOW
_TRIES = 100  # other threads may close what was just opened


class Claim:
    """This process's claim on a directory, from its making to `release`."""

    _mine: ClassVar[dict[tuple[int, int] | None, int]] = {}  # identity of a directory: pid
    _pid = -1  # until there is something to release
    _guard: ClassVar[threading.RLock] = threading.RLock()  # of `_mine`

    def __init__(self, folder: int, path: Path) -> None:
        """
        Args:
            folder: a descriptor of the directory `path`.

        Raises:
            StoreLockedError: it is claimed.
        """
        self._directory = identity_of(folder)
        self._path = Path(os.path.abspath(path))
        self._busy = threading.RLock()
        self._gone = ""  # why it does not hold any more
        self._fd: int = -1
        self._file: tuple[int, int] | None = None
        self._noted = False
        self._pid = os.getpid()
        self._word = f"{self._pid} {os.urandom(16).hex()}"
        if is_held_for_ever(self._guard):
            raise StoreLockedError(_ENDING)
        with self._guard:
            if self._mine.get(self._directory) == self._pid:
                raise StoreLockedError(f"{path} is open already, in this process ({self._pid}): use that DataStore")
            self._fd = Descriptor.open(LOCK_FILE, _FLAGS | os.O_CREAT, 0o600, folder)
            self._file = identity_of(self._fd)
            try:
                self._begin()
                self._noted, self._mine[self._directory] = True, self._pid
            except BaseException:
                self.release()
                raise

    def _begin(self) -> None:
        if not self._take():
            raise StoreLockedError(
                f"{self._path} is open in another process (pid {self._holder()}): "
                "a DataStore is for one process at a time"
            )
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{self._word}\n".encode(), 0)
        self._sure_until = time.monotonic() + CLAIM_SECONDS

    def require(self) -> None:
        """Before anything is written or removed: the directory is still this process's.

        Raises:
            StoreLockedError: another process has opened it since the lock was lost.
            ClosedStoreError: it was released meanwhile.
        """
        if time.monotonic() < self._sure_until:
            return
        if is_held_for_ever(self._busy):
            raise StoreLockedError(_ENDING)
        with self._busy:
            if not self._gone:
                self._renew()
            if self._gone:
                raise ClosedStoreError(CLOSED) if self._gone == CLOSED else StoreLockedError(self._gone)
            self._sure_until = time.monotonic() + CLAIM_SECONDS

    def _renew(self) -> None:
        for _ in range(_TRIES):
            if identity_of(self._fd) != self._file:
                self._open_again()
            taken, holder = self._take(), self._holder_word()
            if identity_of(self._fd) != self._file:
                continue  # what was asked may have been another file, under its number
            if not taken or holder != self._word:
                self._gone = (
                    f"the lock of {self._path} was lost (code in this process closed all descriptors, or read the file "
                    f"{LOCK_FILE!r}), and process {self._holder()} has opened the DataStore since, nothing was "
                    "changed: close this one"
                )
                close_own(self._fd)
            return
        raise OSError(errno.EBADF, "other threads close all descriptors again and again", str(self._path / LOCK_FILE))

    def _take(self) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EBADF, errno.EINVAL):
                return False
            raise
        return True

    def _holder_word(self) -> str:
        try:
            return os.pread(self._fd, LOCK_BYTES, 0).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def _holder(self) -> str:
        """Its pid."""
        return self._holder_word().split(" ")[0] or "unknown"

    def _open_again(self) -> None:
        name, facts = self._path / LOCK_FILE, None
        with contextlib.suppress(FileNotFoundError):
            facts = os.stat(name, follow_symlinks=False)
        if facts is None or (facts.st_dev, facts.st_ino) != self._file:
            raise StoreLockedError(
                f"code in this process closed all descriptors, and {self._path} is not what it was, nothing was "
                "changed: close this DataStore, and open it where it is now"
            )
        # First: the old one closes the file that it is still, and the new one may get its number.
        close_own(self._fd)
        self._fd = Descriptor.open(name, _FLAGS)

    def release(self) -> None:
        """Let others have it.  Does nothing in a forked child, whose parent's it is."""
        if os.getpid() != self._pid or is_held_for_ever(self._busy) or is_held_for_ever(self._guard):
            return
        with self._busy:
            if self._gone == CLOSED:
                return
            if not self._gone:
                close_own(self._fd)
            self._gone, self._sure_until = CLOSED, 0.0
        if self._noted:
            with self._guard:
                self._mine.pop(self._directory, None)

    def __del__(self, is_ending: Callable[[], bool] = is_ending) -> None:
        """An exception of a signal handler may come anywhere, also before anybody else has it.

        At the end of the interpreter, which has emptied this module by then, the system gives it back.
        """
        if not is_ending():
            self.release()

    @classmethod
    def renew_guard(cls) -> None:
        """In a forked child, whose parent may have had it in another thread."""
        cls._guard = threading.RLock()


os.register_at_fork(after_in_child=Claim.renew_guard)

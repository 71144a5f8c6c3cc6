"""Directories that hold a log: made safely, claimed by byte locks, told apart.

What: the descriptor of a directory, made if it is missing; locks on bytes of the file `lock` in it.
How:  locks are those of open file descriptions (F_OFD_SETLK): the system gives them back when the last descriptor of
      the description is closed, however its process ended.  A forked child shares its parent's descriptions, so a
      lock that is to exclude the child as well is taken on a new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shmkv._core import Descriptor
from shmkv.ending import is_ending
from shmkv.errors import StoreExistsError, StoreLockedError
from shmkv.processes import Process, locking
from shmkv.waiting import Patience

__all__ = [
    "LOCK_FILE",
    "SETTINGS_FILE",
    "ByteLock",
    "HeldByte",
    "absolute_path",
    "below",
    "close_own",
    "holder_of",
    "identity_of",
    "note_holder",
    "noted_region",
    "open_folder",
    "replace_file",
]

LOCK_FILE = "lock"
SETTINGS_FILE = "store.json"  # of a durable store; a DataStore has none
_PID_BYTES = 20
_LOG = re.compile(r"[0-9]{20}\.(?:log|snapshot)")
# What the lock file says of who has it, of a durable store and of a DataStore, or what a power cut leaves of that.
_NOTE = re.compile(rb"(?:[0-9]+[\n ] *(?:[0-9a-f]{32})?\s*)?\0*")
_NOTE_BYTES = 64
_FLOCK = struct.Struct("hhqqi4x")


def absolute_path(path: str | bytes | os.PathLike[str]) -> Path:
    """That of a directory, whatever becomes the current one.

    Raises:
        ValueError: it is empty, as a variable that is not set: that would be the current directory.
    """
    name = os.fsdecode(path)
    if not name:
        raise ValueError('the path is empty: name a directory ("." is the current one)')
    return Path(os.path.abspath(name))


def _refuse_other_lock(folder: int, path: Path) -> None:
    """Before anything is written into a directory that holds no store yet: a file of the lock's name that somebody else
    has put there would be written over."""
    if any(name == SETTINGS_FILE or _LOG.fullmatch(name) for name in os.listdir(folder)):
        return
    try:
        # Without waiting for who writes to it, if it is a pipe.
        fd = Descriptor.open(LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK, 0o600, folder)
    except OSError:  # there is none, or whoever opens it next says what is wrong with it
        return
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            return
        ours = facts.st_size <= _NOTE_BYTES and _NOTE.fullmatch(os.pread(fd, _NOTE_BYTES, 0))
    finally:
        fd.close()
    if not ours:
        raise StoreExistsError(
            f"{path} holds a file {LOCK_FILE!r} that is no store's, nothing was changed: give the store a directory of "
            "its own"
        )


def open_folder(path: Path, what: str) -> Descriptor:
    """A descriptor of the directory; where it is made, its name is on stable storage before anything is in it.

    Raises:
        NotADirectoryError: there is a file of that name; `what` needs a directory.
        StoreExistsError: it holds no store, and a file of somebody else that would be written over.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(0o700, parents=True, exist_ok=True)
        for each in missing:
            above = Descriptor.open(each.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(above)
            finally:
                above.close()
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{what} needs a directory, and this is a file", str(path)) from None
    folder = Descriptor.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _refuse_other_lock(folder, path)
    except BaseException:
        folder.close()
        raise
    return folder


@contextmanager
def below(path: Path) -> Iterator[None]:
    """An OSError names its file by the whole path: opened through a descriptor it is "lock", of no directory."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = str(path / error.filename)  # itself, where it is a whole path
        raise


def identity_of(fd: int) -> tuple[int, int] | None:
    """Device and inode; None: it is not open."""
    try:
        facts = os.fstat(fd)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def close_own(fd: int) -> None:
    """Close what was opened; -1 was not."""
    if isinstance(fd, Descriptor):
        fd.close()


def replace_file(folder: int, name: str, content: bytes) -> None:
    """Write a file whole: after a power cut it is the old one or the new one."""
    temporary = f"{name}.tmp"
    fd = Descriptor.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, folder)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        fd.close()
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


class ByteLock:
    """A lock on one byte of the lock file, on a description of its own, which forked children do not have: it ends with
    this process, unless `share` was called."""

    _fd: Descriptor | int = -1
    _identity: tuple[int, int] | None = None

    def __init__(self, folder: int, byte: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._fd = Descriptor.open_private(LOCK_FILE, flags, 0o600, folder)
        self._identity = identity_of(self._fd)
        self._byte = byte

    def take(self, *, shared: bool) -> bool:
        """False: somebody else has it, and nothing was changed."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        self._require_open()
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, self._byte, 1, 0))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        self._require_open()
        return True

    def others(self) -> bool:
        """Does anybody else have it, shared or not?"""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._byte, 1, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def share(self) -> None:
        """Children that are forked from now on have it as well, as they use what it stands for."""
        if isinstance(self._fd, Descriptor):
            self._fd.share()

    def release(self) -> None:
        """Give it back at once, also for processes that share the description."""
        if not self.is_open():
            return
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, self._byte, 1, 0))

    def close(self) -> None:
        """Give it back, once every process that shares the description has done so."""
        close_own(self._fd)

    def __del__(self, is_ending: Callable[[], bool] = is_ending) -> None:
        """An exception of a signal handler may come anywhere: nobody is to wait for a lock that nobody has any more."""
        if not is_ending():  # then this module may be empty, and the descriptor closes itself
            self.close()

    def is_open(self) -> bool:
        """User code that closes all descriptors may have closed it, and another file have its number."""
        return identity_of(self._fd) == self._identity

    def wait(self, timeout: float) -> None:
        """Until nobody else has it."""
        patience = Patience(timeout, "opening or closing the store", self._holders)
        while not self.take(shared=False):
            if patience.is_due():
                self._refuse_record_lock()
            patience.look()
            patience.nap()

    def _refuse_record_lock(self) -> None:
        """A DataStore has one, of all bytes, for as long as it is open; it belongs to a process, which GETLK tells."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._byte, 1, 0))
        kind, _, _, _, pid = _FLOCK.unpack(answer)
        if kind != fcntl.F_UNLCK and pid > 0:
            raise StoreLockedError(
                f"the directory is open as a DataStore, in process {pid}: it is no store of this kind"
            )

    def _holders(self) -> list[Process]:
        return locking(os.fstat(self._fd), self._byte)

    def _require_open(self) -> None:
        if not self.is_open():
            raise OSError(errno.EBADF, "user code has closed the descriptor of a lock", LOCK_FILE)


class HeldByte:
    """`with HeldByte(folder, byte, timeout)`: wait for the byte and have it to oneself; children that are forked
    meanwhile included.

    However long whoever has it is at work, it is waited for.  No generator, as what an exception of a signal handler
    leaves of one may live on until garbage is collected, and the lock with it.

    Args:
        timeout: seconds to wait for a process that is stopped all that time.

    Raises:
        LockTimeoutError: it is.
    """

    def __init__(self, folder: int, byte: int, timeout: float) -> None:
        self._lock = ByteLock(folder, byte)
        self._timeout = timeout
        self._is_taken = False

    def wait(self) -> None:
        """For who wants to know whether that works, before `with`."""
        if not self._is_taken:
            self._lock.wait(self._timeout)
            self._is_taken = True

    def __enter__(self) -> None:
        self.wait()

    def __exit__(self, *_: object) -> None:
        try:
            self._lock.release()  # a child that was forked meanwhile has the description too
        finally:
            self._lock.close()


def note_holder(folder: int, region: bytes) -> None:
    """Write this process's pid into the lock file, for the message to who finds it taken, and the uuid of its region.

    In place: it needs no room on the disk, and what a crash leaves of it fits no region.
    """
    fd = Descriptor.open(LOCK_FILE, os.O_WRONLY, 0o600, folder)
    try:
        os.pwrite(fd, f"{os.getpid()}\n".ljust(_PID_BYTES).encode() + region.hex().encode(), 0)
    finally:
        fd.close()


def noted_region(folder: int) -> bytes:
    """The uuid of the region that the log goes on with; empty if nobody noted one."""
    fd = Descriptor.open(LOCK_FILE, os.O_RDONLY, 0o600, folder)
    try:
        raw = os.pread(fd, 32, _PID_BYTES)
    finally:
        fd.close()
    try:
        return bytes.fromhex(raw.decode("ascii"))
    except ValueError:
        return b""


def holder_of(folder: int) -> str:
    """The pid of the process that opened the directory last, as text."""
    try:
        fd = Descriptor.open(LOCK_FILE, os.O_RDONLY, 0o600, folder)
    except OSError:
        return "unknown"
    try:
        return os.pread(fd, _PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
    finally:
        fd.close()

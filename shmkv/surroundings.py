"""What a process needs of its machine, and what to do where it is missing: /dev/shm, /proc, room below its limits.

How:  the system answers with a number.  What it means here is looked up afterwards, when it costs nobody anything.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shmkv.errors import LimitError, NoProcError, NoSharedMemoryError, ShmkvError

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    Given = ParamSpec("Given")

Answer = TypeVar("Answer")

__all__ = ["PROC", "SHM_DIRECTORY", "explain", "explained", "limit_of_log", "no_more", "within_limits"]

SHM_DIRECTORY = "/dev/shm"
PROC = "/proc"

_LIMITS = {
    errno.EMFILE: "this process has as many files open as it may: close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "the machine has as many files open as it may: close some, or raise the limit (sysctl fs.file-max)",
    errno.EFBIG: "a store may not be that large here: raise the limit for files (ulimit -f), or say a smaller size=",
    errno.ENOMEM: "this process may not map that much memory: raise the limit (ulimit -v), or say a smaller size=",
}


def explained(call: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """A function whose OSError says what the machine lacks, if that is why."""
    return _explained_by(explain, call)


def within_limits(call: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """The same for one that is about files of the user's: only limits of this process are meant."""
    return _explained_by(_limit, call)


def _explained_by(
    explain: Callable[[OSError], ShmkvError | None], call: Callable[Given, Answer]
) -> Callable[Given, Answer]:
    @functools.wraps(call)
    def wrapped(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        try:
            return call(*args, **kwargs)
        except OSError as error:
            known = explain(error)
            if known is None:
                raise
            raise known from error

    return wrapped


def _limit(error: OSError) -> ShmkvError | None:
    if isinstance(error, ShmkvError) or error.errno not in _LIMITS:
        return None
    return LimitError(error.errno, _LIMITS[error.errno])


def limit_of_log(error: OSError, path: str) -> LimitError | None:
    """Of a log that could not grow, and is as it was; None: no limit of this process is the reason."""
    if error.errno not in _LIMITS:
        return None
    remedy = _LIMITS[error.errno]
    if error.errno == errno.EFBIG:
        remedy = "a file may not become that large here: raise the limit for files (ulimit -f)"
    return LimitError(error.errno, f"{remedy}; nothing was changed", path)


def no_more(what: str) -> LimitError:
    """Of threads or processes, which the system says by a RuntimeError without a number, or by EAGAIN.

    >>> no_more("threads").errno == errno.EAGAIN
    True
    """
    return LimitError(
        errno.EAGAIN,
        f"no more {what} can be started: end some, or raise the limit (ulimit -u, pids.max, or TasksMax= of a unit)",
    )


def explain(error: OSError) -> ShmkvError | None:
    """What is missing; None: something else is the matter, and the error says it."""
    if isinstance(error, ShmkvError) or error.errno is None:
        return None
    if error.errno in _LIMITS:
        return _limit(error)
    if not os.path.exists(f"{PROC}/self/stat"):
        return NoProcError(
            error.errno, f"{PROC} is not there, by which a process is known: mount it (mount -t proc proc {PROC})"
        )
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return _shared_memory(error.errno, name) if _is_shared_memory(name) else None


def _is_shared_memory(name: str) -> bool:
    """Is it about an object of shared memory, or about nothing that has a name?"""
    return not name or name.startswith(SHM_DIRECTORY) or (name.startswith("/") and "/" not in name[1:])


def _shared_memory(number: int, name: str) -> ShmkvError | None:
    remedy = f"give it one (mount -t tmpfs -o mode=1777 tmpfs {SHM_DIRECTORY})"
    if not os.path.isdir(SHM_DIRECTORY):
        return NoSharedMemoryError(number, f"{SHM_DIRECTORY}, where stores lie, is not there: {remedy}")
    if number in (errno.EOPNOTSUPP, errno.EINVAL):
        problem = f"{SHM_DIRECTORY} is on a file system that cannot hold stores (a ramfs?): {remedy}"
        return NoSharedMemoryError(number, problem)
    if number == errno.EROFS:
        problem = f"{SHM_DIRECTORY} is read-only: mount it for writing (mount -o remount,rw {SHM_DIRECTORY})"
        return NoSharedMemoryError(number, problem)
    if number in (errno.EACCES, errno.EPERM) and not os.access(SHM_DIRECTORY, os.R_OK | os.W_OK | os.X_OK):
        problem = f"{SHM_DIRECTORY} is forbidden to user {os.geteuid()}: give it mode 1777 (chmod 1777 {SHM_DIRECTORY})"
        return NoSharedMemoryError(number, problem)
    if number in (errno.EACCES, errno.EPERM) and name and _modes_allow(name):
        problem = (
            f"shared memory is forbidden to this process by more than modes (seccomp, AppArmor, SELinux): allow it "
            f"shm_open and shm_unlink, that is to open and remove files in {SHM_DIRECTORY}"
        )
        return NoSharedMemoryError(number, problem)
    return None


def _modes_allow(name: str) -> bool:
    """May this user do with an object what was refused, if there is one?  With another user's it is not known."""
    try:
        found = os.stat(f"{SHM_DIRECTORY}/{os.path.basename(name)}", follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return found.st_uid == os.geteuid() and found.st_mode & 0o600 == 0o600

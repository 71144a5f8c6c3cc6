"""Objects of shared memory: shm_open and shm_unlink, and what the system says where they fail.

How:  by posix_ipc; on a free-threaded interpreter by the binding itself, as posix_ipc would turn the GIL on.
      What posix_ipc raises has no errno, and in a second interpreter of a process a class that nobody can name: so
      where it fails, the binding asks the system once more, and its answer counts.
"""

from __future__ import annotations

import errno
import os

from shmkv import _core
from shmkv._core import Descriptor

__all__ = ["create", "open_existing", "unlink"]

if not _core.FREE_THREADED:
    import posix_ipc


def create(target: str, mode: int) -> Descriptor:
    """A new, empty object.  FileExistsError: there is one of this name; any OSError of shm_open."""
    return _opened(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)


def open_existing(target: str, readonly: bool) -> Descriptor:
    """FileNotFoundError: there is none; any OSError of shm_open."""
    return _opened(target, os.O_RDONLY if readonly else os.O_RDWR, 0o600)


def _opened(target: str, flags: int, mode: int) -> Descriptor:
    if not _core.FREE_THREADED:
        kind, readonly = flags & (os.O_CREAT | os.O_EXCL), not flags & os.O_RDWR
        try:
            return Descriptor(posix_ipc.SharedMemory(target, kind, mode=mode, read_only=readonly).fd)
        except Exception as error:
            _require_without_number(error, target)
    return Descriptor.shared(target, flags, mode)


def unlink(target: str) -> None:
    """Remove the name.  FileNotFoundError: there is none; any OSError of shm_unlink."""
    if not _core.FREE_THREADED:
        try:
            posix_ipc.unlink_shared_memory(target)
            return
        except Exception as error:
            _require_without_number(error, target)
    _core.unlink_shared(target)


def _require_without_number(error: Exception, target: str) -> None:
    """Raise it unless it is one of posix_ipc that has no number of the system; a signal handler may raise too."""
    if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.EACCES) and error.filename is None:
        error.filename = target  # which posix_ipc leaves out, and by which `surroundings` knows what it is about
    if type(error).__module__ != "posix_ipc" and not (type(error) in (OSError, ValueError) and len(error.args) < 2):
        raise error

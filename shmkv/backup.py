"""A copy of a durable store as it is at one instant, made beside its writers.

How:  a snapshot and the segment of the log that begins with it lead to what the store was where that segment is cut
      off.  Both are opened before anybody can remove them; the place of the cut is the end of the log once the
      snapshot is whole, so that nothing in the snapshot is of later than that.

Killed on the way: a directory `NAME.partial-...` beside the one that was asked for, which never is half a copy.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

from shmkv import _core
from shmkv.errors import ShmkvError, StoreExistsError, StoreFullError

__all__ = ["back_up"]

TRIES = 100  # each means that somebody else has written another snapshot meanwhile
_HEAD_BYTES, _BASE = 64, struct.Struct("<40xQ")
_AT_ONCE = 1 << 20


def back_up(
    opened: _core.Region,
    folder: int,
    target: Path,
    make_snapshot: Callable[[], tuple[int, int]],
    write_settings: Callable[[int], None],
) -> int:
    """Copy the store to the directory `target`; returns the number of items in the snapshot.

    Args:
        folder: a descriptor of the store's directory.
        make_snapshot: number and items of a new one.
        write_settings: `store.json`, into the directory behind a descriptor.

    Raises:
        StoreExistsError: `target` holds something.
        StoreFullError: there is no room for it.
    """
    if os.path.lexists(target) and (not target.is_dir() or os.listdir(target)):
        raise StoreExistsError(f"{target} holds something: a backup is made in a new directory, or an empty one")
    partial = target.with_name(f"{target.name}.partial-{os.urandom(6).hex()}")
    partial.mkdir(0o700, parents=True)
    made = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        items = _copy(opened, folder, made, make_snapshot)
        write_settings(made)
        os.fsync(made)
        os.rename(partial, target)  # over an empty one too; one that is not empty any more refuses it
        _sync_folder(target.parent)
        return items
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(f"there is no room for a backup at {target}: {error.strerror}") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise StoreExistsError(f"{target} was made by somebody else meanwhile") from error
        raise
    finally:
        os.close(made)


def _copy(opened: _core.Region, folder: int, made: int, make_snapshot: Callable[[], tuple[int, int]]) -> int:
    for _ in range(TRIES):
        number, items = make_snapshot()
        names = f"{number:020}.snapshot", f"{number:020}.log"
        files: list[int] = []
        try:
            for name in names:
                files.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder))
            end = _core.durable_state(opened)["end"]
            # Only now: then that was the end of this segment, and not of one that has come after it.
            if _core.durable_state(opened)["segment"] == number:
                (base,) = _BASE.unpack(os.pread(files[1], _BASE.size, 0))
                _copy_file(files[0], made, names[0], os.fstat(files[0]).st_size)
                _copy_file(files[1], made, names[1], _HEAD_BYTES + end - base)
                return items
        except FileNotFoundError:
            continue  # a later snapshot has taken their place
        finally:
            for fd in files:
                os.close(fd)
    raise ShmkvError(f"others wrote {TRIES} snapshots while a backup was tried, nothing was copied: try again")


def _copy_file(source: int, made: int, name: str, size: int) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=made)
    try:
        at = 0
        while at < size:
            part = os.pread(source, min(_AT_ONCE, size - at), at)
            if not part:
                raise OSError(errno.EIO, "the file ends before its time", name)
            written = 0
            while written < len(part):
                written += os.write(fd, part[written:])
            at += len(part)
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

"""What happens to a store that exists and is not what is asked for: it is refused, kept, replaced or rebuilt.

What: the `existing` of `Store(...)` and `Store.create`, and `Store.resize`.
How:  who wants to put another region in the place of a store holds a lock on its creation byte meanwhile, so that of
      several processes that start at once one does it, and the others find it done.  A rebuilt store is made under
      the name of a private one, filled while nobody can attach to the old one, and renamed.

Killed anywhere, the name means the old store, or the new one, whole; what was being made is a private store whose
process has ended, which the next `Store()` removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from typing import Final

from shmkv import region
from shmkv.errors import (
    ForeignStoreError,
    LockTimeoutError,
    ShmkvError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    ValueTooLargeError,
)

EXISTING: Final = ("error", "keep", "replace", "resize")

_CREATION_BYTE: Final = 0
_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock
_PAUSE_S: Final = 0.005
_PATIENCE_S: Final = 60.0  # a million items take a few


def check_existing(existing: str) -> str:
    """Return `existing` if it is one of the four words.

    Raises:
        ValueError: it is not.

    >>> check_existing("keep")
    'keep'
    """
    if existing not in EXISTING:
        raise ValueError(f"existing is 'error', 'keep', 'replace' or 'resize', not {existing!r}")
    return existing


def create(
    target: str, want: region.Wanted, existing: str, *, exist_ok: bool, timeout: float, foreign: bool = False
) -> region.Opened:
    """`region.create`; a store that exists and is not as wanted is dealt with as `existing` says.

    Raises:
        StoreExistsError: it is not as wanted, and `existing` is "error"; or its mode is another one, and is kept.
    """
    keeps = existing == "error" or not exist_ok
    for _ in range(region.MAX_ROUNDS):
        try:
            return region.create(target, want, exist_ok=exist_ok, timeout=timeout, foreign=foreign)
        except StoreExistsError as error:
            if keeps:
                raise
            keeps = not _make_way(target, want, existing, timeout, foreign, error)
            if keeps:
                want = want._replace(size=None, on_full=None)
    raise ShmkvError(f"gave up on {region.store_name(target)!r}: it was replaced {region.MAX_ROUNDS} times meanwhile")


def _make_way(
    target: str, want: region.Wanted, existing: str, timeout: float, foreign: bool, error: StoreExistsError
) -> bool:
    """Do something about the store that is in the way; False: it is to be kept."""
    if existing == "keep":
        return False
    try:
        if existing == "resize":
            return _rebuild(target, want, timeout)
        _remove(target, want, foreign)
    except StoreNotFoundError:
        pass  # another process was faster
    except ForeignStoreError:
        raise error from None
    return True


def resize(name: str, size: int | str | None, on_full: str | None, timeout: float) -> None:
    """Rebuild a store of this user: see `Store.resize`."""
    target = region.object_name(region.check_new_name(name))
    want = region.wanted(size, None, on_full)
    if not _rebuild(target, want, timeout):
        raise StoreLockedError(
            f"{name!r} is in use, and a store is resized while nobody else has it open: close it in all processes "
            f"(`shmkv stats --store {name}` names those that write), or begin another one with existing='replace'"
        )


# ---- Taking its place ------------------------------------------------------------------------


@contextlib.contextmanager
def _sole_replacer(target: str, foreign: bool) -> Iterator[region.Header]:
    """The header of the store that has the name now, while nobody else may put another one in its place.

    Raises:
        StoreNotFoundError: there is none, or another one got the name while this process waited.
    """
    name = region.store_name(target)
    fd = region.open_checked(target, foreign)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _lock(fd):
            if time.monotonic() > deadline:
                raise LockTimeoutError(
                    f"another process has been replacing {name!r} for {_PATIENCE_S:g} s: it may be stopped; "
                    f"`fuser {region.SHM_DIRECTORY}{target}` names it"
                )
            time.sleep(_PAUSE_S)
        if not region.is_named(fd, target):
            raise StoreNotFoundError(f"{name!r} was replaced meanwhile")
        yield region.parse_header(os.pread(fd, region.FIXED_SIZE, 0), os.fstat(fd).st_size, name)
    finally:
        fd.close()  # and the lock goes with its description


def _lock(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _CREATION_BYTE, 1, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: POSIX lets the system choose
        return False
    return True


def _remove(target: str, want: region.Wanted, foreign: bool) -> None:
    with _sole_replacer(target, foreign) as header:
        if not region.differences(header, want):
            return
        region.unlink(target)


def _rebuild(target: str, want: region.Wanted, timeout: float) -> bool:
    """Move the items into a store as wanted; False: somebody else is attached."""
    with _sole_replacer(target, foreign=False) as header:
        now = want._replace(
            size=want.size or header.size,
            on_full=want.on_full or region.on_full_of(header),
            mode=want.mode or header.mode,
        )
        if not region.differences(header, now):
            return True
        old = region.attach(target, readonly=False, foreign=False, timeout=timeout)
        try:
            return _move(old, now, timeout)
        finally:
            del old


def _move(old: region.Opened, want: region.Wanted, timeout: float) -> bool:
    region.remove_dead_private()
    new_target = region.object_name(region.private_name())
    new = region.create(new_target, want, exist_ok=False, timeout=timeout, uuid=bytes(old.region.uuid))
    paths = region.path_of(old.target), region.path_of(new_target)
    moved: bool | None = False
    try:
        moved = old.region.replace(new.region, *paths)
    except (StoreFullError, ValueTooLargeError) as error:
        raise StoreFullError(
            f"the items of {region.store_name(old.target)!r} do not fit into a store of {want.size or 0:,} bytes, or "
            f"both do not fit into {region.SHM_DIRECTORY} at once; nothing was changed ({error})"
        ) from None
    finally:
        if not moved:
            region.unlink_private(new_target, new.identity, os.getpid())
    if moved is None:
        raise StoreNotFoundError(f"{region.store_name(old.target)!r} was replaced meanwhile")
    return moved

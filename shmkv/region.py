"""Regions: where stores lie, what they are called, and whether a store may be trusted.

What: create, open, wait for, list and unlink the POSIX shared-memory objects behind stores.
How:  the store "jobs" of user 1000 is the object `/shmkv.1000.jobs`, mode 0600.  Python finds the object,
      checks its owner and its header with plain reads, and only then lets the engine map it.

Races, and how each ends:
    two creators         exclusive creation lets one win; the other waits until the header says ready, and attaches.
    a creator that died  the engine's `Region.create` may be repeated on what it left: the next one finishes it.
    unlink beside attach after mapping, a link count of 0 means that the name was taken away: look again.
    a name in disguise   owner, magic, version, checksum and sizes are checked before a byte is mapped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from shmkv import _core, leaving, objects, surroundings
from shmkv._core import Descriptor
from shmkv.errors import (
    CorruptStoreError,
    ForeignStoreError,
    LayoutVersionError,
    LockTimeoutError,
    ShmkvError,
    StaleStoreError,
    StoreExistsError,
    StoreNotFoundError,
    TooManyProcessesError,
)
from shmkv.processes import namespace, own_start, pid_namespace, process_start, sees_pids

if TYPE_CHECKING:
    from multiprocessing.shared_memory import SharedMemory

SHM_DIRECTORY = surroundings.SHM_DIRECTORY
PAGE_SIZE = 1 << 16
MIN_SIZE = 1 << 20
MAX_SIZE = 1 << 43
DEFAULT_SIZE = 1 << 30
DEFAULT_MODE = 0o600

# Each round means that somebody else unlinked or replaced the store in between.
MAX_ROUNDS = 100
# A private store of another pid namespace is left alone for this long, so that its creator can attach first.
FOREIGN_NAMESPACE_GRACE_S = 60.0


# ---- Names ---------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}", re.ASCII)
# Each layout version has names of its own, so that two releases which read different ones can be attached at once, as
# in a rolling reload: neither meets a region that it must not touch.  The first version's have no number.
_NAME_SPACE = "shmkv" if _core.LAYOUT_VERSION == 1 else f"shmkv{_core.LAYOUT_VERSION}"
_OBJECT = re.compile(rf"{_NAME_SPACE}\.([0-9]+)\.([A-Za-z0-9._-]{{1,200}})", re.ASCII)
_OBJECT_OF_ANY = re.compile(r"shmkv([2-9][0-9]*)?\.([0-9]+)\.([A-Za-z0-9._-]{1,200})", re.ASCII)
# durable.<device>.<inode> of its directory
_DURABLE = re.compile(r"durable\.[0-9a-f]+\.[0-9a-f]+", re.ASCII)
# private.<pid>.<start time in clock ticks>.<pid namespace>-<random>
_PRIVATE = re.compile(r"private\.([0-9]+)\.([0-9]+)\.([0-9]+)-[0-9a-f]{16}", re.ASCII)


def check_name(name: str) -> str:
    """Return `name` if a store may be called so.

    Raises:
        ValueError: anything but 1 to 200 of the characters A-Z, a-z, 0-9, ".", "_" and "-".
        TypeError: no `str`.

    >>> check_name("sessions.v2")
    'sessions.v2'
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a store must be a str, not {type(name).__name__}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"the name of a store is 1 to 200 characters out of A-Z a-z 0-9 . _ -, not {name!r}")
    return name


def durable_name(device: int, inode: int) -> str:
    """The name of the region that belongs to a directory."""
    return f"durable.{device:x}.{inode:x}"


def check_new_name(name: str) -> str:
    """`check_name`, and not of the form that private stores have, which are removed when their pid is gone, or durable
    ones, whose regions are found by it."""
    if _DURABLE.fullmatch(check_name(name)):
        raise ValueError(f"names like {name!r} are given to durable stores only: say Store.open(path) to open one")
    if _PRIVATE.fullmatch(check_name(name)):
        raise ValueError(f"names like {name!r} are given to private stores only: say Store() to make one")
    return name


def object_name(name: str, uid: int | None = None) -> str:
    """The name of the shared-memory object of a store; `uid` is this user's if it is not given.

    >>> object_name("jobs", 1000)
    '/shmkv.1000.jobs'
    """
    return f"/{_NAME_SPACE}.{os.geteuid() if uid is None else uid}.{check_name(name)}"


def store_name(target: str) -> str:
    """The name that a user gave to the store in this object; of a caller's own object, its name.

    >>> store_name("/shmkv.1000.jobs"), store_name("/psm_4f0c")
    ('jobs', 'psm_4f0c')
    """
    match = _OBJECT.fullmatch(target[1:])
    return match[2] if match else target[1:]


def _path(target: str) -> str:
    return SHM_DIRECTORY + target


def path_of(target: str) -> bytes:
    """Where the object of this name is, as the system takes it."""
    return os.fsencode(_path(target))


# ---- Sizes ---------------------------------------------------------------------------------

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([KMGT])?(I?B)?)", re.ASCII | re.IGNORECASE)


def parse_size(size: int | str) -> int:
    """Return a number of bytes, given as such or as text with a unit.

    KB, MB, GB, TB are powers of 1000; KiB, MiB, GiB, TiB, and the bare K, M, G, T, powers of 1024, as in
    `docker run --shm-size`.

    Raises:
        ValueError: text that is no size, or a size that is not positive.
        TypeError: neither an int nor a str.

    >>> parse_size("64MiB"), parse_size("1.5 GB"), parse_size(4096)
    (67108864, 1500000000, 4096)
    """
    if isinstance(size, str):
        match = _SIZE.fullmatch(size.strip())
        if not match or (match[3] and len(match[3]) == 2 and not match[2]):
            raise ValueError(f"a size is a number of bytes or text such as '64MiB' or '1.5 GB', not {size!r}")
        decimal = match[2] is not None and match[3] is not None and len(match[3]) == 1
        unit = (1000 if decimal else 1024) ** " KMGT".index((match[2] or " ").upper())
        from fractions import Fraction  # here: no store that exists needs it

        number = int(Fraction(match[1]) * unit)
    elif isinstance(size, int) and not isinstance(size, bool):
        number = int(size)
    else:
        raise TypeError(f"a size is an int or a str, not {type(size).__name__}")
    if number <= 0:
        raise ValueError(f"a size must be positive, not {size!r}")
    return number


def region_size(size: int | str) -> int:
    """The size of a region for a store of at most `size` bytes: whole pages of 64 KiB.

    Raises:
        ValueError: less than 1 MiB or more than 8 TiB.
    """
    number = parse_size(size)
    if not MIN_SIZE <= number <= MAX_SIZE:
        raise ValueError(f"the size of a store is 1 MiB to 8 TiB, not {size!r} ({number:,} bytes)")
    return number & -PAGE_SIZE


def default_size() -> int:
    """1 GiB, or half of what the file system has free if that is less, but at least 1 MiB."""
    file_system = os.statvfs(SHM_DIRECTORY)
    free = file_system.f_bavail * file_system.f_frsize
    return max(MIN_SIZE, min(DEFAULT_SIZE, free // 2) & -PAGE_SIZE)


# ---- The header, read without mapping it ---------------------------------------------------

# The twin of `skv_fixed` in _core/layout.h, read in this machine's byte order.
_FIXED = struct.Struct("=Q I I Q B B H I 16s 16s Q Q Q Q Q Q Q Q Q Q I I 96s Q")
FIXED_SIZE = _FIXED.size
assert FIXED_SIZE == 256, "the checked part of the header is 256 bytes"

_MAGIC = 0x0A31766B6D68730D
_SWAPPED_MAGIC = int.from_bytes(_MAGIC.to_bytes(8, "little"), "big")
_BYTE_ORDER = 0x01020304
_PAGE_SHIFT = 16
_FLAG_EVICT = 1
_HEADER_SIZE = 4096
_STATE_OFFSET = 256
_CREATION_BYTE = 0  # locked by who lays a store out
_READY = 1
_PROC_SIZE = 320
_USED = 1  # `state` of a row
_PROCS_SIZE = 1023 * _PROC_SIZE
_PROC = struct.Struct("=I I I I Q Q Q")  # the head of `skv_proc`: state, generation, pid, -, start, namespace, since


class Header(NamedTuple):
    """The fixed part of a region's header, checked."""

    size: int  # bytes
    bucket_bits: int
    evict: bool
    mode: int
    uuid: bytes
    boot_id: bytes
    created: float  # seconds since the epoch, wall clock of the creator
    procs_offset: int
    time_namespace: int
    uid: int


def parse_header(fixed: bytes, object_size: int, name: str) -> Header:
    """Check the first 256 bytes of an object of `object_size` bytes; `name` is for messages.

    Raises:
        CorruptStoreError, LayoutVersionError: see there.
    """
    _check_identity(fixed, name)
    if len(fixed) < FIXED_SIZE:
        raise CorruptStoreError(f"{name!r} is too short for a store: {len(fixed)} bytes")
    if xxhash.xxh3_64_intdigest(fixed[:248]) != int.from_bytes(fixed[248:256], "little"):
        raise CorruptStoreError(f"the header of {name!r} is damaged: its checksum does not fit")
    (
        _, _, _, size, page_shift, bucket_bits, flags, mode, uuid, boot_id, _, _, created_ms,
        procs, buckets, kinds, descriptors, pages_offset, pages, time_namespace, uid, _, _, _,
    ) = _FIXED.unpack_from(fixed)  # fmt: skip
    fits = (
        page_shift == _PAGE_SHIFT
        and MIN_SIZE <= size <= MAX_SIZE
        and 4 <= bucket_bits <= 26
        and pages > 0
        and procs == _HEADER_SIZE
        and procs + _PROCS_SIZE <= buckets
        and buckets + (64 << bucket_bits) <= kinds
        and kinds + pages <= descriptors
        and descriptors + pages * 320 <= pages_offset
        and 0 <= size - (pages_offset + pages * PAGE_SIZE) < 4 * PAGE_SIZE
        and buckets % 64 == descriptors % 64 == pages_offset % PAGE_SIZE == 0
    )
    if not fits:
        raise CorruptStoreError(f"the header of {name!r} is damaged: its offsets do not fit its size")
    if size > object_size:
        raise CorruptStoreError(f"{name!r} was cut off: {object_size:,} bytes are left of {size:,}")
    return Header(
        size=size,
        bucket_bits=bucket_bits,
        evict=bool(flags & _FLAG_EVICT),
        mode=mode,
        uuid=uuid,
        boot_id=boot_id,
        created=created_ms / 1000,
        procs_offset=procs,
        time_namespace=time_namespace,
        uid=uid,
    )


def _check_identity(fixed: bytes, name: str) -> bool:
    """True if this is a header that this version reads, False while it is all zero."""
    magic = int.from_bytes(fixed[0:8], "little")
    version = int.from_bytes(fixed[8:12], "little")
    order = int.from_bytes(fixed[12:16], "little")
    if magic == 0:
        return False
    if magic == _SWAPPED_MAGIC:
        raise LayoutVersionError(f"{name!r} was made on a machine of another byte order")
    if magic != _MAGIC:
        raise CorruptStoreError(f"{name!r} is no store of shmkv")
    if version == order == 0:
        return False
    if order != _BYTE_ORDER:
        raise LayoutVersionError(f"{name!r} was made on a machine of another byte order")
    if version != _core.LAYOUT_VERSION:
        raise LayoutVersionError(
            f"{name!r} has layout version {version}, this shmkv reads version {_core.LAYOUT_VERSION}: "
            "use the shmkv that made it, or unlink it"
        )
    return True


def _refuse_stale(header: Header, name: str) -> None:
    if header.boot_id != _boot_id():
        raise StaleStoreError(f"{name!r} is left over from before a reboot: unlink it")
    if header.time_namespace != namespace("time"):
        raise StaleStoreError(f"{name!r} belongs to another time namespace, whose clocks differ from this one's")


@functools.cache
def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


# ---- Objects -------------------------------------------------------------------------------


def _create_object(target: str, mode: int) -> Descriptor | None:
    """A descriptor of a new, empty object, or None if there is one of this name."""
    try:
        return objects.create(target, mode)
    except FileExistsError:
        return None


def _open_object(target: str, readonly: bool) -> Descriptor:
    """A descriptor of an existing object that is owned by who the name says.

    Raises:
        StoreNotFoundError, ForeignStoreError, PermissionError.
    """
    name = store_name(target)
    try:
        return objects.open_existing(target, readonly)
    except FileNotFoundError as error:
        raise surroundings.explain(error) or StoreNotFoundError(f"there is no store {name!r}") from None
    except PermissionError as error:
        owner = _owner(target)
        if owner is not None and owner != os.geteuid():
            raise ForeignStoreError(
                f"{name!r} belongs to user {owner}, and its mode does not let user {os.geteuid()} "
                f"{'read' if readonly else 'write'} it"
            ) from None
        raise surroundings.explain(error) or PermissionError(f"no permission to open the store {name!r}") from None
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EINVAL, errno.ELOOP):
            raise
        raise CorruptStoreError(f"{name!r} is no shared-memory object") from None


def _check_owner(fd: Descriptor, target: str, foreign: bool) -> None:
    """Refuse what another user put there, unless he opened it to others and `foreign` accepts it."""
    name, found = store_name(target), os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise CorruptStoreError(f"{name!r} is no shared-memory object")
    if found.st_uid == os.geteuid():
        return
    if not foreign:
        raise ForeignStoreError(
            f"{name!r} belongs to user {found.st_uid}, not to user {os.geteuid()}; "
            "if you trust that user's data, say foreign=True"
        )
    if not found.st_mode & 0o066:
        raise ForeignStoreError(f"user {found.st_uid} lets nobody else use {name!r} (mode {found.st_mode & 0o777:04o})")


def open_checked(target: str, foreign: bool) -> Descriptor:
    """A descriptor to write by, of an object whose owner is trusted.

    Raises:
        StoreNotFoundError, ForeignStoreError, PermissionError.
    """
    fd = _open_object(target, readonly=False)
    try:
        _check_owner(fd, target, foreign)
    except BaseException:
        fd.close()
        raise
    return fd


def is_there(target: str) -> bool:
    """Has an object this name?"""
    return os.path.lexists(_path(target))


def is_named(fd: Descriptor, target: str) -> bool:
    """Is this open object still the one under its name?"""
    try:
        found = os.stat(_path(target), follow_symlinks=False)
    except OSError:
        return False
    mine = os.fstat(fd)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


@surroundings.explained
def unlink(target: str) -> None:
    """Remove the name of a store.  Attached processes go on until they close.

    Raises:
        StoreNotFoundError: there is none.
        ForeignStoreError: it is another user's.
    """
    try:
        objects.unlink(target)
    except FileNotFoundError as error:
        raise surroundings.explain(error) or StoreNotFoundError(f"there is no store {store_name(target)!r}") from None
    except PermissionError as error:
        raise surroundings.explain(error) or ForeignStoreError(
            f"{store_name(target)!r} belongs to another user, who alone can remove it"
        ) from None


class Identity(NamedTuple):
    """Which object it is, whatever is called so by now."""

    device: int
    inode: int

    @classmethod
    def of(cls, fd: Descriptor) -> Identity:
        found = os.fstat(fd)
        return cls(found.st_dev, found.st_ino)


def unlink_same(target: str, identity: Identity) -> None:
    """`unlink`, but only if the name still means the object that it meant.

    Raises:
        StoreNotFoundError: it was removed already, whether or not there is a new one of this name.
    """
    try:
        found = os.stat(_path(target), follow_symlinks=False)
    except FileNotFoundError:
        found = None
    if found is None or (found.st_dev, found.st_ino) != identity:
        raise StoreNotFoundError(f"the store {store_name(target)!r} was removed already")
    unlink(target)


# ---- Create and attach ---------------------------------------------------------------------


class Wanted(NamedTuple):
    """What the creator of a store says about it; None = not said."""

    size: int | None = None  # bytes, whole pages
    mode: int | None = None
    on_full: str | None = None


class Opened(NamedTuple):
    """A mapped region and the object it is in."""

    region: _core.Region
    target: str
    identity: Identity
    created: bool


def wanted(size: int | str | None, mode: int | None, on_full: str | None) -> Wanted:
    """Check what a caller says of a store.

    Raises:
        ValueError, TypeError: a size, mode or on_full that no store can have.
    """
    if mode is not None:
        if not isinstance(mode, int) or isinstance(mode, bool):
            raise TypeError(f"mode is an int such as 0o600, not {type(mode).__name__}")
        if mode & ~0o777 or mode & 0o600 != 0o600:
            raise ValueError(f"mode is 0o600, or that with bits for group and others, not {mode:#o}")
    if on_full not in (None, "error", "evict"):
        raise ValueError(f"on_full is 'error' or 'evict', not {on_full!r}")
    return Wanted(None if size is None else region_size(size), mode, on_full)


@surroundings.explained
def create(
    target: str,
    want: Wanted,
    *,
    exist_ok: bool,
    timeout: float,
    foreign: bool = False,
    log_uuid: bytes | None = None,
    uuid: bytes | None = None,
) -> Opened:
    """Create a store and attach to it; with `exist_ok`, attach if it exists and is as wanted.

    Args:
        log_uuid: of a durable store, that of its log.
        uuid: of the store; a new one if it is not given.
        timeout: seconds to wait for another creator that is alive.

    Raises:
        StoreExistsError: it exists, and `exist_ok` is false or something else was explicitly wanted.
    """
    for _ in range(MAX_ROUNDS):
        opened = _create_once(target, want, exist_ok, timeout, foreign, log_uuid, uuid)
        if opened is not None:
            return opened
    raise ShmkvError(f"gave up on {store_name(target)!r}: it was removed {MAX_ROUNDS} times while being opened")


def _create_once(
    target: str,
    want: Wanted,
    exist_ok: bool,
    timeout: float,
    foreign: bool,
    log_uuid: bytes | None,
    uuid: bytes | None,
) -> Opened | None:
    """None: the name was taken away meanwhile."""
    new = fd = None
    try:
        new = _create_object(target, want.mode or DEFAULT_MODE)
        fd = new or _open_if_there(target)
        if fd is None:
            return None
        if new is None:
            _check_owner(fd, target, foreign)
        unfinished = new is not None or _wait_until_ready(fd, target, timeout) is None
        created = unfinished and _lay_out(fd, target, want, log_uuid=log_uuid, uuid=uuid)
        if not created and not exist_ok:
            if not is_named(fd, target):
                return None
            raise StoreExistsError(f"the store {store_name(target)!r} exists already")
        return _map(fd, target, want, created=created, readonly=False, foreign=foreign, timeout=timeout)
    except BaseException:
        if new is not None:
            _abandon(new, target)
        raise
    finally:
        if fd is not None:
            fd.close()


def _open_if_there(target: str) -> Descriptor | None:
    try:
        return _open_object(target, readonly=False)
    except StoreNotFoundError:
        return None


def _abandon(fd: Descriptor, target: str) -> None:
    """After an exception: remove what is half made, unless another process is at it, or has finished it.

    Who waits to go on with it finds that its name is gone, and begins again.
    """
    with contextlib.suppress(ShmkvError, OSError):
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _CREATION_BYTE, 1, 0))
        is_ready = os.pread(fd, 4, _STATE_OFFSET) == _READY.to_bytes(4, "little")
        if not is_ready and is_named(fd, target):
            unlink(target)


@surroundings.explained
def attach(target: str, want: Wanted | None = None, *, readonly: bool, foreign: bool, timeout: float) -> Opened:
    """Attach to a store that exists.

    Raises:
        StoreNotFoundError, ForeignStoreError, CorruptStoreError, LayoutVersionError, StaleStoreError: see there.
    """
    for _ in range(MAX_ROUNDS):
        fd = _open_object(target, readonly)
        try:
            _check_owner(fd, target, foreign)
            opened = _map(
                fd, target, want or Wanted(), created=False, readonly=readonly, foreign=foreign, timeout=timeout
            )
            if opened is not None:
                return opened
        finally:
            fd.close()
    raise ShmkvError(f"gave up on {store_name(target)!r}: it was removed {MAX_ROUNDS} times while being opened")


@surroundings.explained
def create_in(target: str, want: Wanted, *, exist_ok: bool, timeout: float) -> Opened:
    """Lay a store out in an object of the caller's, of the size that it has, and attach to it.

    Raises:
        ValueError: it is smaller than 1 MiB.
        CorruptStoreError: it holds something else.
        StoreExistsError: there is a store in it already, and `exist_ok` is false.
    """
    fd = _open_object(target, readonly=False)
    try:
        size = region_size(os.fstat(fd).st_size)
        want = want._replace(size=size)
        created = _lay_out(fd, target, want, fixed_size=True)
        if not created and not exist_ok:
            raise StoreExistsError(f"there is a store in {store_name(target)!r} already")
        opened = _map(fd, target, want, created=created, readonly=False, foreign=True, timeout=timeout, named=False)
        assert opened is not None, "an object without a name is the caller's own decision"
        return opened
    finally:
        fd.close()


@surroundings.explained
def create_anonymous(size: int, label: str) -> Opened:
    """Lay a store out in memory that has no name and needs no /dev/shm: only this process can reach it.

    Raises:
        StoreFullError: no room for its fixed areas.
    """
    target = f"/{label}"
    want = wanted(size, None, None)
    fd = Descriptor(os.memfd_create(label, os.MFD_CLOEXEC))
    try:
        os.ftruncate(fd, region_size(size))
        _lay_out(fd, target, want._replace(size=region_size(size)), fixed_size=True)
        opened = _map(fd, target, want, created=True, readonly=False, foreign=False, timeout=0, named=False)
        assert opened is not None, "nobody else knows the object"
        return opened
    finally:
        fd.close()


def _lay_out(
    fd: Descriptor,
    target: str,
    want: Wanted,
    *,
    fixed_size: bool = False,
    log_uuid: bytes | None = None,
    uuid: bytes | None = None,
) -> bool:
    """Make a store of the object behind `fd`; False if another process did so first."""
    mode = want.mode or DEFAULT_MODE
    try:
        if not fixed_size:
            os.fchmod(fd, mode)  # shm_open took the umask off
        with _named(store_name(target)):
            created = _core.Region.create(
                fd,
                want.size or default_size(),
                evict=want.on_full == "evict",
                mode=mode,
                uid=os.geteuid(),
                uuid=uuid or _random_uuid(),
                seed=int.from_bytes(os.urandom(8), "little"),
                fixed_size=fixed_size,
                log_uuid=log_uuid,
            )
        if created and not fixed_size:
            os.fchmod(fd, mode)  # again: a creator that was slower may have set its own
        return created
    except BaseException:
        if not fixed_size:
            _abandon(fd, target)
        raise


def _map(
    fd: Descriptor,
    target: str,
    want: Wanted,
    *,
    created: bool,
    readonly: bool,
    foreign: bool,
    timeout: float,
    named: bool = True,
) -> Opened | None:
    """Check the header and attach; None if the name was taken away meanwhile."""
    header = _wait_until_ready(fd, target, timeout)
    name = store_name(target)
    if header is None:
        if named and not is_named(fd, target):
            return None
        raise StoreNotFoundError(f"the store {name!r} is half made: its creator died; Store({name!r}) finishes it")
    if header.uid != os.geteuid() and not foreign:
        raise ForeignStoreError(f"{name!r} was made by user {header.uid}, not by user {os.geteuid()}")
    _refuse_stale(header, name)
    if not created:
        _refuse_other(header, want, name, fixed=not named)
    with _named(name):
        region = _core.Region.attach(fd, readonly)
    leaving.watch(_core.give_back)
    if named and os.fstat(fd).st_nlink == 0:
        return None
    return Opened(region, target, Identity.of(fd), created)


def _wait_until_ready(fd: Descriptor, target: str, timeout: float) -> Header | None:
    """The header once it is ready; None if its creator died before."""
    name = store_name(target)
    head = _read_head(fd, name)
    if head[_STATE_OFFSET:] == _READY.to_bytes(4, "little"):
        fixed: bytes | None = os.pread(fd, FIXED_SIZE, 0)  # again: it was complete before the state said so
    else:
        with _named(name):
            fixed = _core.Region.peek(fd, timeout)
    return None if fixed is None else parse_header(fixed, os.fstat(fd).st_size, name)


def _read_head(fd: Descriptor, name: str) -> bytes:
    """The fixed header and the state; raises if this is no store, or none for this version.

    Looks twice, as the first look may have met a creator in the middle of writing.
    """
    head = os.pread(fd, _STATE_OFFSET + 4, 0)
    try:
        _check_head(head, name)
    except ShmkvError:
        time.sleep(0.002)
        if os.pread(fd, _STATE_OFFSET + 4, 0) == head:
            raise
        return _read_head(fd, name)
    return head


def _check_head(head: bytes, name: str) -> None:
    if _check_identity(head, name) and len(head) < _STATE_OFFSET + 4:
        raise CorruptStoreError(f"{name!r} was cut off: {len(head)} bytes are left of it")


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which store it is in errors of the engine, which knows no names."""
    try:
        yield
    except (CorruptStoreError, LayoutVersionError, LockTimeoutError, StaleStoreError, TooManyProcessesError) as error:
        raise type(error)(f"{name!r}: {error}") from None


def on_full_of(store: Header | _core.Region) -> str:
    """As its creator said it."""
    return "evict" if store.evict else "error"


def differences(header: Header | _core.Region, want: Wanted) -> list[str]:
    """What was explicitly wanted that this store is not, in words."""
    found = []
    if want.size is not None and want.size != header.size:
        found.append(f"a size of {header.size:,} bytes, not of {want.size:,}")
    if want.mode is not None and want.mode != header.mode:
        found.append(f"mode {header.mode:#o}, not {want.mode:#o}")
    if want.on_full not in (None, on_full_of(header)):
        found.append(f"on_full={on_full_of(header)!r}, not {want.on_full!r}")
    return found


def _refuse_other(header: Header, want: Wanted, name: str, fixed: bool) -> None:
    """Raise `StoreExistsError` if something was explicitly wanted that this store is not."""
    found = differences(header, want)
    if not found:
        return
    if fixed:
        advice = "ask for nothing else, or lay it out in another SharedMemory"
    elif want.mode not in (None, header.mode):
        advice = "unlink it first, or say existing='replace' to begin an empty store (docs/deploying.md)"
    else:
        advice = (
            "say existing='keep' to use it as it is, 'resize' to move its items into a store as asked for while nobody "
            "else has it open, or 'replace' to begin an empty one (docs/deploying.md)"
        )
    raise StoreExistsError(f"{name!r} exists with {' and '.join(found)}: {advice}")


def _random_uuid() -> bytes:
    """The 16 bytes of a random UUID (RFC 9562, version 4)."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


# ---- Finding -------------------------------------------------------------------------------


@surroundings.explained
def find(name: str, foreign: bool) -> str:
    """The object of the store `name`: this user's, or with `foreign`, if he has none, another user's.

    If there is none at all, it is what this user's would be called.

    Raises:
        ForeignStoreError: several other users have one of this name.
    """
    own = object_name(name)
    if not foreign or os.path.lexists(_path(own)):
        return own
    owners = sorted(uid for uid, other in _objects() if other == name and _owner(object_name(name, uid)) == uid)
    if len(owners) > 1:
        raise ForeignStoreError(f"several users have a store {name!r}: {', '.join(map(str, owners))}")
    return object_name(name, owners[0]) if owners else own


def _objects() -> Iterator[tuple[int, str]]:
    """(uid, name) of every object that is called like a store."""
    for entry in os.listdir(SHM_DIRECTORY):
        match = _OBJECT.fullmatch(entry)
        if match and match[1] == str(int(match[1])):
            yield int(match[1]), match[2]


def _owner(target: str) -> int | None:
    try:
        return os.stat(_path(target), follow_symlinks=False).st_uid
    except OSError:
        return None


class Row(NamedTuple):
    """A row of a process table that is in use."""

    slot: int
    pid: int  # in its own pid namespace
    start: int  # clock ticks since boot
    namespace: int  # inode of that pid namespace
    alive: bool  # it holds its liveness byte


_FLOCK = struct.Struct("hhqqi4x")  # struct flock


def _is_locked(fd: int, offset: int, length: int) -> bool:
    """Does another open file description than this one hold a lock on one of these bytes?  `length` 0: to the end."""
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, length, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def rows(fd: int, header: Header) -> Iterator[Row]:
    """The process table behind a descriptor that has no lock itself."""
    table = os.pread(fd, _PROCS_SIZE, header.procs_offset)
    for at in range(0, len(table) - _PROC_SIZE + 1, _PROC_SIZE):
        state, _, pid, _, start, where, _ = _PROC.unpack_from(table, at)
        if state == _USED:
            yield Row(at // _PROC_SIZE, pid, start, where, _is_locked(fd, header.procs_offset + at, 1))


def living(fd: int, name: str) -> list[Row]:
    """The processes that live of those in a region; none of what is no store, or not ready."""
    try:
        fixed = os.pread(fd, FIXED_SIZE, 0)
        header = parse_header(fixed, os.fstat(fd).st_size, name) if _check_identity(fixed, name) else None
    except ShmkvError:
        return []
    return [row for row in rows(fd, header) if row.alive] if header else []


class Listed(NamedTuple):
    """What a look at a region from outside tells."""

    name: str
    uid: int
    committed: int  # bytes of memory that it takes
    header: Header | None
    processes: int  # that live, of those that may write
    problem: str | None  # why nobody can attach to it
    path: str | None = None  # of a durable one: its directory, as who opened it last called it


class OfOtherLayout(NamedTuple):
    """A region that only a release of another layout version reads."""

    name: str
    layout_version: int
    path: str  # of its object


def of_other_layouts() -> list[OfOtherLayout]:
    """The regions of this user that releases of other layout versions have made, or may have in use."""
    found = []
    for entry in sorted(os.listdir(SHM_DIRECTORY)):
        match = _OBJECT_OF_ANY.fullmatch(entry)
        if match and match[2] == str(os.geteuid()) and not entry.startswith(f"{_NAME_SPACE}."):
            found.append(OfOtherLayout(match[3], int(match[1] or 1), _path(f"/{entry}")))
    return found


@surroundings.explained
def list_regions(uid: int | None = None, *, foreign: bool = False) -> list[Listed]:
    """Every store of one user (this one if it is not given), by name; nothing is mapped or changed.

    Args:
        foreign: those of all other users as well.
    """
    mine = os.geteuid() if uid is None else uid
    # What lies under another user's name and is not his, nobody will ever attach to.
    wanted = sorted(
        (name, owner)
        for owner, name in _objects()
        if owner == mine or (foreign and _owner(object_name(name, owner)) == owner)
    )
    return [listed for name, owner in wanted if (listed := _look(name, owner)) is not None]


def check_readable(name: str, uid: int) -> None:
    """
    Raises:
        StoreNotFoundError, PermissionError, CorruptStoreError: this user may not read that user's store.
    """
    target = object_name(name, uid)
    fd = _open_object(target, readonly=True)
    try:
        _check_owner(fd, target, foreign=True)
    finally:
        fd.close()


def _look(name: str, uid: int) -> Listed | None:
    target = object_name(name, uid)
    try:
        fd = _open_object(target, readonly=True)
    except StoreNotFoundError:
        return None
    except (ShmkvError, OSError) as error:
        return Listed(name, uid, 0, None, 0, str(error))
    header, processes, problem, path = None, 0, None, None
    try:
        found = os.fstat(fd)
        try:
            _check_owner(fd, target, foreign=found.st_uid == uid)
            fixed = os.pread(fd, FIXED_SIZE, 0)
            if _check_identity(fixed, name):
                header = parse_header(fixed, found.st_size, name)
                _refuse_stale(header, name)
                processes = sum(row.alive for row in rows(fd, header))
                path = _noted_path(fd)
                if path and not processes and not _leads_to(path, name):
                    problem = f"its directory is gone: {shown_path(path)}"
            else:
                problem = f"{name!r} is being made, or its creator died"
        except ShmkvError as error:
            problem = str(error)
        return Listed(name, uid, found.st_blocks * 512, header, processes, problem, shown_path(path) if path else None)
    finally:
        fd.close()


# ---- Directories of durable stores ---------------------------------------------------------

_PATH_OFFSET, _PATH_BYTES = 2048, 2048


def note_path(target: str, path: str) -> None:
    """Write into the region of a durable store where its directory is, for who finds the region without it."""
    raw = os.fsencode(path)
    if len(raw) < _PATH_BYTES:
        fd = _open_object(target, readonly=False)
        try:
            os.pwrite(fd, raw.ljust(_PATH_BYTES, b"\0"), _PATH_OFFSET)
        finally:
            os.close(fd)


def _noted_path(fd: int) -> bytes | None:
    path = os.pread(fd, _PATH_BYTES, _PATH_OFFSET).partition(b"\0")[0]
    return path if path.startswith(b"/") else None


def _leads_to(path: bytes, name: str) -> bool:
    """Is that the directory of the region of this name, as far as can be seen from here?"""
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return durable_name(facts.st_dev, facts.st_ino) == name


def shown_path(path: bytes) -> str:
    """On one line, whatever it is made of."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# ---- Private stores ------------------------------------------------------------------------


def private_name() -> str:
    """A name that nobody else has, which tells of the process that made it."""
    return f"private.{os.getpid()}.{own_start()}.{pid_namespace()}-{os.urandom(8).hex()}"


def is_private(name: str) -> bool:
    """Is this the name of a private store?"""
    return _PRIVATE.fullmatch(name) is not None


def is_durable(name: str) -> bool:
    """Is this the name of a region that belongs to a directory?"""
    return _DURABLE.fullmatch(name) is not None


def is_dead_private(name: str, uid: int | None = None) -> bool:
    """Is this a private store, of this user if no other is given, whose creator has ended?

    A store whose creator holds its liveness byte is alive, whatever /proc says.  Another one is dead if its creator is
    not in /proc.  Where /proc cannot tell (a container that shares /dev/shm, no /proc, that of another pid namespace)
    it is dead once nobody is attached to it, and not in its first minute.
    """
    match = _PRIVATE.fullmatch(name)
    return match is not None and _creator_has_ended(object_name(name, uid), *map(int, match.groups()))


def _creator_has_ended(target: str, pid: int, start: int, where: int) -> bool:
    try:
        fd = _open_object(target, readonly=True)
    except (ShmkvError, OSError):
        return False
    try:
        if any(row.pid == pid and row.namespace == where for row in living(fd, store_name(target))):
            return False
        if where and where == pid_namespace() and sees_pids():
            return process_start(pid) != start
        return _is_abandoned(fd)
    except OSError:
        return False
    finally:
        fd.close()


def unlink_private(target: str, identity: Identity, creator: int) -> None:
    """Remove a private store, when its creator closes it or ends; does nothing in a forked child."""
    if os.getpid() == creator:
        with contextlib.suppress(ShmkvError, OSError):
            unlink_same(target, identity)


def unlink_new(target: str) -> None:
    """Remove a private store whose making came to nothing, as far as it came."""
    with contextlib.suppress(ShmkvError, OSError):
        unlink(target)


@surroundings.explained
def remove_dead_private() -> int:
    """Remove this user's private stores whose creators were killed (`is_dead_private`); returns how many."""
    uid, removed = os.geteuid(), 0
    for owner, name in _objects():
        if owner == uid and is_dead_private(name):
            with contextlib.suppress(ShmkvError, OSError):
                unlink(object_name(name, uid))
                removed += 1
    return removed


def _is_abandoned(fd: int) -> bool:
    """True if no process of any namespace holds a lock on the object, and it is older than a minute."""
    if time.time() - os.fstat(fd).st_ctime < FOREIGN_NAMESPACE_GRACE_S:
        return False
    return not _is_locked(fd, 0, 0)  # all bytes


# ---- As multiprocessing.shared_memory ------------------------------------------------------


def memory_target(memory: SharedMemory) -> str:
    """The object of a caller's `SharedMemory`."""
    return "/" + memory.name.lstrip("/")


@surroundings.explained
def shared_memory(target: str, uuid: bytes, fd: int, readonly: bool) -> SharedMemory:
    """A `SharedMemory` over the region behind `fd` that no resource tracker hears of."""
    copy = Descriptor.open(f"/proc/self/fd/{fd}", os.O_RDONLY if readonly else os.O_RDWR)
    memory: SharedMemory = _store_memory()(target, uuid, copy, readonly)
    return memory


def reopen_shared_memory(target: str, uuid: bytes, readonly: bool) -> SharedMemory:
    """Loads a pickled one."""
    fd = _open_object(target, readonly)
    try:
        header = _wait_until_ready(fd, target, timeout=0.0)
        if header is None or header.uuid != uuid:
            raise StoreNotFoundError(f"the store {store_name(target)!r} was replaced by another one")
        return shared_memory(target, uuid, fd.fileno(), readonly)
    finally:
        fd.close()


@functools.cache
def _store_memory() -> Any:
    """The class; made at its first use, as importing multiprocessing takes as long as importing shmkv."""
    from multiprocessing.shared_memory import SharedMemory

    class StoreMemory(SharedMemory):
        """A `SharedMemory` that does not own its memory.

        The base's constructor is not called: before Python 3.13 it tells the resource tracker, which would
        remove the store when this process ends, and telling it to forget comes too late for a process that is
        killed in between.  From 3.13 on there is track=False, but it is forgotten in pickling.
        """

        def __init__(self, target: str, uuid: bytes, fd: Descriptor, readonly: bool) -> None:
            self._track = False
            self._name = target
            self._store = (target, uuid, readonly)
            self._identity = Identity.of(fd)
            access = mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE
            self._size = os.fstat(fd).st_size
            self._mmap = mmap.mmap(fd.fileno(), self._size, access=access)
            self._buf = memoryview(self._mmap)
            self._fd = fd.detach()

        def __reduce__(self) -> tuple[Any, ...]:
            return reopen_shared_memory, self._store

        def unlink(self) -> None:
            """Remove the store's name, as `Store.unlink` does."""
            unlink_same(self._store[0], self._identity)

    return StoreMemory

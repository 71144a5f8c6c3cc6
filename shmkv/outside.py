"""A store looked at from outside: who is attached, who of them is dead, and who holds a lock.

What: what `Store.processes()` and `check()` cannot tell: a dead process from one that cannot be seen from here, and
      whose locks are held at this moment, without asking for one.
How:  a read-only descriptor of the region and the published layout (docs/memory-layout.md).  Whether a process
      lives is told by the kernel: it holds the lock on its liveness byte for as long as it does, in whatever pid
      namespace.  Nothing is attached to, and nothing changes.

Concurrency: rows and locks are each read at some moment of their own; a lock is held for about a microsecond, so that
      one that is found twice, some time apart, and by the same thread, is worth a word.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from shmkv import region
from shmkv._core import Descriptor
from shmkv.processes import Process, seen

DEAD: Final = "dead"
UNSEEN: Final = "unseen"

_WORK: Final = struct.Struct("=72x Q 4I 224x")  # of a row: batch status, `busy` and `alone`
_BUCKET_BYTES: Final = 64
_BUCKETS_AT: Final = struct.Struct("=96x Q")  # `buckets_offset`, in the fixed header
_STORE_LOCKS: Final = {"pages_lock": 320, "grow_lock": 384, "compact_lock": 520}
_BATCH_MASK: Final = 3  # of a batch status: 0 = no batch is in flight
_OWNER_MASK: Final = 0x3FF  # of a lock word: slot + 1


class Attached(NamedTuple):
    """A row of the process table that is in use."""

    slot: int
    pid: int  # in its own pid namespace
    alive: bool
    inside: bool  # a call was in flight: of one that has ended, its locks and blocks may wait for somebody
    name: str | None  # None where it cannot be seen from here
    status: str  # "running", "sleeping", "stopped", ... as psutil says; "dead"; "unseen": in another pid namespace


def attached(store: str | int, uid: int | None = None) -> list[Attached]:
    """The processes in a store, dead ones that nobody has collected yet included.

    Args:
        store: the name of a store of this user, or a descriptor of its region.
        uid: of the user whose store of this name is meant, if it is not this one's.

    Raises:
        StoreNotFoundError, PermissionError, CorruptStoreError, LayoutVersionError: as of `Store.attach`.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     [(one.pid == os.getpid(), one.alive) for one in attached(store.name)]
    [(True, True)]
    """
    with _Region(store, uid) as shown:
        return shown.attached()


def locks_held(store: str | int, uid: int | None = None) -> Counter[tuple[int, str]]:
    """How many locks each slot holds at this moment: (slot, "bucket" or the lock's name) -> number.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     locks_held(store.name)
    Counter()
    """
    with _Region(store, uid) as shown:
        return shown.locks_held()


def users_of_removed(uid: int | None = None) -> dict[str, list[int]]:
    """Of each store of a user (this one if none is given) whose name was removed: its name, and the pids of processes
    that have it mapped, as far as /proc of this pid namespace tells.

    >>> users_of_removed().get("never-made", [])
    []
    """
    path = re.escape(region.path_of(region.object_name("x", uid)).removesuffix(b"x"))
    removed = re.compile(rb"^\S+ \S+ \S+ \S+ \d+ +" + path + rb"(\S+) \(deleted\)$", re.MULTILINE)
    found: dict[str, set[int]] = {}
    processes = Path("/proc")
    for entry in filter(str.isdigit, os.listdir(processes) if processes.is_dir() else ()):
        # It ended, or is another user's.
        with suppress(OSError):
            for name in removed.findall((processes / entry / "maps").read_bytes()):
                found.setdefault(os.fsdecode(name), set()).add(int(entry))
    return {name: sorted(pids) for name, pids in found.items()}


def _open(store: str | int, uid: int | None) -> Descriptor:
    """A descriptor of its own: a process never meets the locks of its own open file."""
    if isinstance(store, int):
        return Descriptor.open(f"/proc/self/fd/{store}", os.O_RDONLY)
    return region._open_object(region.object_name(store, uid), readonly=True)


class _Region:
    """An open region."""

    def __init__(self, store: str | int, uid: int | None) -> None:
        self._fd = _open(store, uid)
        try:
            fixed = os.pread(self._fd, region.FIXED_SIZE, 0)
            self._header = region.parse_header(fixed, os.fstat(self._fd).st_size, str(store))
            self._buckets_at = _BUCKETS_AT.unpack_from(fixed)[0]
        except BaseException:
            self._fd.close()
            raise

    def __enter__(self) -> _Region:
        return self

    def __exit__(self, *_: object) -> None:
        self._fd.close()

    def attached(self) -> list[Attached]:
        found = []
        for slot, pid, start, namespace, alive in region.rows(self._fd, self._header):
            name, status = (seen(Process(pid, start, namespace)) if alive else (None, DEAD)) or (None, UNSEEN)
            found.append(Attached(slot, pid, alive, self._is_inside(slot), name, status))
        return found

    def _is_inside(self, slot: int) -> bool:
        row = os.pread(self._fd, _WORK.size, self._header.procs_offset + slot * _WORK.size)
        status, *counts = _WORK.unpack(row)
        return bool(status & _BATCH_MASK or any(counts))

    def locks_held(self) -> Counter[tuple[int, str]]:
        end = self._buckets_at + (_BUCKET_BYTES << self._header.bucket_bits)
        held: Counter[tuple[int, str]] = Counter()
        with memoryview(os.pread(self._fd, end, 0).ljust(end, b"\0")).cast("I") as words:
            buckets = words[self._buckets_at // 4 : end // 4 : _BUCKET_BYTES // 4].tolist()
            for word, count in Counter(buckets).items():
                if word:
                    held[(word & _OWNER_MASK) - 1, "bucket"] += count
            for lock, offset in _STORE_LOCKS.items():
                if words[offset // 4]:
                    held[(words[offset // 4] & _OWNER_MASK) - 1, lock] += 1
        return held

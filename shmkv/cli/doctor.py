"""`shmkv doctor`'s work: what is wrong around the stores of this machine, each with the command that mends it.

Nothing here changes anything, takes a lock, or waits: regions are looked at from outside (outside.py), and numbers
are read through a read-only handle.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from shmkv import outside, region
from shmkv.cli.render import format_bytes, user_name
from shmkv.errors import ShmkvError
from shmkv.filling import fill_of
from shmkv.processes import STOPPED
from shmkv.store import Store, _reattach

if TYPE_CHECKING:
    from shmkv.outside import Attached
    from shmkv.reports import StoreInfo

_MIB: Final = 1 << 20
_NOTABLE_BYTES: Final = 16 * _MIB  # what `compact` would give back is worth a word from here on,
_NOTABLE_SHARE: Final = 0.25  # and if it is so much of what the store takes
_SAMPLED_BUCKETS: Final = 64
_RECORD_BYTES: Final = 16 + 8 + 16 + 8  # head, expiry, slot, and half a rounding: of a small item
_SHOWN_PIDS: Final = 8
_LOOK_SECONDS: Final = 5.0  # for a store that is just being made


class Finding(NamedTuple):
    """Something that is wrong."""

    about: str  # the store's name
    kind: str  # one word for programs
    what: str
    why: str  # it matters
    mend: str  # a command
    uid: int  # of the store's user


class SharedMemory(NamedTuple):
    """The file system that stores lie in."""

    total: int  # bytes
    free: int


def shared_memory() -> SharedMemory:
    """As it is now."""
    found = os.statvfs(region.SHM_DIRECTORY)
    return SharedMemory(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def examine(stores: Sequence[StoreInfo], folder: str | None = None) -> list[Finding]:
    """Everything that is wrong with these stores.

    Args:
        folder: the directory of the store, if it is one durable store that is asked about.
    """
    memory = shared_memory()
    removed = {uid: outside.users_of_removed(uid) for uid in {info.uid for info in stores}}
    findings: list[Finding] = []
    for info in stores:
        if info.problem is not None and info.path is not None:
            findings.append(_directory_gone(info, info.problem))
        elif info.problem is not None:
            findings.append(_unusable(info, info.problem))
        elif region.is_dead_private(info.name, info.uid):
            findings.append(_unusable(info, "the process that made this private store was killed"))
        else:
            findings += _of_store(info, _option(info.name, folder or info.path), memory)
            findings += _orphans(info, removed[info.uid].get(info.name, []))
    return findings


def without_a_name(stores: Sequence[StoreInfo]) -> list[Finding]:
    """Stores that are in use, though none of these has their name any more."""
    there = {info.name for info in stores if info.uid == os.geteuid()}
    return [
        Finding(
            name,
            "removed-in-use",
            f"its name was removed, and {_processes(pids)} it still",
            "who opens the name now begins an empty store, and does not see what they write",
            f"restart them, and save before what they need: kill -TERM {' '.join(map(str, pids[:_SHOWN_PIDS]))}",
            os.geteuid(),
        )
        for name, pids in sorted(outside.users_of_removed().items())
        if name not in there and not region.is_private(name) and not region.is_durable(name)
    ]


def is_open_to_us(info: StoreInfo) -> bool:
    """May this user look into it?  That another one's store is closed to him is no fault of it."""
    try:
        region.check_readable(info.name, info.uid)
    except (ShmkvError, OSError):
        return False
    return True


def of_other_releases() -> list[Finding]:
    """Regions of this user that this release does not read."""
    return [
        Finding(
            other.name,
            "other-layout",
            f"its memory has layout version {other.layout_version}, which another release of shmkv reads",
            "once the processes of that release have ended, it only takes memory",
            f"rm {other.path}   (when they have)",
            os.geteuid(),
        )
        for other in region.of_other_layouts()
    ]


def _option(name: str, folder: str | None) -> str:
    """How a command names the store: a durable one only by its directory, which regions of earlier versions do not
    know."""
    if not region.is_durable(name):
        return f"--store {name}"
    inode = int(name.rpartition(".")[2], 16)
    return f"--path {shlex.quote(folder) if folder else f'DIR   (the directory with inode {inode})'}"


def _of_store(info: StoreInfo, option: str, memory: SharedMemory) -> Iterator[Finding]:
    try:
        yield from _too_small(info, memory, in_container())
        processes = outside.attached(info.name, info.uid)
        yield from _dead(info, option, processes)
        yield from _stopped(info, processes)
        yield from _nearly_full(info, option)
        yield from _reclaimable(info, option)
    except (ShmkvError, OSError) as error:  # it went away, or changed its owner, while it was looked at
        yield _unusable(info, str(error))


def _reader(info: StoreInfo) -> Store:
    """A handle that only looks: of this very store, also where two users have one of its name."""
    assert info.uuid is not None, "it is whole"
    target = region.object_name(info.name, info.uid)
    return _reattach(
        Store, target, info.uuid.bytes, "safe", _LOOK_SECONDS, readonly=True, foreign=True, by_caller=False
    )


def _as_owner(info: StoreInfo, command: str) -> str:
    """What only its user may do to a store, whatever others may read."""
    if info.uid == os.geteuid():
        return command
    user = user_name(info.uid)
    return f"sudo -u {shlex.quote(f'#{user}' if user.isdecimal() else user)} {command}"


# ---- What may be wrong -------------------------------------------------------------------------


def _unusable(info: StoreInfo, problem: str) -> Finding:
    return Finding(
        info.name,
        "unusable",
        problem,
        "nobody can attach to it, and it takes memory",
        _as_owner(info, f"shmkv unlink {info.name}"),
        info.uid,
    )


def _directory_gone(info: StoreInfo, problem: str) -> Finding:
    """The memory is the last copy."""
    return Finding(
        info.name,
        "directory-gone",
        problem,
        "what is left of the store is in memory, until the next boot",
        f"{_as_owner(info, f'shmkv export --store {info.name}')} > FILE   "
        f"(saves it; then: {_as_owner(info, f'shmkv unlink {info.name}')})",
        info.uid,
    )


def _too_small(info: StoreInfo, memory: SharedMemory, container: bool) -> Iterator[Finding]:
    size = info.size or 0
    growth = size - info.committed
    if growth <= memory.free:
        return
    need = memory.total - memory.free + growth
    megabytes = -(-need // _MIB)
    flag = f"docker run --shm-size={megabytes}m ...   (Kubernetes: an emptyDir with medium: Memory at /dev/shm)"
    yield Finding(
        info.name,
        "shm-too-small",
        f"it may take {format_bytes(size)}, {format_bytes(growth)} more than now, and /dev/shm has "
        f"{format_bytes(memory.free)} free of {format_bytes(memory.total)}",
        "writes will fail with StoreFullError before the store is full",
        flag if container else f"mount -o remount,size={megabytes}m /dev/shm",
        info.uid,
    )


def _dead(info: StoreInfo, option: str, processes: Sequence[Attached]) -> Iterator[Finding]:
    """Those that ended in the middle of a call.  What the others left (places, room for a next write) goes back by
    itself: workers end so every day, and there is nothing to do about it."""
    dead = {one.slot: one for one in processes if not one.alive}
    if not dead:
        return
    if region.is_durable(info.name) and len(dead) == len(processes):
        yield Finding(
            info.name,
            "dead-processes",
            "all processes that had this durable store open have ended without closing it",
            "its memory stays until it is opened and closed again, and holds everything meanwhile: if the files turn "
            f"out to be damaged, {_as_owner(info, f'shmkv export --store {info.name}')} > FILE saves it",
            _as_owner(info, f"shmkv compact {option}"),
            info.uid,
        )
        return
    holders = {slot for slot, _ in outside.locks_held(info.name, info.uid)}
    pids = [str(one.pid) for one in dead.values() if one.inside or one.slot in holders]
    if pids:
        shown = ", ".join(pids[:_SHOWN_PIDS]) + (", ..." if len(pids) > _SHOWN_PIDS else "")
        yield Finding(
            info.name,
            "dead-processes",
            f"{len(pids)} process{'' if len(pids) == 1 else 'es'} ended in the middle of a call (pid {shown})",
            "blocks that the call had taken stay in use until the store is full; nobody is blocked, and what it was "
            "writing is there as a whole or not at all",
            _as_owner(info, f"shmkv compact {option}"),
            info.uid,
        )


def _processes(pids: Sequence[int]) -> str:
    """As the subject of a sentence: how many they are, and which."""
    shown = ", ".join(map(str, pids[:_SHOWN_PIDS])) + (", ..." if len(pids) > _SHOWN_PIDS else "")
    return f"{len(pids)} {'processes use' if len(pids) > 1 else 'process uses'} (pid {shown})"


def _orphans(info: StoreInfo, pids: Sequence[int]) -> Iterator[Finding]:
    """Processes that still use an earlier store of this name."""
    if pids:
        yield Finding(
            info.name,
            "orphaned-processes",
            f"{_processes(pids)} another store that had this name and was removed",
            "what they write is not seen by those who open the name now, nor the other way round",
            f"restart them: kill -TERM {' '.join(map(str, pids[:_SHOWN_PIDS]))}   (reattach=True follows the name)",
            info.uid,
        )


def _stopped(info: StoreInfo, processes: Sequence[Attached]) -> Iterator[Finding]:
    stopped = {one.slot: one for one in processes if one.status in STOPPED}
    if not stopped:
        return
    held = outside.locks_held(info.name, info.uid)
    for slot, process in stopped.items():
        locks = sum(count for (owner, _), count in held.items() if owner == slot)
        if locks:
            yield Finding(
                info.name,
                "stopped-holder",
                f"process {process.pid} ({process.name}) is {process.status} and holds "
                f"{locks:,} lock{'s' if locks > 1 else ''}",
                "writers that need one wait for lock_timeout, and fail with LockTimeoutError",
                f"kill -CONT {process.pid}   (or kill -KILL {process.pid}: the next writer repairs what it left)",
                info.uid,
            )


def _nearly_full(info: StoreInfo, option: str) -> Iterator[Finding]:
    with _reader(info) as store:
        fill = fill_of(store.stats(), store._opened().evict)
    if fill.is_nearly_full:
        yield Finding(
            info.name,
            "nearly-full",
            f"{100 * fill.share:.1f} % of the {format_bytes(fill.limit)} that it can take are used",
            'on_full="error": a write that finds no room is refused with StoreFullError',
            _as_owner(info, f"shmkv keys {option} --by-prefix")
            + "   (says who fills it; delete some of that, or give the store more room)",
            info.uid,
        )


def _reclaimable(info: StoreInfo, option: str) -> Iterator[Finding]:
    with _reader(info) as store:
        stats = store.stats()
        needed = stats.table_bytes + _data_bytes(store, stats.items) + _fixed_bytes(stats.size)
    back = stats.committed - needed
    if back >= _NOTABLE_BYTES and back >= _NOTABLE_SHARE * stats.committed:
        others = ", once no other process is attached" if info.processes else ""
        yield Finding(
            info.name,
            "reclaimable",
            f"it takes {format_bytes(stats.committed)}, and its items need about {format_bytes(needed)}",
            f"about {format_bytes(back)} would go back to the system{others}",
            _as_owner(info, f"shmkv compact {option}"),
            info.uid,
        )


def _data_bytes(store: Store, items: int) -> int:
    """What the items take, by those of some buckets."""
    sizes: list[int] = []
    buckets = store._opened().bucket_count
    for bucket in range(0, buckets, max(1, buckets // _SAMPLED_BUCKETS)):
        _, facts = store._walk_facts(bucket, None)
        sizes += (
            len(key.encode() if isinstance(key, str) else key) + length + _RECORD_BYTES for key, _, length, _ in facts
        )
    # Blocks are up to an eighth larger than what lies in them, and pages are not packed to the last one.
    return round(1.25 * items * sum(sizes) / len(sizes)) if sizes else items * _RECORD_BYTES


def _fixed_bytes(size: int) -> int:
    """Header, process table, buckets, descriptors: about 0.15 % of the size, and what grows in steps of 1 MiB."""
    return size // 600 + 2 * _MIB


def in_container() -> bool:
    """Is /dev/shm what a container runtime made of it?"""
    marks = ("/.dockerenv", "/run/.containerenv")
    return any(map(os.path.exists, marks)) or "KUBERNETES_SERVICE_HOST" in os.environ

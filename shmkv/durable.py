"""Durable stores: the region that belongs to a directory, and who fills, shares, syncs and leaves it.

What: `open_durable` finds or rebuilds the region of a directory; `Durable` is a handle's part in it, until it leaves.
How:  the directory holds `store.json` (settings), `lock`, segments of the log and a snapshot (docs/durability.md).
      Its region is found by the directory's device and inode, whatever path leads there.

      byte 0 of `lock`   somebody opens or leaves      one at a time: whoever comes first rebuilds, the others wait
      byte 1             somebody has it open          shared, or with exclusive=True alone

Races, and how each ends:
    killed while it rebuilds     `lock` does not name the region yet: the next one throws it away and begins anew.
    all processes killed         the region is still there: the next one attaches, and what they left is repaired.
    region and directory differ  a region that another one has taken the place of (in another container, of a restored
                                 backup) is not the one that `lock` names, or its file ends too early.
    a region out of reach        (another user's, another container's) byte 1 tells: StoreLockedError.
    the last one leaves          under byte 0, alone in the region: snapshot, then the region's name is removed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from shmkv import _core, ending, region
from shmkv._core import Descriptor
from shmkv.backup import back_up
from shmkv.ending import is_ending, is_held_for_ever
from shmkv.errors import (
    CorruptStoreError,
    LayoutVersionError,
    LockTimeoutError,
    LogFailedError,
    ShmkvError,
    StaleStoreError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
)
from shmkv.folder import (
    LOCK_FILE,
    SETTINGS_FILE,
    ByteLock,
    HeldByte,
    absolute_path,
    below,
    close_own,
    holder_of,
    identity_of,
    note_holder,
    noted_region,
    open_folder,
    replace_file,
)
from shmkv.keeper import Keeper
from shmkv.processes import Process, blame
from shmkv.realthread import Bell, RealThread
from shmkv.surroundings import within_limits
from shmkv.waiting import Patience

__all__ = ["SYNC_MODES", "Durable", "RepairReport", "Snapshot", "open_durable"]

SYNC_MODES = ("interval", "always", "none")
FORMAT = 1
SETTINGS_BYTES = 4096  # the file is never longer
_UUID_BYTES = 16
# So long an opening waits for processes of a release with another layout, which in a rolling reload are just being
# ended; less than the 30 s after which a supervisor of workers gives one up that does not begin.
OTHER_RELEASE_SECONDS = 20.0
_LOOK_SECONDS = 0.1
OPENING, PRESENCE = 0, 1

PROGRESS_SECONDS = 2.0
SETTLE_SECONDS = 1.0  # at the end of a process, behind one that is stopped

_LOG_FILE = re.compile(r"([0-9]{20})\.(?:log|snapshot)")
_log = logging.getLogger("shmkv")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `Store.snapshot` wrote."""

    items: int
    bytes: int  # of the file


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What `Store.open(path, repair=True)` found damaged, and what it did."""

    file: str  # name of the damaged file
    offset: int  # of the damage in it, bytes
    problem: str
    changes: int  # that were saved: all before the damage
    kept_in: Path  # directory with the files as they were found


class Settings(NamedTuple):
    """`store.json`."""

    uuid: bytes  # of the log
    size: int  # bytes, of the region
    on_full: str = "error"  # older releases did not write it


# ---- A handle's part ---------------------------------------------------------------------------


class Durable:
    """One handle on the directory of a durable store."""

    _folder: int = -1
    _identity: tuple[int, int] | None = None

    _all: ClassVar[weakref.WeakSet[Durable]] = weakref.WeakSet()
    _dropped: ClassVar[dict[tuple[int, int] | None, Path]] = {}  # directories of handles that nobody closed

    def __init__(
        self, path: Path, folder: int, presence: ByteLock, *, sync: str, exclusive: bool, timeout: float
    ) -> None:
        self._folder = folder
        self._presence = presence
        self._identity = identity_of(folder)
        self.path = path
        self.sync_mode = sync
        self.exclusive = exclusive
        self.repaired: RepairReport | None = None
        self.timeout = timeout
        self._keeper: Keeper | None = None
        self.owner: Callable[[], Closeable | None] = _nobody  # its handle
        self._made: tuple[int, str] | None = None  # by this process: the region, until its handle has left
        self._leaving = threading.RLock()  # a signal handler may close what is just being closed
        self._all.add(self)

    @property
    def is_stable(self) -> bool:
        """Each change waits for the disk: it was asked for, or there is no thread that would sync within a second."""
        keeper = self._keeper
        return self.sync_mode == "always" or (self.sync_mode == "interval" and keeper is not None and not keeper.runs)

    def makes(self, target: str) -> None:
        """To be said before: an exception may come once the region is there, and before anybody has it."""
        self._made = (os.getpid(), target)

    def begin(self, opened: _core.Region) -> None:
        """Look after the log from now on."""
        self._keeper = Keeper(opened, self.sync_mode, self.timeout)

    def snapshot(self, opened: _core.Region) -> Snapshot:
        """Write one; if another process is just writing one, another one after it."""
        _, items, size = _make_snapshot(opened, self.timeout)
        return Snapshot(items=items, bytes=size)

    def sync(self, opened: _core.Region) -> None:
        with _naming_who_appends(opened, self.timeout):
            _core.durable_sync(opened, self.timeout)

    def back_up(self, opened: _core.Region, path: str | os.PathLike[str]) -> Snapshot:
        """Copy the store as it is at one instant to a new directory."""
        target, folder = absolute_path(path), self._usable_folder()
        settings = _read_settings(self.path, folder)
        if settings is None:
            raise CorruptStoreError(f"{self.path} has lost its {SETTINGS_FILE}: restore it from a copy")

        def make_snapshot() -> tuple[int, int]:
            return _make_snapshot(opened, self.timeout)[:2]

        items = back_up(opened, folder, target, make_snapshot, lambda made: _write_settings(made, settings))
        return Snapshot(items=items, bytes=sum(each.stat().st_size for each in target.iterdir()))

    def leave(self, regions: list[_core.Region], target: str, identity: region.Identity) -> None:
        """The handle is being closed: sync, and, as the last one, write a snapshot and give the memory back.

        Takes the region, the last reference to it, out of the list: it is detached before anybody else leaves or opens,
        or of two that leave at the same time each would take the other for one that stays.
        """
        if is_held_for_ever(self._leaving):
            return  # as if the process had been killed: what was written is in the log
        with self._leaving:
            if regions:
                try:
                    self._leave(regions, target, identity)
                finally:
                    regions.clear()
                    self._close()

    def _leave(self, regions: list[_core.Region], target: str, identity: region.Identity) -> None:
        if self._keeper:
            self._keeper.stop()
            self._keeper = None
        try:
            self.sync(regions[0])
        except LogFailedError as error:
            if error.errno == errno.ESTALE:
                self._give_back(regions, target, identity, _no_snapshot)
            raise
        self._give_back(regions, target, identity, _write_last_snapshot)

    def _give_back(
        self,
        regions: list[_core.Region],
        target: str,
        identity: region.Identity,
        write_snapshot: Callable[[_core.Region, Path, float], None],
    ) -> None:
        """Detach; as the last one remove the region's name as well, one at a time."""
        try:
            opening = HeldByte(self._usable_folder(), OPENING, self.timeout)
            opening.wait()
        except LockTimeoutError:  # all is synced; who is stopped in there, or opens next, finds the memory
            return
        except FileNotFoundError:  # the directory was removed: nobody else will look for its region
            if regions[0].alone:
                with contextlib.suppress(ShmkvError):
                    region.unlink_same(target, identity)
            return
        with opening:
            last = regions[0].alone
            if last:
                write_snapshot(regions[0], self.path, self.timeout)
            regions.clear()
            if last:
                with contextlib.suppress(ShmkvError):
                    region.unlink_same(target, identity)
                self._presence.release()  # the next one would look for the region that is gone

    def _usable_folder(self) -> int:
        """The descriptor, opened again if user code has closed it.

        Raises:
            FileNotFoundError: at its path there is no directory any more, or another one.
        """
        if identity_of(self._folder) != self._identity:
            close_own(self._folder)  # first: it closes the file that it is still, and the new one may get its number
            opened = Descriptor.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            if identity_of(opened) != self._identity:
                opened.close()
                raise FileNotFoundError(errno.ENOENT, "another directory has taken its place", str(self.path))
            self._folder = opened
        return self._folder

    def let_go(self) -> None:
        """Close the descriptors, also of a handle that was dropped without `close()`, or at the end of the process."""
        if is_held_for_ever(self._leaving):
            return
        with self._leaving:
            if self._keeper:
                self._dropped[self._identity] = self.path
                self._keeper.let_go()
                self._keeper = None
            self._close()

    def give_up(self) -> None:
        """The opening was broken off, and nobody gets the handle: let go, and of the region too."""
        self._remove_made()
        self.let_go()

    def _remove_made(self) -> None:
        """Give the memory back that this opening took, unless others use it by now; the log holds what was in it."""
        made, self._made = self._made, None
        if made is None or made[0] != os.getpid():
            return
        with contextlib.suppress(ShmkvError, OSError):
            opening = ByteLock(self._folder, OPENING)
            try:
                if opening.take(shared=False) and not self._presence.others():
                    region.unlink(made[1])
            finally:
                opening.close()

    def __del__(self, is_ending: Callable[[], bool] = is_ending) -> None:
        """An exception of a signal handler may come before a handle has it, or before it is whole."""
        if is_ending():  # then this module may be empty, and the descriptors close themselves
            return
        with contextlib.suppress(AttributeError):
            if self.owner is _nobody:
                self._remove_made()
            self._close()

    @classmethod
    def all_after_fork(cls) -> None:
        """In a forked child, which has its parent's objects and locks as they were, but not its threads."""
        cls._dropped.clear()
        for each in list(cls._all):
            each._leaving = threading.RLock()
            if each._keeper:
                each._keeper.restart()

    @classmethod
    def all_at_end(cls) -> None:
        """At the normal end of the interpreter: close what nobody closed, and what was dropped without."""
        for each in list(cls._all):
            owner = each.owner()
            if owner is not None:
                with _said(each.path):
                    owner.close()
        for identity, path in list(cls._dropped.items()):
            with _said(path):
                _settle(path, identity)

    def _close(self) -> None:
        self._made = None
        close_own(self._folder)
        self._identity = (-1, -1)
        self._presence.close()


def _make_snapshot(opened: _core.Region, timeout: float) -> tuple[int, int, int]:
    """Number, items and bytes of a new one; a process that is just writing one is waited for."""

    def writers() -> list[Process]:
        found = _core.durable_holders(opened)[1]
        return [Process(*found[:3])] if found else []

    patience = Patience(timeout, "writing a snapshot of the store", writers)
    while True:
        with _naming_who_appends(opened, timeout):
            made = _core.durable_checkpoint(opened, timeout)
        if made is not None:
            return made
        patience.look()
        patience.nap()


@contextlib.contextmanager
def _naming_who_appends(opened: _core.Region, timeout: float) -> Iterator[None]:
    """Of what waits for the log alone: the engine's own message cannot tell for whom."""
    try:
        yield
    except LockTimeoutError:
        holder = _core.durable_holders(opened)[0]
        whom, remedy = "somebody", "try again"
        if holder and holder[0] != os.getpid():
            words, remedy = blame(*holder)
            whom = f"process {holder[0]} ({words})"
        raise LockTimeoutError(
            f"{whom} held the log of the store for longer than lock_timeout ({timeout:g} s), what was written last may "
            f"not be on stable storage: {remedy}"
        ) from None


class Closeable(Protocol):
    def close(self) -> None: ...


def _nobody() -> None:
    """A part that no handle has yet."""


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """An error at the end of the interpreter has nobody to be raised to."""
    try:
        yield
    except (ShmkvError, OSError) as error:
        _log.warning("%s was not closed at the end of the process: %s", path, error)


def _settle(path: Path, identity: tuple[int, int] | None) -> None:
    """A handle was dropped: its memory is given back if nobody has it open now."""
    try:
        facts = os.stat(path)
    except OSError:
        return
    if identity != (facts.st_dev, facts.st_ino) or not region.is_there(_target_of(facts)):
        return
    opened, part = open_durable(path, None, None, sync="none", exclusive=False, repair=False, timeout=SETTLE_SECONDS)
    regions, target, itself = [opened.region], opened.target, opened.identity
    del opened
    part.leave(regions, target, itself)


def _no_snapshot(_opened: _core.Region, _path: Path, _timeout: float) -> None:
    """There is no directory to write it to."""


def _write_last_snapshot(opened: _core.Region, path: Path, timeout: float) -> None:
    state = _core.durable_state(opened)
    try:
        if state["end"] != state["kept_from"]:
            _core.durable_checkpoint(opened, timeout)
    except (
        LogFailedError,
        StoreFullError,
        LockTimeoutError,
    ) as error:  # the log holds everything that the snapshot would
        _log.warning("no snapshot of %s was written: %s", path, error)
        with contextlib.suppress(ShmkvError, OSError):
            _core.durable_vouch(opened)


os.register_at_fork(after_in_child=Durable.all_after_fork)


# ---- Opening -----------------------------------------------------------------------------------


@within_limits
def open_durable(
    path: str | os.PathLike[str],
    size: int | str | None,
    on_full: str | None,
    *,
    sync: str,
    exclusive: bool,
    repair: bool,
    timeout: float,
) -> tuple[region.Opened, Durable]:
    """The region of a directory, with its log, and this handle's part in it.

    Raises:
        StoreLockedError, CorruptStoreError, LogFailedError, StoreFullError, StoreExistsError, NotADirectoryError,
        LockTimeoutError.
    """
    if sync not in SYNC_MODES:
        raise ValueError(f"sync is 'interval', 'always' or 'none', not {sync!r}")
    want = region.wanted(size, None, on_full)
    absolute = absolute_path(path)
    deadline = time.monotonic() + OTHER_RELEASE_SECONDS
    while True:
        try:
            with below(absolute):
                return _open_once(absolute, want, sync=sync, exclusive=exclusive, repair=repair, timeout=timeout)
        except _OtherReleaseError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_SECONDS)  # with nothing held: who leaves needs what an opening holds


def _open_once(
    absolute: Path, want: region.Wanted, *, sync: str, exclusive: bool, repair: bool, timeout: float
) -> tuple[region.Opened, Durable]:
    folder = open_folder(absolute, "a durable store")
    presence = ByteLock(folder, PRESENCE)
    part = Durable(absolute, folder, presence, sync=sync, exclusive=exclusive, timeout=timeout)
    opening = None
    try:
        opening = HeldByte(folder, OPENING, timeout)
        with opening:
            _enter(part, folder, presence)
            opened = _attach_or_rebuild(part, folder, presence, want, repair, timeout)
            note_holder(folder, bytes(opened.region.uuid))
            region.note_path(opened.target, str(absolute))
        presence.share()  # children that are forked from now on may use the store
        part.begin(opened.region)
        return opened, part
    except BaseException:
        if opening:
            opening.__exit__()  # again: the exception may have come in the middle of it
        part.give_up()
        raise


class _OtherReleaseError(StoreLockedError):
    """Processes of a release with another layout have it open: it is waited for them."""


def _refuse_beside_other_release(path: Path, target: str, folder: int) -> None:
    """One log has one region; what another release has in its own is in the log as soon as it has left."""
    for other in region.of_other_layouts():
        if other.name == region.store_name(target):
            raise _OtherReleaseError(
                f"{path} is open (pid {holder_of(folder)}) in a release of shmkv with layout version "
                f"{other.layout_version}, this one has {_core.LAYOUT_VERSION}: end those processes, and open it again"
            )


def _enter(part: Durable, folder: int, presence: ByteLock) -> None:
    if presence.take(shared=not part.exclusive):
        return
    if part.exclusive:
        raise StoreLockedError(f"{part.path} is open already (pid {holder_of(folder)}): exclusive=True needs it alone")
    raise StoreLockedError(f"{part.path} is open with exclusive=True (pid {holder_of(folder)})")


def _rescue(folder: int) -> str:
    """The end of a message about files that cannot be used, where the memory is still there."""
    target = _target(folder)
    if not region.is_there(target):
        return ""
    return f"; what the store held is still in memory: shmkv export --store {region.store_name(target)} > FILE saves it"


def _target(folder: int) -> str:
    return _target_of(os.fstat(folder))


def _target_of(facts: os.stat_result) -> str:
    return region.object_name(region.durable_name(facts.st_dev, facts.st_ino))


def _attach_or_rebuild(
    part: Durable, folder: int, presence: ByteLock, want: region.Wanted, repair: bool, timeout: float
) -> region.Opened:
    settings = _read_settings(part.path, folder)
    if settings is None and _highest(folder):
        raise CorruptStoreError(
            f"{part.path} holds a log, but no {SETTINGS_FILE}: it belongs to a DataStore, or that file was lost: "
            f"restore it from a copy{_rescue(folder)}"
        )
    _refuse_laid_over(part.path, folder)
    target = _target(folder)
    opened = _attach(part, folder, target, settings, want, repair, timeout) if settings else None
    if opened is None:
        if presence.others():
            _refuse_beside_other_release(part.path, target, folder)
            raise StoreLockedError(
                f"{part.path} is open in processes whose shared memory is out of reach here (pid {holder_of(folder)}): "
                "of another user, or in another container"
            )
        _unlink_unused(part.path, target, settings, timeout)
        opened = _rebuild(part, folder, target, settings, want, repair, timeout)
    return opened


def _unlink_unused(path: Path, target: str, settings: Settings | None, timeout: float) -> None:
    """A region of an earlier boot, of a directory that is gone, half filled, or of processes that were killed."""
    try:
        found = region.attach(target, readonly=False, foreign=False, timeout=timeout)
    except (StoreNotFoundError, StaleStoreError, CorruptStoreError, LayoutVersionError):
        pass
    else:
        in_use = _core.durable_state(found.region)["segment"] != 0  # else nobody has it but children of who filled it
        if settings and found.region.log_uuid == settings.uuid and in_use and not found.region.alone:
            raise StoreLockedError(
                f"{path} is open in other processes, and its file {LOCK_FILE!r} was removed or replaced since, nothing "
                "was changed: close it in all of them first"
            )
    with contextlib.suppress(StoreNotFoundError):
        region.unlink(target)
    for other in region.of_other_layouts():  # nobody has the directory open, so nobody of another release either
        if other.name == region.store_name(target):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(other.path)


def _attach(
    part: Durable, folder: int, target: str, settings: Settings, want: region.Wanted, repair: bool, timeout: float
) -> region.Opened | None:
    """The region that others use, or that they left when they were killed; None if there is none that fits."""
    try:
        opened = region.attach(target, readonly=False, foreign=False, timeout=timeout)
    except (StoreNotFoundError, StaleStoreError, CorruptStoreError, LayoutVersionError):
        return None
    differences = region.differences(opened.region, want)
    if differences:
        if opened.region.alone:
            return None  # left by processes that were killed: the log holds all of it
        raise StoreExistsError(f"{part.path} is open with {' and '.join(differences)}: close it in all processes first")
    state = _core.durable_state(opened.region)
    if opened.region.log_uuid != settings.uuid or opened.region.uuid != noted_region(folder) or state["segment"] == 0:
        return None
    if state["failed"] and opened.region.alone:
        return None  # what the log holds is written again before it is gone on with
    if not state["joined"] and not _join(part, folder, opened, settings, repair):
        return None
    return opened


def _begin(opened: _core.Region, folder: int, uuid: bytes, timeout: float) -> None:
    try:
        _core.durable_begin(opened, folder, uuid, b"", 0, timeout)
    except TimeoutError as error:
        raise LockTimeoutError from error


def _join(part: Durable, folder: int, opened: region.Opened, settings: Settings, repair: bool) -> bool:
    """Go on with the log that is in the directory; False: it has failed, and nobody uses it any more."""
    try:
        with _naming_who_appends(opened.region, part.timeout):
            _begin(opened.region, folder, settings.uuid, part.timeout)
    except OSError as error:
        if error.errno == errno.EROFS:
            problem = "its log cannot be written any more: close the store in all processes, and open it again"
            raise LogFailedError(error.errno, problem, str(part.path)) from error
        if error.errno not in (errno.ENOENT, errno.EBADMSG):
            raise
        if not repair:
            raise CorruptStoreError(
                f"the files in {part.path} are not those that the store in memory goes on with "
                f"({region.store_name(opened.target)!r}): damaged, or put back from a backup.  repair=True writes them "
                "anew from memory; Store.unlink_name() of that name forgets the memory, which `shmkv export --store "
                f"{region.store_name(opened.target)} > FILE` saves first"
            ) from None
        kept_in = _keep_damaged(part.path, folder)
        _core.durable_begin(opened.region, folder, settings.uuid, b"", _highest(folder) + 1)
        written = part.snapshot(opened.region)
        part.repaired = RepairReport("", 0, "the files did not fit the store in memory", written.items, kept_in)
    part.sync(opened.region)
    state = _core.durable_state(opened.region)
    if state["kept_from"] > state["end"]:  # who repaired it was killed before its snapshot
        part.snapshot(opened.region)
    return True


def _rebuild(
    part: Durable,
    folder: int,
    target: str,
    settings: Settings | None,
    want: region.Wanted,
    repair: bool,
    timeout: float,
) -> region.Opened:
    known = settings
    settings = known or Settings(os.urandom(16), want.size or region.default_size())
    settings = settings._replace(size=want.size or settings.size, on_full=want.on_full or settings.on_full)
    if known is None:
        _write_settings(folder, settings)
    want = want._replace(size=settings.size, on_full=settings.on_full)
    part.makes(target)
    opened = region.create(target, want, exist_ok=False, timeout=timeout, log_uuid=settings.uuid)
    try:
        _fill(part, folder, opened, settings, repair)
        if known not in (None, settings):
            _write_settings(folder, settings)
    except BaseException:
        with contextlib.suppress(ShmkvError):
            region.unlink_same(opened.target, opened.identity)
        raise
    return opened


def _fill(part: Durable, folder: int, opened: region.Opened, settings: Settings, repair: bool) -> None:
    with _progress(part.path, folder):
        try:
            found = _core.durable_restore(opened.region, folder)
        except StoreFullError as error:
            if "/dev/shm" in str(error) or "container" in str(error):
                raise
            raise StoreFullError(
                f"what {part.path} holds needs more memory than size={settings.size:,}: open it with a larger size="
            ) from None
    if found["damage"] is None:
        if found["found"] and found["uuid"] not in (settings.uuid, bytes(16)):
            raise CorruptStoreError(f"the log in {part.path} is not the one that {SETTINGS_FILE} names")
        _core.durable_begin(opened.region, folder, settings.uuid, found["state"])
        if found["evicted"]:  # in the log they are still
            part.snapshot(opened.region)
        return
    file, offset, changes = found["name"], found["offset"], found["operations"]
    if "another version" in found["damage"]:
        raise LayoutVersionError(f"{part.path / file}: {found['damage']}: use that one")
    if not repair:
        raise CorruptStoreError(
            f"{part.path / file} is damaged at byte {offset:,}: {found['damage']}; {changes:,} changes before it "
            "can be saved: Store.open(path, repair=True) does that, and keeps the files as they are now"
        )
    kept_in = _keep_damaged(part.path, folder)
    _core.durable_begin(opened.region, folder, settings.uuid, found["state"], _highest(folder) + 1)
    part.snapshot(opened.region)
    part.repaired = RepairReport(file, offset, found["damage"], changes, kept_in)
    _log.warning("%s was damaged at byte %d of %s; %d changes were saved", part.path, offset, file, changes)


def _highest(folder: int) -> int:
    return max((int(match[1]) for name in os.listdir(folder) if (match := _LOG_FILE.fullmatch(name))), default=0)


def _refuse_laid_over(path: Path, folder: int) -> None:
    """What a snapshot has made superfluous may be left over by a kill; then it is older than the snapshot.  Where it
    is younger somebody has put it there, and would wait for what is in it in vain.

    By the time of the last change of the inode, which a copy cannot bring with it.
    """
    found = {name: int(match[1]) for name in os.listdir(folder) if (match := _LOG_FILE.fullmatch(name))}
    newest = max((name for name in found if name.endswith(".snapshot")), default=None)
    if newest is None:
        return
    made = os.stat(newest, dir_fd=folder).st_ctime_ns
    later = [
        name
        for name, number in sorted(found.items())
        if number < found[newest] and os.stat(name, dir_fd=folder).st_ctime_ns > made
    ]
    if later:
        raise CorruptStoreError(
            f"{path} holds files that were put there after {newest}, and are of an earlier state: {', '.join(later)}: "
            "a backup laid over a store that had gone further, nothing was changed.  To go back to the backup, move "
            "everything out of the directory and copy the backup into it; to go on with what was there, remove them"
        )


def _keep_damaged(path: Path, folder: int) -> Path:
    """A directory beside the files, with a second name for each of them."""
    kept = f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(3).hex()}"
    os.mkdir(kept, 0o700, dir_fd=folder)
    for name in os.listdir(folder):
        if _LOG_FILE.fullmatch(name):
            os.link(name, f"{kept}/{name}", src_dir_fd=folder, dst_dir_fd=folder)
    below = Descriptor.open(kept, os.O_RDONLY | os.O_DIRECTORY, 0o600, folder)
    try:
        os.fsync(below)
        os.fsync(folder)
    finally:
        below.close()
    return path / kept


class _Lifetime:
    """Of a call: its end rings, also where an exception has come between its lines."""

    def __init__(self) -> None:
        self.over = Bell()

    def __del__(self, is_ending: Callable[[], bool] = is_ending) -> None:
        if is_ending():
            return
        with contextlib.suppress(AttributeError):
            self.over.ring()


@contextlib.contextmanager
def _progress(path: Path, folder: int) -> Any:
    """Tell, every two seconds, how far a recovery is."""
    total = sum(os.stat(name, dir_fd=folder).st_size for name in os.listdir(folder) if _LOG_FILE.fullmatch(name))
    lifetime = _Lifetime()
    over = lifetime.over  # a thread that had the whole of it would keep it, and go on telling for ever

    def tell() -> None:
        while not over.wait(PROGRESS_SECONDS):
            part = _core.restored_bytes() / max(total, 1)
            _log.warning("recovering %s: %.0f %% of %d MB", path, min(100 * part, 100), total // 1_000_000)

    thread = RealThread(tell)
    try:
        ending.start(thread)
        yield
    finally:
        over.ring()
        ending.join(thread)


# ---- Settings ------------------------------------------------------------------------------------


def _read_settings(path: Path, folder: int) -> Settings | None:
    try:
        # Without waiting for who writes to it, if it is a pipe.
        fd = Descriptor.open(SETTINGS_FILE, os.O_RDONLY | os.O_NONBLOCK, 0o600, folder)
    except FileNotFoundError:
        return None
    try:
        with fd:
            found = json.loads(os.read(fd, SETTINGS_BYTES))
        version = found["format"]
        if version == FORMAT:
            uuid, size = bytes.fromhex(found["uuid"]), region.region_size(int(found["size"]))
            if len(uuid) != _UUID_BYTES:
                raise ValueError(f"its uuid has {len(uuid)} bytes")
            on_full = found.get("on_full", "error")
            if on_full not in ("error", "evict"):
                raise ValueError(f"its on_full is {on_full!r}")
            return Settings(uuid, size, on_full)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
        raise CorruptStoreError(
            f"{path / SETTINGS_FILE} is damaged: {str(error)[:200]}: restore it from a copy{_rescue(folder)}"
        ) from error
    raise LayoutVersionError(
        f"{path} was made by another version of shmkv (format {version!r}, not {FORMAT}): use that one"
    )


def _write_settings(folder: int, settings: Settings) -> None:
    found = {"format": FORMAT, "uuid": settings.uuid.hex(), "size": settings.size, "on_full": settings.on_full}
    replace_file(folder, SETTINGS_FILE, (json.dumps(found) + "\n").encode())


def uuid_in(path: Path) -> bytes | None:
    """Of the log in a directory, without making anything; None: it holds no durable store."""
    try:
        folder = Descriptor.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        settings = _read_settings(path, folder)
    finally:
        folder.close()
    return settings.uuid if settings else None

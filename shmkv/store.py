"""`Store`: a mutable mapping in shared memory, for every thread and process that opens the same name.

What: names and lives of stores, iteration, ranges, statistics.  The operations on items are the C methods
      of `_core.Handle` themselves, without a Python frame around them; docs/api.md documents all of them.
How:  everything here that walks the store goes bucket by bucket: each bucket is one consistent copy, and a
      key never changes its bucket, so a key that is present throughout is seen exactly once.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import weakref
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

from shmkv import codecs, region, replacing
from shmkv._core import Handle, Region
from shmkv.errors import BatchTooLargeError, ClosedStoreError, ReadOnlyStoreError, ShmkvError, StoreNotFoundError
from shmkv.failing import leaves_nothing
from shmkv.processes import Process, seen
from shmkv.walking import sorted_items

if TYPE_CHECKING:
    from multiprocessing.shared_memory import SharedMemory
    from pathlib import Path
    from uuid import UUID

    from typing_extensions import Self

    from shmkv._core import Record
    from shmkv.durable import Durable, RepairReport, Snapshot
    from shmkv.reports import CheckReport, CompactReport, ProcessInfo, StoreInfo, StoreStats

__all__ = ["Store", "list_stores"]

Key = str | bytes

BATCH_KEYS = 65_536
# popitem walks the store so often before it believes that others take everything first (or, in a damaged
# store, that what it sees cannot be removed).
POP_ROUNDS = 16


# ---- Stores of this machine ----------------------------------------------------------------


def list_stores(*, foreign: bool = False) -> list[StoreInfo]:
    """The stores of this user on this machine, sorted by name, private ones included.

    Atomicity: a look at each in turn; nothing is attached to, and nothing changes.

    Args:
        foreign: those of other users as well; of one that lets nobody else in, little more than the name is told.

    >>> store = Store.create("listed", size="1MiB")
    >>> [info.size for info in list_stores() if info.name == "listed"]
    [1048576]
    >>> store.close()
    >>> Store.unlink_name("listed")
    """
    return [_store_info(listed) for listed in region.list_regions(foreign=foreign)]


def _store_info(listed: region.Listed) -> StoreInfo:
    from datetime import datetime, timezone
    from uuid import UUID

    from shmkv.reports import StoreInfo

    header = listed.header
    return StoreInfo(
        name=listed.name,
        size=header.size if header else None,
        committed=listed.committed,
        uid=listed.uid,
        mode=header.mode if header else None,
        on_full=region.on_full_of(header) if header else None,
        created=datetime.fromtimestamp(header.created, timezone.utc) if header else None,
        uuid=UUID(bytes=header.uuid) if header else None,
        processes=listed.processes,
        problem=listed.problem,
        path=listed.path,
    )


# ---- Views ---------------------------------------------------------------------------------


class StoreKeysView(KeysView[Key]):
    """The keys of a store; iterating never raises because of concurrent changes."""


class StoreItemsView(ItemsView[Key, Any]):
    """The items of a store; each bucket is seen at one instant."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        for key, value, _ in self._store._walk():
            yield key, value


class StoreValuesView(ValuesView[Any]):
    """The values of a store; each bucket is seen at one instant."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._store = store

    def __iter__(self) -> Iterator[Any]:
        for _, value, _ in self._store._walk():
            yield value

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)


# ---- The store -----------------------------------------------------------------------------


class Store(Handle, MutableMapping[Key, Any]):
    """A mapping in shared memory, shared by every thread and process that opens the same name.

    `Store(name)` creates the store, or attaches if it exists.  `Store()` makes a private one, with a name of
    its own, which is gone when the handle that made it is closed or its process ends.

    A value that is read is a copy, and two calls are two steps: `store[k] += 1`, `store[k]["x"] = 1` and
    `store.setdefault(k, []).append(x)` lose data; say `incr` and `change`.

    Keys are `str` or `bytes`.  Values are `bytes`, `str`, `int`, `float`, `bool`, `None`, and what the codec takes.

    Atomicity: every operation on items is atomic between threads and processes; iteration is consistent
    per bucket.  A killed process loses nothing that a call had returned from, and blocks nobody.

    Args:
        name: 1 to 200 characters out of A-Z, a-z, 0-9, ".", "_" and "-".
        size: the most memory that the store may take, in bytes or as text (`"64MiB"`); at least 1 MiB.
            Default: 1 GiB, or half of what /dev/shm has free if that is less.
        mode: permission bits of the region, 0o600 by default.
        on_full: "error" (default) or "evict", which makes it a cache.
        existing: what to do if the store exists with another size or on_full than given: "error" (default) raises;
            "keep" takes it as it is; "resize" moves its items into a store as given, like `Store.resize`, or keeps
            it while somebody else has it open; "replace" removes its name and begins an empty store (then other
            handles are `stale`).
        codec: "safe", "json", "pickle", or an object with `encode(value) -> bytes` and `decode(bytes) -> value`.
        lock_timeout: seconds to wait for a lock that a live process holds.
        readonly: attach without the right to write; never creates.
        foreign: accept a store of another user, if its mode gives others access.
        reattach: follow the name: each operation first looks whether the name means another store by now (removed and
            made again, as a deploy with another size does), and goes over to that one if so.  Costs about a
            microsecond an operation.  See docs/deploying.md.

    Size, mode and on_full belong to the store, the others to the handle.

    Raises:
        StoreExistsError: the store exists with another size, mode or on_full than explicitly given, and `existing`
            does not help.
        StoreNotFoundError: with `readonly`, there is no such store.
        ForeignStoreError, CorruptStoreError, LayoutVersionError, StaleStoreError: it exists, but is not to be used.
        StoreFullError: no room for its fixed areas.
        ValueError: a name, size, mode or on_full that no store can have.

    >>> with Store() as store:
    ...     store["user:1"] = {"name": "Ada", "langs": ("en", "fr")}
    ...     store.incr("visits")
    ...     store["user:1"]["langs"]
    1
    ('en', 'fr')
    """

    __slots__ = (
        "__weakref__",
        "_candidates",
        "_codec",
        "_durable",
        "_finalizer",
        "_foreign",
        "_identity",
        "_left",
        "_lock_timeout",
        "_next_bucket",
        "_owned_by_caller",
        "_readonly",
        "_reattach",
        "_region",
        "_size",
        "_target",
        "_uuid",
    )

    @leaves_nothing
    def __init__(
        self,
        name: str | None = None,
        size: int | str | None = None,
        *,
        mode: int | None = None,
        on_full: str | None = None,
        existing: str = "error",
        codec: str | codecs.Codec = "safe",
        lock_timeout: float = 5.0,
        readonly: bool = False,
        foreign: bool = False,
        reattach: bool = False,
    ) -> None:
        want = region.wanted(size, mode, on_full)
        replacing.check_existing(existing)
        seconds = _seconds(lock_timeout)
        resolved = codecs.resolve(codec)
        private = name is None
        if name is None:
            if readonly:
                raise ValueError("a private store cannot be read-only: nobody could write to it")
            region.remove_dead_private()
            target = region.object_name(region.private_name())
        else:
            target = region.find(name, foreign)
        own = private or (target == region.object_name(name or "") and not region.is_private(name or ""))
        try:
            if own and not readonly:
                opened = replacing.create(
                    target, want, existing, exist_ok=not private, timeout=seconds, foreign=foreign
                )
            else:
                if existing != "error":  # neither a reader nor another user puts another store in its place
                    want = want._replace(size=None, on_full=None)
                opened = region.attach(target, want, readonly=readonly, foreign=foreign, timeout=seconds)
            self._bind(opened, resolved, codec, seconds, readonly, foreign, reattach=reattach and not private)
            if private:
                self._remove_at_end()
        except BaseException:
            if private:  # nobody else has a store of this name, nor ever had
                region.unlink_new(target)
            raise

    @classmethod
    @leaves_nothing
    def create(
        cls,
        name: str | SharedMemory | None = None,
        size: int | str | None = None,
        *,
        mode: int | None = None,
        exist_ok: bool = False,
        on_full: str | None = None,
        existing: str = "error",
        codec: str | codecs.Codec = "safe",
        lock_timeout: float = 5.0,
    ) -> Self:
        """Create a store, or attach to it with `exist_ok`.

        Atomicity: of several creators one creates; the others see the finished store.

        Args:
            name: of the store, or a `multiprocessing.shared_memory.SharedMemory` to lay it out in.  That one
                must be new and at least 1 MiB; its size is the store's, and its life stays the caller's.
            size, mode, on_full, codec, lock_timeout: as for `Store`.
            existing: as for `Store`, with `exist_ok`.

        Raises:
            StoreExistsError: it exists, and `exist_ok` is false, or it differs from what is explicitly given.
            StoreFullError, ValueError: as for `Store`.

        >>> store = Store.create("created", size="1MiB")
        >>> Store.create("created")
        Traceback (most recent call last):
        shmkv.errors.StoreExistsError: the store 'created' exists already
        >>> store.unlink()
        >>> store.close()
        """
        replacing.check_existing(existing)
        if name is None:
            return cls(size=size, mode=mode, on_full=on_full, codec=codec, lock_timeout=lock_timeout)
        want = region.wanted(size, mode, on_full)
        seconds = _seconds(lock_timeout)
        resolved = codecs.resolve(codec)
        if isinstance(name, str):
            target = region.object_name(region.check_new_name(name))
            opened = replacing.create(target, want, existing, exist_ok=exist_ok, timeout=seconds)
        else:
            if existing in ("replace", "resize"):
                raise ValueError("a store in a SharedMemory can be kept, not replaced: the memory is the caller's")
            if existing == "keep":
                want = want._replace(on_full=None)
            if want.size is not None or want.mode is not None:
                raise ValueError("a store in a SharedMemory has that one's size and mode: give neither")
            opened = region.create_in(_memory_target(name), want, exist_ok=exist_ok, timeout=seconds)
        self = cls.__new__(cls)
        self._bind(opened, resolved, codec, seconds, readonly=False, foreign=False, by_caller=not isinstance(name, str))
        return self

    @classmethod
    @leaves_nothing
    def attach(
        cls,
        name: str | SharedMemory,
        *,
        readonly: bool = False,
        foreign: bool = False,
        reattach: bool = False,
        codec: str | codecs.Codec = "safe",
        lock_timeout: float = 5.0,
    ) -> Self:
        """Attach to a store that exists.

        Atomicity: a store that is just being created is waited for, for at most `lock_timeout`.

        Args:
            name: of the store, or a `multiprocessing.shared_memory.SharedMemory` that it lies in.
            foreign: take another user's store of this name if this user has none.
            readonly, reattach, codec, lock_timeout: as for `Store`.

        Raises:
            ValueError: `reattach` of a store in a `SharedMemory`.
            StoreNotFoundError, ForeignStoreError, CorruptStoreError, LayoutVersionError, StaleStoreError: see there.

        >>> Store.attach("nowhere")
        Traceback (most recent call last):
        shmkv.errors.StoreNotFoundError: there is no store 'nowhere'
        """
        seconds = _seconds(lock_timeout)
        resolved = codecs.resolve(codec)
        by_caller = not isinstance(name, str)
        if by_caller and reattach:
            raise ValueError("a store in a SharedMemory has no name of its own to follow: do not say reattach=True")
        target = region.find(name, foreign) if isinstance(name, str) else _memory_target(name)
        opened = region.attach(target, readonly=readonly, foreign=foreign or by_caller, timeout=seconds)
        self = cls.__new__(cls)
        self._bind(opened, resolved, codec, seconds, readonly, foreign, by_caller=by_caller, reattach=reattach)
        return self

    @classmethod
    @leaves_nothing
    def open(
        cls,
        path: str | os.PathLike[str],
        sync: str = "interval",
        size: int | str | None = None,
        *,
        on_full: str | None = None,
        exclusive: bool = False,
        repair: bool = False,
        codec: str | codecs.Codec = "safe",
        lock_timeout: float = 5.0,
    ) -> Self:
        """Open the durable store in a directory; it is made if it is missing.

        The data are served from shared memory, as of any store, and shared by all processes that open the same
        directory, by whatever path.  Every change is in a log on disk before anybody sees it.  The first process
        reads snapshot and log; after a crash of all processes the memory is still there, and used again.

        Atomicity: as of any store; a batch is on disk whole or not at all.

        Args:
            path: a directory.
            sync: when a change is on stable storage.  "always": when the call returns; "interval": within a second;
                "none": when the system writes it.  A process that dies loses nothing in any mode.
            size: the most memory that the store may take.  Default: what it had before, or as of `Store`.
            on_full: "error" or "evict", which makes it a cache that survives a restart: what is evicted is gone from
                the disk as well.  Default: what it had before, or "error".
            exclusive: no other process, and no other handle, may have it open.
            repair: where the files are damaged, save what is before the damage; `repaired` tells.
            codec, lock_timeout: as for `Store`.

        Raises:
            StoreLockedError: another process has it open, and one of the two said `exclusive`; or its memory is out of
                reach here (of another user, in another container).
            CorruptStoreError: the files are damaged; says where, and what can be saved.
            StoreFullError: the data need more than `size`, or there is no room in /dev/shm or on the disk.
            LogFailedError: the disk did not write, and processes that know so have it open.
            StoreExistsError: it is open with another size or on_full than explicitly given; or the directory holds no
                store, and a file of somebody else that would be written over.
            ValueError: a size or on_full that no store can have.
            LockTimeoutError: a process that is opening or closing it is stopped.  While one is at work there, a first
                one's recovery included, it is waited for.
            NotADirectoryError: `path` is a file.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Store.open(folder.name, size="16MiB") as store:
        ...     store["kept"] = "here"
        >>> with Store.open(folder.name) as store:
        ...     store["kept"]
        'here'
        """
        from shmkv.durable import open_durable

        seconds = _seconds(lock_timeout)
        resolved = codecs.resolve(codec)
        opened, part = open_durable(path, size, on_full, sync=sync, exclusive=exclusive, repair=repair, timeout=seconds)
        self = cls.__new__(cls)
        try:
            self._bind(opened, resolved, codec, seconds, readonly=False, foreign=False, durable=part)
            self._finalizer = weakref.finalize(self, part.let_go)
            self._finalizer.atexit = False  # then it is closed
            part.owner = weakref.ref(self)
            return self
        except BaseException:
            part.give_up()
            raise

    @staticmethod
    def resize(
        name: str, size: int | str | None = None, *, on_full: str | None = None, lock_timeout: float = 5.0
    ) -> None:
        """Give this user's store `name` another size or another `on_full`.  Nobody may have it open.

        Values, times to live, versions, counters and the uuid stay.  The items are moved into a new region, so that
        for a moment both need room in /dev/shm; a million small items take 1 to 4 seconds, in which others who open
        the store wait (and get a LockTimeoutError after five).

        Atomicity: killed at any time, the name means the store as it was, or as it is to be.  Others see no third.

        Args:
            size: in bytes or as text.  Default: as it is.
            on_full: "error" or "evict".  Default: as it is.
            lock_timeout: seconds to wait for another process that is creating the store.

        Raises:
            StoreLockedError: somebody has it open, this process included.
            StoreFullError: its items do not fit into that size, or /dev/shm has no room for both.
            StoreNotFoundError, ForeignStoreError, CorruptStoreError: as of `attach`.
            ValueError: a size or on_full that no store can have.

        >>> with Store("resized", size="1MiB") as store:
        ...     store["kept"] = 1
        >>> Store.resize("resized", "4MiB")
        >>> with Store("resized") as store:
        ...     store.size, store["kept"]
        ...     store.unlink()
        (4194304, 1)
        """
        replacing.resize(name, size, on_full, _seconds(lock_timeout))

    @staticmethod
    def unlink_name(name: str) -> None:
        """Remove this user's store `name`.  Attached processes go on until they close.

        Atomicity: from then on the name is free for a new store.

        Raises:
            StoreNotFoundError: there is none.

        >>> Store.unlink_name("nowhere")
        Traceback (most recent call last):
        shmkv.errors.StoreNotFoundError: there is no store 'nowhere'
        """
        region.unlink(region.object_name(name))

    # ---- Life ------------------------------------------------------------------------------

    def _bind(
        self,
        opened: region.Opened,
        resolved: codecs.ResolvedCodec,
        codec: str | codecs.Codec,
        lock_timeout: float,
        readonly: bool,
        foreign: bool,
        by_caller: bool = False,
        durable: Durable | None = None,
        reattach: bool = False,
    ) -> None:
        if durable is None and opened.region.log_uuid is not None and not readonly:
            raise ShmkvError(f"{region.store_name(opened.target)!r} belongs to a directory: say Store.open(path)")
        stable = durable is not None and durable.is_stable
        follow = (region.path_of(opened.target),) if reattach else ()
        Handle.__init__(
            self,
            opened.region,
            resolved.kind,
            resolved.encode,
            resolved.decode,
            lock_timeout,
            readonly,
            stable,
            *follow,
        )
        self._durable = durable
        self._reattach = reattach
        self._region: Region | None = opened.region
        self._left: list[Region] = []  # the region, while a handle that is closed leaves its directory
        self._target = opened.target
        self._identity = opened.identity
        self._uuid = bytes(opened.region.uuid)
        self._size = opened.region.size
        self._codec = codec
        self._lock_timeout = lock_timeout
        self._readonly = readonly
        self._foreign = foreign
        self._owned_by_caller = by_caller
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._candidates: list[Key] = []  # for popitem
        self._next_bucket = int.from_bytes(os.urandom(8), "little") % opened.region.bucket_count

    def _follow(self) -> None:
        """Go over to the store that has the name by now; called by an operation that found another object there.

        One that was removed again, or whose creator died before it was ready, is not there yet.
        """
        try:
            opened = region.attach(
                self._target, readonly=self._readonly, foreign=self._foreign, timeout=self._lock_timeout
            )
        except StoreNotFoundError:
            return
        self._move(opened.region)
        self._region = opened.region
        self._identity = opened.identity
        self._uuid = bytes(opened.region.uuid)
        self._size = opened.region.size
        self._candidates = []

    def _at_this_moment(self) -> tuple[Handle, int]:
        """A handle to walk with, and the number of its buckets: one that follows its name could change meanwhile."""
        opened = self._opened()
        if not self._reattach:
            return self, opened.bucket_count
        "" in self  # noqa: B015  # a lookup that is not counted: takes it to the store of this moment
        opened, codec = self._opened(), codecs.resolve(self._codec)
        walker = Handle(opened, codec.kind, codec.encode, codec.decode, self._lock_timeout, self._readonly)
        return walker, opened.bucket_count

    def _remove_at_end(self) -> None:
        """Make this handle the life of its (private) store."""
        self._finalizer = weakref.finalize(self, region.unlink_private, self._target, self._identity, os.getpid())

    def close(self) -> None:
        """Close this handle; running operations of other threads finish first.  May be called again.

        Atomicity: the store stays, unless it is private and this is the handle that made it.  A durable one is on
        stable storage then; the last process writes a snapshot and gives the memory back.

        Raises:
            LogFailedError, LockTimeoutError: of a durable store: what was written last may not be on stable storage, as
                the disk does not write, or a process is stopped in the middle of a change.  It is closed all the same.

        >>> store = Store()
        >>> store.close()
        >>> store.get("key")
        Traceback (most recent call last):
        shmkv.errors.ClosedStoreError: the store is closed in this process: open it again
        """
        super().close()
        self._candidates = []
        if self._durable is not None:
            if self._region is not None:
                self._left, self._region = [self._region], None
            self._durable.leave(self._left, self._target, self._identity)
            return
        self._region = None
        if self._finalizer is not None:
            self._finalizer()

    def unlink(self) -> None:
        """Remove the store's name.  Attached processes, this one too, go on until they close.

        Atomicity: removes this very store: never another one that has its name by now.

        Raises:
            StoreNotFoundError: it was removed already.
            ShmkvError: it lies in a caller's `SharedMemory`; call that one's `unlink()`.

        >>> store = Store.create("short-lived", size="1MiB")
        >>> store.unlink()
        >>> store.put("still", "here")
        >>> store.close()
        """
        if self._owned_by_caller:
            raise ShmkvError(f"the store lies in the SharedMemory {self.name!r}: call that one's unlink()")
        if self._durable is not None:
            raise ShmkvError(f"a durable store is its directory: close it everywhere, and remove {self._durable.path}")
        region.unlink_same(self._target, self._identity)

    def __enter__(self) -> Self:
        self._opened()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A handle pickles as name, uuid and its options, never as data."""
        return self._reduced(self._lock_timeout)

    def _again(self, lock_timeout: float) -> Self:
        """Another handle of this store, of another patience."""
        open_again, arguments = self._reduced(lock_timeout)
        again: Self = open_again(*arguments)
        return again

    def _reduced(self, lock_timeout: float) -> tuple[Any, ...]:
        self._opened()
        if self._durable is not None:
            here = self._durable
            return _reopen, (type(self), here.path, self._log_uuid(), here.sync_mode, self._codec, lock_timeout)
        options = (
            self._codec, lock_timeout, self._readonly, self._foreign, self._owned_by_caller, self._reattach
        )  # fmt: skip
        return _reattach, (type(self), self._target, self._uuid, *options)

    def __repr__(self) -> str:
        closed = ", closed" if self.closed else ""
        name = self.name if self._durable is None else str(self._durable.path)
        return f"<{type(self).__name__} {name!r}, {self._size:,} bytes{closed}>"

    @property
    def name(self) -> str:
        """The name to attach to it by."""
        return region.store_name(self._target)

    @property
    def uuid(self) -> UUID:
        """Another one for each store that was ever created, whatever its name."""
        from uuid import UUID

        return UUID(bytes=self._uuid)

    @property
    def size(self) -> int:
        """The most memory that the store may take, in bytes."""
        return self._size

    @property
    def stale(self) -> bool:
        """Would its name lead somebody else to another store, or to none?

        The name was removed (`rm`, `unlink`, systemd's RemoveIPC), or another store has it by now: a process that opens
        the name does not see what this handle writes.  A private store is never stale.  Takes a microsecond, so it
        can be asked in each request.  False where the directory of the name cannot be looked at from here.

        Raises:
            ClosedStoreError: the handle is closed.

        >>> store = Store("to-be-replaced", size="1MiB")
        >>> store.stale
        False
        >>> store.unlink()
        >>> store.stale
        True
        >>> store.close()
        """
        return not self._opened().is_at(region.path_of(self._target)) and not region.is_private(self.name)

    @property
    def readonly(self) -> bool:
        """This handle only reads."""
        return self._readonly

    def shared_memory(self) -> SharedMemory:
        """A `multiprocessing.shared_memory.SharedMemory` over the store, which never removes it by itself.

        No resource tracker hears of it, in this process or in one that it is pickled to.  Read, but do not
        write: its bytes are the store's own.  Only the first `stats().committed` bytes are surely memory.

        Raises:
            ClosedStoreError: the handle is closed.

        >>> with Store() as store:
        ...     memory = store.shared_memory()
        ...     memory.size == store.size
        ...     memory.close()
        True
        """
        return region.shared_memory(self._target, self._uuid, self._opened().fd, self._readonly)

    # ---- Durable stores --------------------------------------------------------------------

    @property
    def path(self) -> Path | None:
        """The directory of a durable store; None: it is in memory only."""
        return None if self._durable is None else self._durable.path

    @property
    def sync_mode(self) -> str | None:
        """When changes are on stable storage: "always", "interval" or "none"; None: it is in memory only."""
        return None if self._durable is None else self._durable.sync_mode

    @property
    def repaired(self) -> RepairReport | None:
        """What `open(path, repair=True)` found damaged and saved; None: there was no damage."""
        return None if self._durable is None else self._durable.repaired

    def sync(self) -> None:
        """Wait until every earlier change, whoever made it, is on stable storage.  In memory: nothing to do.

        Raises:
            LogFailedError: the disk does not write, and nobody knows what is on it.
            LockTimeoutError: a process is stopped in the middle of a change.
        """
        if self._durable is not None:
            self._durable.sync(self._opened())

    def backup(self, path: str | os.PathLike[str]) -> Snapshot:
        """Copy a durable store, as it is at one instant, to a directory that `Store.open` opens, while others go on.

        Atomicity: the copy is the store at one instant during the call, batches whole; killed at any time, there is
            no directory of that name.  O(n), and a snapshot of the store besides.

        Args:
            path: a directory that is not there yet, or is empty.

        Raises:
            ShmkvError: the store is in memory only.
            StoreExistsError: there is something at `path`.
            StoreFullError: one of the disks is full.
            LogFailedError: the disk does not write.
            LockTimeoutError: as of `snapshot`.

        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Store.open(folder.name + "/store", size="16MiB") as store:
        ...     store["kept"] = "twice"
        ...     copy = store.backup(folder.name + "/backup")
        >>> with Store.open(folder.name + "/backup") as store:
        ...     store["kept"]
        'twice'
        """
        if self._durable is None:
            raise ShmkvError("a store in memory has no backups: Store.open(path) makes a durable one")
        return self._durable.back_up(self._opened(), path)

    def snapshot(self) -> Snapshot:
        """Write the whole store to a file of its directory, and drop the log before it, while others go on.

        Happens by itself when the log has outgrown the data, and when the last process closes the store.

        Atomicity: killed at any time, the snapshot before it and all of the log since then are there.  O(n).

        Raises:
            ShmkvError: the store is in memory only.
            StoreFullError: the disk is full; nothing was lost.
            LogFailedError: the disk does not write.
            LockTimeoutError: a process is stopped in the middle of a change, or of a snapshot; one that is just writing
                a snapshot is waited for.
        """
        if self._durable is None:
            raise ShmkvError("a store in memory has no snapshots: Store.open(path) makes a durable one")
        return self._durable.snapshot(self._opened())

    def _log_uuid(self) -> bytes:
        uuid = self._opened().log_uuid
        assert uuid is not None, "asked of durable stores only"
        return uuid

    def _opened(self) -> Region:
        opened = self._region
        if opened is None:
            raise ClosedStoreError("the store is closed in this process: open it again")
        return opened

    # ---- The rest of a MutableMapping ------------------------------------------------------

    def __iter__(self) -> Iterator[Key]:
        return self.scan()

    def keys(self) -> KeysView[Key]:
        """A view of the keys.

        Atomicity: exact per bucket; concurrent changes never make an iteration raise.
        """
        return StoreKeysView(self)

    def items(self) -> ItemsView[Key, Any]:
        """A view of the items.

        Atomicity: exact per bucket; concurrent changes never make an iteration raise.

        >>> with Store() as store:
        ...     store.update(a=1, b=2)
        ...     sorted(store.items())
        [('a', 1), ('b', 2)]
        """
        return StoreItemsView(self)

    def values(self) -> ValuesView[Any]:
        """A view of the values.

        Atomicity: exact per bucket; concurrent changes never make an iteration raise.
        """
        return StoreValuesView(self)

    def popitem(self) -> tuple[Key, Any]:
        """Remove some item and return it as `(key, value)`.

        Atomicity: the value is decoded first, then that very version removed, or another item is tried.

        Raises:
            KeyError: the store is empty.
            ReadOnlyStoreError: the handle is read-only.
            CodecError: this handle cannot decode the value; the item stays.

        >>> with Store() as store:
        ...     store["only"] = 1
        ...     store.popitem()
        ('only', 1)
        """
        # Takes the buckets in turn from a random one on, so that emptying a store costs no more than
        # walking it, and that several processes that do so meet rarely.
        walker, buckets = self._at_this_moment()
        if self._readonly:
            raise ReadOnlyStoreError("the store was opened with readonly=True: open it without to change it")
        for _ in range(POP_ROUNDS):
            walked = 0
            while walked < buckets:
                while self._candidates:
                    item = self._take(self._candidates)
                    if item is not None:
                        return item
                at = self._next_bucket % buckets
                self._next_bucket, self._candidates = walker._walk_keys(at, None)
                walked += self._next_bucket - at
            if len(self) == 0:
                break
        raise KeyError("popitem(): the store is empty")

    def _take(self, keys: list[Key]) -> tuple[Key, Any] | None:
        """Remove the item of one of these keys; None if another process or thread was first."""
        try:
            key = keys.pop()
            value, version = self.gets(key)
        except (IndexError, KeyError):
            return None
        return (key, value) if self._delete_version(key, version) else None

    # A Mapping is invariant in its key; and where Mapping[Key, Any] is one of a union, a literal with keys of both
    # types is refused.
    @overload  # type: ignore[override]  # any keys, as dict's
    def update(self, other: Mapping[Key, Any], /, **items: Any) -> None: ...
    @overload
    def update(self, other: Mapping[str, Any] | Mapping[bytes, Any], /, **items: Any) -> None: ...
    @overload
    def update(self, other: Iterable[tuple[Key, Any]] = (), /, **items: Any) -> None: ...
    def update(
        self,
        other: Mapping[Any, Any] | Iterable[tuple[Key, Any]] = (),
        /,
        **items: Any,
    ) -> None:
        """Store all items of a mapping or of pairs, and the keyword arguments.

        Atomicity: `put_many`: all or none, seen by every reader at once.  More than 65,536 items, or a
        quarter of the store's size, go in several batches, each of them atomic.  An iterator is taken a batch
        at a time, by its items' size as they are stored, so that what it yields may be more than fits into memory.

        Raises:
            TypeError, KeyTooLargeError, ValueTooLargeError, StoreFullError: as for `put_many`.

        >>> with Store() as store:
        ...     store.update({"a": 1}, b=2)
        ...     len(store)
        2
        """
        if not items and isinstance(other, dict) and len(other) <= BATCH_KEYS:
            with suppress(BatchTooLargeError):
                self.put_many(other)
                return
            other = list(other.items())
        self._put_batches(chain(_pairs(other), items.items()))

    # ---- Walking ---------------------------------------------------------------------------

    def scan(self, prefix: Key | None = None) -> Iterator[Key]:
        """Iterate over the keys, or over those that start with `prefix`, in no order.

        Atomicity: a key that is present throughout appears exactly once; one that comes or goes meanwhile
        appears at most once.  Never blocks writers.

        Args:
            prefix: a `str` sees `str` keys, `bytes` sees `bytes` keys.

        Raises:
            TypeError: a prefix of another type.

        >>> with Store() as store:
        ...     store.update({"user:1": 1, "user:2": 2, "job:1": 3, b"user:3": 4})
        ...     sorted(store.scan("user:"))
        ['user:1', 'user:2']
        """
        if prefix is not None and not isinstance(prefix, str | bytes):
            raise TypeError(f"prefix is a str or bytes, not {type(prefix).__name__}")
        return self._scan(*self._at_this_moment(), prefix)

    @staticmethod
    def _scan(walker: Handle, buckets: int, prefix: Key | None) -> Iterator[Key]:
        bucket = 0
        while bucket < buckets:
            bucket, keys = walker._walk_keys(bucket, prefix)
            yield from keys

    def _walk(self) -> Iterator[tuple[Key, Any, int]]:
        """(key, value, version) of all items, bucket by bucket."""
        bucket, (walker, buckets) = 0, self._at_this_moment()
        while bucket < buckets:
            bucket, items = walker._walk_items(bucket, None, None)
            yield from items

    def range(
        self,
        start: Key | None = None,
        stop: Key | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[tuple[Key, Any]]:
        """The items with `start <= key < stop`, sorted by the bytes of their keys.

        Walks the whole store, whatever the bounds.  With a limit it keeps about twice that many items at a time.

        Atomicity: consistent per bucket, not over the whole store.

        Args:
            start, stop: both `str`, which sees `str` keys, or both `bytes`, which sees `bytes` keys.  No bounds
                see all; then "a" comes before b"a".
            limit: at most so many items, the first ones in the order asked for.
            reverse: from the last to the first.

        Raises:
            TypeError: bounds of two types, or of other types.
            ValueError: a negative limit.

        >>> with Store() as store:
        ...     store.update(a=1, b=2, c=3, d=4)
        ...     store.range("b", "d")
        ...     store.range(limit=2, reverse=True)
        [('b', 2), ('c', 3)]
        [('d', 4), ('c', 3)]
        """
        walker, buckets = self._at_this_moment()
        found = sorted_items(walker._walk_items, buckets, start, stop, limit, reverse)
        return [(key, value) for key, value, _ in found]

    def _range_records(
        self, start: Key | None, stop: Key | None, limit: int | None, reverse: bool = False
    ) -> list[tuple[Key, Record]]:
        """`range` of records, undecoded."""
        walker, buckets = self._at_this_moment()
        return sorted_items(walker._walk_records, buckets, start, stop, limit, reverse)

    # ---- About the store -------------------------------------------------------------------

    def stats(self) -> StoreStats:
        """Numbers of the store.

        Atomicity: items and bytes are exact per bucket; counters cover all processes that ever used it.
        Reads through a read-only handle are not counted.

        >>> with Store() as store:
        ...     store["key"] = b"value"
        ...     stats = store.stats()
        ...     stats.items, stats.value_bytes, stats.sets
        (1, 5, 1)
        """
        from shmkv.reports import StoreStats

        raw = self._stats()
        return StoreStats(gets=raw["hits"] + raw["misses"], stale=self.stale, **raw)

    def processes(self) -> list[ProcessInfo]:
        """The living processes that are attached with the right to write.

        Atomicity: each is looked at in turn; the kernel tells who lives, across pid namespaces.

        >>> with Store() as store:
        ...     store["registered"] = True
        ...     [process.this for process in store.processes()]
        [True]
        """
        from shmkv.reports import ProcessInfo

        found = []
        for slot, pid, namespace, start_time, this in self._processes():
            name, status = seen(Process(pid, start_time, namespace)) or (None, None)
            found.append(ProcessInfo(slot, pid, name, status, this))
        return found

    def check(self) -> CheckReport:
        """Walk the whole store and check every invariant; never changes data.

        Atomicity: may run at any time; leaks are tentative while others write.

        >>> with Store() as store:
        ...     store.check().ok
        True
        """
        from shmkv.reports import CheckReport, Problem

        problems, numbers = self._check()
        numbers.pop("problems", None)
        return CheckReport(problems=tuple(Problem(*each) for each in problems), **numbers)

    def compact(self) -> CompactReport:
        """Drop what has expired, reclaim what dead processes left, and gather live blocks into full pages.

        The emptied pages serve any later size; they go back to the system if no other process is attached.

        Atomicity: may run at any time; other processes read and write meanwhile.

        Raises:
            ReadOnlyStoreError: the handle is read-only.
            LockTimeoutError: a live process held a lock for too long; what was done so far stays.

        >>> with Store() as store:
        ...     store.compact().expired
        0
        """
        from shmkv.reports import CompactReport

        return CompactReport(**self._compact())


@leaves_nothing
def _reattach(
    cls: type[Store],
    target: str,
    uuid: bytes,
    codec: str | codecs.Codec,
    lock_timeout: float,
    readonly: bool,
    foreign: bool,
    by_caller: bool,
    reattach: bool = False,
) -> Store:
    """Load a pickled handle."""
    opened = region.attach(target, readonly=readonly, foreign=foreign or by_caller, timeout=lock_timeout)
    if opened.region.uuid != uuid and not reattach:
        raise StoreNotFoundError(f"the store {region.store_name(target)!r} was replaced by another one")
    store = cls.__new__(cls)
    store._bind(opened, codecs.resolve(codec), codec, lock_timeout, readonly, foreign, by_caller, reattach=reattach)
    return store


@leaves_nothing
def _reopen(
    cls: type[Store], path: Path, uuid: bytes, sync: str, codec: str | codecs.Codec, lock_timeout: float
) -> Store:
    """Load a pickled handle on a durable store."""
    from shmkv.durable import uuid_in

    if uuid_in(path) != uuid:
        raise StoreNotFoundError(f"the store that was in {path} is not there any more")
    return cls.open(path, sync, codec=codec, lock_timeout=lock_timeout)


# ---- Arguments -----------------------------------------------------------------------------


def _seconds(lock_timeout: float) -> float:
    if not isinstance(lock_timeout, int | float) or isinstance(lock_timeout, bool):
        raise TypeError(f"lock_timeout is a number of seconds, not {type(lock_timeout).__name__}")
    if math.isnan(lock_timeout) or lock_timeout < 0:
        raise ValueError(f"lock_timeout must be 0 or more seconds, not {lock_timeout!r}")
    return float(lock_timeout)


def _memory_target(memory: SharedMemory) -> str:
    from multiprocessing.shared_memory import SharedMemory

    if not isinstance(memory, SharedMemory):
        raise TypeError(f"a store is named by a str, or lies in a SharedMemory, not {type(memory).__name__}")
    return region.memory_target(memory)


def _pairs(other: Any) -> Iterable[tuple[Key, Any]]:
    """What `dict.update` would take, as pairs."""
    if isinstance(other, Mapping):
        return other.items()
    if hasattr(other, "keys"):
        return ((key, other[key]) for key in other.keys())  # noqa: SIM118  # as dict.update does it
    pairs: Iterable[tuple[Key, Any]] = other
    return pairs


def _close_durable_stores() -> None:
    """Those that are open when the interpreter ends, however it does but for a kill or `os._exit`."""
    durable = sys.modules.get("shmkv.durable")
    if durable is not None:
        durable.Durable.all_at_end()


# As early as this module is loaded, so that it runs after the callbacks of a program that still use its store.
atexit.register(_close_durable_stores)

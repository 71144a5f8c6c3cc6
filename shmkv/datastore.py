"""`DataStore`: JSON objects in files, for one process and any number of its threads.

What: create, read and delete of small JSON objects with a time to live.  The records stay on disk, in the frames of
      a log (_core/segment.h); memory holds, for each key, where its frame is.
How:  a change is a frame at the end of the log, then a change of the index: a private store of the engine, in memory
      without a name.  A read is one look into the index and one pread.  Room comes back from the old end: what still
      counts in the oldest segment is appended again, then its file is removed (Rosenblum and Ousterhout, The Design
      and Implementation of a Log-Structured File System, 1992; the index as in Sheehy and Smith, Bitcask, 2010).

From the old end, because a deletion has to outlive every older frame of its key, or opening would bring that one back:
in the oldest segment there is nothing left for it to hide.  It goes on with each change once the files take half of
what they may, a few bytes for each byte written, so that no change waits for all of it.  Before a segment is removed, a
frame says so: one that is missing and was not removed is told from one that was.

Concurrency: changes are made one at a time, under a lock; reads take none.  A signal handler or a finalizer may
      come into the middle of a change, in the thread that makes it: it may read and close; its changes are refused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import struct
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmkv import _core, codecs, ending, region
from shmkv.claim import CLOSED, LOCK_BYTES, Claim
from shmkv.ending import is_held_for_ever
from shmkv.errors import (
    ClosedStoreError,
    CorruptStoreError,
    DuplicateKeyError,
    ForkedError,
    InvalidKeyError,
    InvalidTTLError,
    InvalidValueError,
    LogFailedError,
    MissingKeyError,
    ShmkvError,
    StoreFullError,
)
from shmkv.failing import leaves_nothing
from shmkv.folder import SETTINGS_FILE, absolute_path, below, open_folder
from shmkv.realthread import Bell, RealThread, RLock
from shmkv.surroundings import limit_of_log, within_limits
from shmkv.walking import sorted_items

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["DataStore"]

KEY_CHARACTERS = 32
VALUE_BYTES = 16_384
VALUE_LEVELS = 200
TTL_SECONDS = 10_000_000_000

LIMIT = 1_000_000_000  # bytes of all files together
SEGMENT = 4_000_000
# Kept free, so that a segment can be emptied when nothing else has room, and as much again for deletions.
RESERVE = 2 * SEGMENT
# Bytes of the oldest segment that are looked at for each byte written: with three quarters in use, what frees one byte.
PACE = 4
GATHERED_AT_ONCE = 16_384  # reading less at a time costs more than moving it
SYNC_SECONDS = 0.5  # half of what may be lost

INDEX_BYTES = 4 << 30  # of address space; memory only as it is used
PUT, DELETE, COUNT = 1, 2, 4  # enum skv_op_kind

# Where a record's frame is: segment, offset and bytes; and when it expires, ms of Unix time, 0 = never.
Place = tuple[int, int, int, int]
PLACE = struct.Struct("<IIIQ")


class DataStore:
    """A store of JSON objects in a directory of this machine, for one process at a time and all its threads.

    Args:
        path: a directory; it is made if it is missing.  None: one in this user's data directory.
        sync: when a change is on stable storage: "always", when the call returns; "interval" (default), at most a
            second later; "none", when the system sees fit.  Whatever it is, a process that is killed loses nothing.

    Raises:
        StoreLockedError: another process, or another `DataStore` of this one, has it open; the message names it.
        NotADirectoryError: `path` is a file.
        ValueError: `path` is empty.
        CorruptStoreError: a file is damaged; the message says which, and where.
        OSError: what the system says of the directory.

    A process that ends without `close()` leaves nothing to be done: the next one takes over.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with DataStore(folder.name) as data:
    ...     data.create("user:1", {"name": "Ada"}, ttl=3600)
    ...     data.read("user:1")
    ...     data.delete("user:1")
    {'name': 'Ada'}
    >>> folder.cleanup()
    """

    @leaves_nothing  # outermost: a frame that still runs keeps what it holds
    @within_limits
    def __init__(self, path: str | os.PathLike[str] | None = None, *, sync: str = "interval") -> None:
        if sync not in ("always", "interval", "none"):
            raise ValueError(f'sync must be "always", "interval" or "none", not {sync!r}')
        self._path = _default_path() if path is None else absolute_path(path)
        self._pid = os.getpid()
        self._sync = sync
        self._closed = False
        self._changing = RLock()  # the syncer's thread takes it too
        self._in_change = False
        self._finished = False
        folder = open_folder(self._path, "a DataStore")
        claim = syncer = None
        try:
            if SETTINGS_FILE in os.listdir(folder):
                raise ShmkvError(f"{self._path} holds a durable store, no DataStore: say Store.open(path)")
            with below(self._path):
                self._claim = claim = Claim(folder, self._path)
            self._index = _Index()
            self._log = _core.Log(folder)
            self._files = _Files()
            self._cursor = _Cursor()
            self._owed = 0  # bytes of the oldest segment that are to be looked at
            self._removed = 0  # number of the last segment that was, or is about to be
            self._going = 0  # the one whose removal this process has begun last
            self._last_kind = COUNT  # of the last frame
            self._recover(folder)
            self._vouched = self._log.end if self._last_kind == COUNT else 0
            if sync == "interval":
                syncer = _Syncer(self._log, weakref.WeakMethod(self._vouch_if_idle))
                if not syncer.start():
                    self._sync = "always"  # nobody else would sync within a second
            self._syncer = syncer
            # Where nobody calls close(), the end of the process is as good as a kill: nothing is lost.
            self._finalizer = weakref.finalize(self, _let_go, self._claim, syncer)
        except BaseException:
            _let_go(claim, syncer)
            raise
        finally:
            folder.close()

    @property
    def path(self) -> Path:
        """The directory that it is in."""
        return self._path

    # ---- The three calls -----------------------------------------------------------------------

    def create(self, key: str, value: dict[str, Any], ttl: int | None = None) -> None:
        """Store a new record.

        Atomicity: of several threads that create one key, one does and the others raise.  O(size of the value).

        Args:
            key: 1 to 32 characters.
            value: a dict of what JSON has: str keys; str, int, float, bool, None, lists and dicts as values.  At most
                16,384 bytes as UTF-8 text without spaces, and 200 levels.  It comes back equal and of the same types.
            ttl: whole seconds until it expires, by the clock of the wall; None, never.

        Raises:
            DuplicateKeyError: the key exists, and has not expired.
            InvalidKeyError, InvalidValueError, InvalidTTLError: see above.
            StoreFullError: the files may not grow, and nothing in them can be dropped; or the disk is full.
            LogFailedError: the disk does not write any more.
            LimitError: a file may not become that large in this process (`ulimit -f`).
            StoreLockedError: code in this process closed all descriptors, and another process has opened it since.
        """
        _check_key(key)
        text = _encode(value)
        lifetime = _milliseconds(ttl)
        self._check_open()
        with self._change():
            now = _now_ms()
            self._refuse_live(key, now)
            self._make_room(_frame_bytes(key, len(text)), LIMIT - RESERVE)
            old = self._index.get(key)  # only now: making room moves what counts, and drops what has expired
            expires = now + lifetime if lifetime else 0
            place, position = self._append(PUT, key, text, expires)
            try:
                self._index.put(key, place)
            except BaseException:
                self._append(DELETE, key, b"", 0)  # or it would be there when it is opened again
                raise
            self._files.replace(old, place)
        self._wait(position)

    def read(self, key: str) -> dict[str, Any]:
        """The value under the key, a copy of its own.  One read of the disk, or of the system's cache of it.

        Raises:
            MissingKeyError: there is none, or it has expired.
            InvalidKeyError: no key can be so.
            CorruptStoreError: the record is damaged on the disk.
        """
        _check_key(key)
        self._check_open()
        before = None
        while True:
            place = self._index.get(key)
            if place is None or _is_expired(place, _now_ms()):
                raise MissingKeyError(key)
            try:
                (operation,) = self._log.read(*place[:3])
            except OSError as error:
                # Its segment may have been gathered and removed meanwhile: the index knows better by now.
                if error.errno == errno.ENOENT and place != before:
                    before = place
                    continue
                self._claim.require()
                raise self._told(error, place) from error
            if operation[1] != key:
                raise self._told(OSError(errno.EBADMSG, ""), place)
            value: dict[str, Any] = json.loads(operation[2])
            return value

    def delete(self, key: str) -> None:
        """Remove the record.

        Atomicity: of several threads that delete one key, one does and the others raise.

        Raises:
            MissingKeyError: there is none, or it has expired.
            InvalidKeyError: no key can be so.
            StoreFullError: the disk is full, also for the few bytes of a deletion: make room on it.
            LogFailedError: the disk does not write any more.
            StoreLockedError: code in this process closed all descriptors, and another process has opened it since.
        """
        _check_key(key)
        self._check_open()
        with self._change():
            self._make_room(_frame_bytes(key, 0), LIMIT - SEGMENT)
            place = self._index.get(key)
            if place is None or _is_expired(place, _now_ms()):
                raise MissingKeyError(key)
            _, position = self._append(DELETE, key, b"", 0)
            self._drop(key, place)
        self._wait(position)

    def range(
        self, start: str | None = None, stop: str | None = None, limit: int | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        """The records with `start <= key < stop`, sorted by the bytes of their keys.

        Looks at every key, and reads the records from disk one by one.

        Atomicity: each record as it was at some instant during the call.

        Args:
            limit: at most so many records, the first ones.

        Raises:
            ValueError: a negative limit.
            TypeError: a bound that is no str.
            CorruptStoreError: a record is damaged on the disk.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, DataStore(folder) as data:
        ...     for name in "abc":
        ...         data.create(name, {"is": name})
        ...     data.range("a", "c", limit=1)
        [('a', {'is': 'a'})]
        """
        for bound in (start, stop):
            if bound is not None and not isinstance(bound, str):
                raise TypeError(f"start and stop are str or None, not {type(bound).__name__}")
        self._check_open()
        found: list[tuple[str, dict[str, Any]]] = []
        for key in self._index.keys_between(start or "", stop, limit):
            with contextlib.suppress(MissingKeyError):  # it has expired, or was deleted since
                found.append((key, self.read(key)))
        return found

    # ---- Life ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let another process have it; with `sync` "always" and "interval" everything is on stable storage then.

        May be called again.  Calls of other threads that come later raise `ClosedStoreError`.

        Raises:
            LogFailedError: what was written last may not be on disk: the disk does not write, or the directory was
                removed or replaced.  It is closed all the same.
        """
        if os.getpid() != self._pid:
            return  # the claim and the log are the parent's
        if is_held_for_ever(self._changing):
            return  # as if the process had been killed: nothing is lost
        with self._changing:
            if self._closed:
                return
            self._closed = True
            try:
                self._look()
                if self._sync != "none":
                    self._make_stable(self._log.end)
                    if self._vouch():
                        self._make_stable(self._log.end)
            finally:
                if not self._in_change:  # else the change goes on when this returns, and finishes it
                    self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._finalizer()
        self._index.close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<DataStore {str(self._path)!r}{' (closed)' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedStoreError(CLOSED)
        if os.getpid() != self._pid:
            raise ForkedError(
                f"this process was forked from {self._pid}, which has the DataStore open: it is for one process at a "
                "time, so close it before the fork, or open another one here"
            )

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One at a time; also where a signal handler comes into the middle of one."""
        if is_held_for_ever(self._changing):
            raise ShmkvError("the interpreter ends in the middle of a change of another thread, nothing was changed")
        with self._changing:
            if self._in_change:
                raise ShmkvError(
                    "a signal handler or a finalizer cannot change the DataStore in the middle of another change of "
                    "its thread, nothing was changed: let it set a flag, or hand the change to another thread"
                )
            self._in_change = True
            try:
                self._check_open()  # again: it may have been closed while this thread waited
                yield
            finally:
                self._in_change = False
                if self._closed and not self._finished:
                    self._finish()

    def _refuse_live(self, key: str, now: int) -> None:
        place = self._index.get(key)
        if place and not _is_expired(place, now):
            raise DuplicateKeyError(f"the key {key!r} exists already: delete it first")

    def _told(self, error: OSError, place: Place) -> Exception:
        """What a user can do with an error of reading."""
        if error.errno not in (errno.EBADMSG, errno.ENOENT):
            return error
        name = self._path / _segment_name(place[0])
        what = "damaged" if error.errno == errno.EBADMSG else "missing"
        return CorruptStoreError(f"{name} is {what} at byte {place[1]}: restore it from a copy")

    # ---- Recovery ----------------------------------------------------------------------------------

    def _recover(self, folder: int) -> None:
        on_disk = self._numbers_on_disk(folder)
        for number in on_disk:  # also those without a record
            self._files.add(number)
        found = self._log.recover(self._apply)
        if found["damage"]:
            raise CorruptStoreError(
                f"{self._path / found['name']} is damaged at byte {found['offset']}: {found['damage']}. "
                f"{len(self._index)} records before that place can be read; restore the file from a copy, or remove it "
                "and all later ones to go on with those"
            )
        if on_disk and on_disk[0] > self._removed + 1:
            raise CorruptStoreError(
                f"{self._path / _segment_name(self._removed + 1)} is missing, and maybe others up to "
                f"{_segment_name(on_disk[0] - 1)}: restore them from a copy"
            )
        self._log.begin(os.urandom(16))
        self._files.add(self._log.segment)  # the first one of a new log
        for number in on_disk:
            if number > self._log.segment:  # begun when the power went; the one before it is gone on with
                self._log.remove(number)
                self._files.remove(number)
        for number in self._files.numbers():
            self._files.grow(number, os.stat(_segment_name(number), dir_fd=folder).st_size)

    @staticmethod
    def _numbers_on_disk(folder: int) -> list[int]:
        names = (_SEGMENT_FILE.fullmatch(name) for name in os.listdir(folder))
        return sorted(int(match[1]) for match in names if match)

    def _apply(self, segment: int, offset: int, size: int, operations: list[tuple[int, Any, None, int]]) -> None:
        for kind, key, _, expires in operations:
            self._last_kind = kind
            if kind == COUNT:
                self._removed = expires
                continue
            old = self._index.get(key)
            place = (segment, offset, size, expires) if kind == PUT else None
            if place:
                self._index.put(key, place)
            elif old:
                self._index.delete(key)
            self._files.replace(old, place)

    # ---- Appending -----------------------------------------------------------------------------------

    def _append(self, kind: int, key: str, text: bytes, expires: int) -> tuple[Place, int]:
        """The place of the new frame, and the position behind it."""
        self._claim.require()
        try:
            if self._files.size(self._log.segment) + _frame_bytes(key, len(text)) > SEGMENT:
                self._rotate()
            segment, offset, size, position = self._log.append(kind, key, text, expires)
        except LogFailedError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFullError(f"the disk is full, nothing was changed: make room for {self._path}") from error
            raise limit_of_log(error, str(self._path)) or LogFailedError(
                error.errno, f"{_problem(error)}: nothing was changed", str(self._path)
            ) from error
        self._files.grow(segment, size)
        return (segment, offset, size, expires), position

    def _rotate(self) -> None:
        self._files.add(self._log.rotate(), _SEGMENT_HEAD)

    def _wait(self, position: int) -> None:
        if self._sync == "always":
            self._make_stable(position)
        elif self._syncer:
            self._syncer.wake()

    def _look(self) -> None:
        try:
            self._log.look()
        except OSError as error:
            problem = f"{_problem(error)}: what was written lately is kept nowhere"
            raise LogFailedError(error.errno, problem, str(self._path)) from error

    def _make_stable(self, position: int) -> None:
        try:
            self._log.sync(position)
        except LogFailedError:
            raise
        except OSError as error:
            problem = f"{_problem(error)}: nobody knows what of the last changes is on the disk"
            raise LogFailedError(error.errno, problem, str(self._path)) from error

    def _vouch(self) -> bool:
        """Say in the log that it is on stable storage up to here; False: nothing was written.

        Of a place that no frame behind it vouches for nobody could tell damage from what a power cut left, which is cut
        off (segment.c).
        """
        if self._in_change or self._vouched == self._log.end:
            return False
        try:
            self._append(COUNT, "", b"", self._removed)
        except ShmkvError:
            return False  # nothing that was promised depends on it
        self._vouched = self._log.end
        return True

    def _vouch_if_idle(self, position: int) -> None:
        """`position` was synced; a change that goes on, or came since, will say so itself."""
        if self._changing.acquire(blocking=False):
            try:
                if not self._closed and self._log.end == position:
                    self._vouch()
            finally:
                self._changing.release()

    # ---- Room ----------------------------------------------------------------------------------------

    def _make_room(self, size: int, most: int) -> None:
        """Room for a frame of `size` bytes in files of `most`; the lock is held."""
        files = self._files
        if files.taken > LIMIT // 2 and files.taken - files.live > files.taken // 8:
            self._owed += PACE * size
            if self._owed >= GATHERED_AT_ONCE:
                self._gather(self._owed)
                self._owed = 0
        if files.taken + size <= most:
            return
        heads = LOCK_BYTES + _SEGMENT_HEAD * (len(files) + 1)
        if files.live + heads + size > most:
            self._drop_expired()
        if files.live + heads + size > most:
            raise StoreFullError(
                f"the files of the DataStore may take {LIMIT:,} bytes together, and {files.live:,} are in use, "
                "nothing was changed: delete records, or let them expire"
            )
        # Once round at most: then there is nothing but what counts.
        for _ in range(2 * len(files)):
            if files.taken + size <= most:
                return
            self._gather(SEGMENT)

    def _drop_expired(self) -> None:
        now = _now_ms()
        for key, place in self._index.items():
            if _is_expired(place, now):
                self._drop(key, place)

    def _drop(self, key: str, place: Place) -> None:
        self._index.delete(key)
        self._files.replace(place, None)

    def _gather(self, most: int) -> None:
        """Append again what counts in the next `most` bytes of the oldest segment; remove it at its end."""
        oldest = self._files.oldest()
        if oldest == self._going:  # all of it was moved or dropped, and an error came before or after its name went
            self._remove(oldest)
            return
        if oldest == self._log.segment:
            self._rotate()
        cursor = self._cursor
        if cursor.segment != oldest:
            cursor = self._cursor = _Cursor(oldest)
        now = _now_ms()
        try:
            frames, at, sequence = self._log.frames(oldest, cursor.at, cursor.sequence, most)
        except OSError as error:
            raise self._told(error, (oldest, cursor.at, 0, 0)) from error
        for offset, _, operations in frames:
            for kind, key, _, _ in operations:
                place = self._index.get(str(key))
                if kind == PUT and place and place[:2] == (oldest, offset):
                    self._keep(str(key), place, now)
        # Only now: where one of them could not be moved, they are all looked at again.
        cursor.at, cursor.sequence = at, sequence
        if not frames:
            self._remove(oldest)

    def _remove(self, number: int) -> None:
        if self._files.live_in(number):
            raise CorruptStoreError(f"{self._path / _segment_name(number)} ends before records that are in it")
        if self._removed < number:
            self._append(COUNT, "", b"", number)
            self._removed = number
        # What was moved is on stable storage before its only other copy goes, and so is the frame that says so.
        self._make_stable(self._log.end)
        self._claim.require()
        self._going = number
        try:
            self._log.remove(number)
        except OSError as error:
            raise LogFailedError(error.errno, error.strerror, str(self._path / _segment_name(number))) from error
        self._files.remove(number)

    def _keep(self, key: str, place: Place, now: int) -> None:
        if _is_expired(place, now):
            self._drop(key, place)
            return
        try:
            ((_, _, text, expires),) = self._log.read(*place[:3])
        except OSError as error:
            raise self._told(error, place) from error
        moved, _ = self._append(PUT, key, text, expires)
        self._index.put(key, moved)
        self._files.replace(place, moved)


# ---- Segments, index, claim, syncer -----------------------------------------------------------------

_SEGMENT_HEAD = 64
_SEGMENT_FILE = re.compile(r"([0-9]{20})\.log")


class _Files:
    """How large each segment is, how large all files are together, and how much of them the index names."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}  # in the order of their numbers
        self._live: dict[int, int] = {}
        self.taken = LOCK_BYTES
        self.live = 0

    def add(self, number: int, size: int = 0) -> None:
        if number not in self._sizes:
            self._sizes[number] = self._live[number] = 0
            self.grow(number, size)

    def grow(self, number: int, size: int) -> None:
        self._sizes[number] += size
        self.taken += size

    def remove(self, number: int) -> None:
        self.taken -= self._sizes.pop(number)
        del self._live[number]

    def replace(self, old: Place | None, new: Place | None) -> None:
        """The index names the one frame where it named the other."""
        if old:
            self.live -= old[2]
            self._live[old[0]] -= old[2]
        if new:
            self.live += new[2]
            self._live[new[0]] += new[2]

    def live_in(self, number: int) -> int:
        return self._live[number]

    def size(self, number: int) -> int:
        return self._sizes[number]

    def oldest(self) -> int:
        return next(iter(self._sizes))

    def numbers(self) -> list[int]:
        return list(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)


class _Cursor:
    """How far the oldest segment has been gathered."""

    __slots__ = ("at", "segment", "sequence")

    def __init__(self, segment: int = 0) -> None:
        self.segment = segment
        self.at = 0
        self.sequence = 0


class _Index:
    """Key to place, in a private store of the engine: a third of what a dict of tuples takes."""

    def __init__(self) -> None:
        self._opened = region.create_anonymous(INDEX_BYTES, "shmkv-index")
        resolved = codecs.resolve("safe")
        self._handle = _core.Handle(self._opened.region, resolved.kind, resolved.encode, resolved.decode, 5.0, False)

    def get(self, key: str) -> Place | None:
        packed = self._handle.get(key)
        return None if packed is None else PLACE.unpack(packed)

    def put(self, key: str, place: Place) -> None:
        self._handle.put(key, PLACE.pack(*place))

    def delete(self, key: str) -> None:
        self._handle.delete(key)

    def items(self) -> Iterator[tuple[str, Place]]:
        bucket, buckets = 0, self._opened.region.bucket_count
        while bucket < buckets:
            bucket, items = self._handle._walk_items(bucket, None, None)
            for key, packed, _ in items:
                yield str(key), PLACE.unpack(packed)

    def keys_between(self, start: str, stop: str | None, limit: int | None) -> list[str]:
        """Sorted; without those that have expired."""
        now = _now_ms()

        def live(bucket: int, start: str | bytes | None, stop: str | bytes | None) -> tuple[int, list[tuple[str]]]:
            bucket, items = self._handle._walk_items(bucket, start, stop)
            return bucket, [(str(key),) for key, packed, _ in items if not _is_expired(PLACE.unpack(packed), now)]

        return [key for (key,) in sorted_items(live, self._opened.region.bucket_count, start, stop, limit, False)]

    def __len__(self) -> int:
        return len(self._handle)

    def close(self) -> None:
        self._handle.close()


class _Syncer:
    """A thread that brings the log to stable storage soon after it has grown; it sleeps while nothing happens.

    It is told by bells, which a signal handler may come into the middle of; an Event it could not.
    """

    def __init__(self, log: _core.Log, vouch: weakref.WeakMethod[Callable[[int], None]]) -> None:
        self._log = log
        self._vouch = vouch
        self._is_told = False
        self._grown, self._ended = Bell(), Bell()
        self._thread = RealThread(self._run)

    def start(self) -> bool:
        """False: there can be no thread."""
        return ending.start(self._thread)

    def wake(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._grown.ring()

    def stop(self) -> None:
        self._ended.ring()
        self._grown.ring()
        ending.join(self._thread)

    def _run(self) -> None:
        while True:
            self._grown.wait()
            if self._ended.wait(SYNC_SECONDS):
                return
            self._is_told = False
            position = self._log.end
            try:
                self._log.sync(position)
            except OSError:  # a log that has failed refuses the next one at once, and the next change says so
                self.wake()
                continue
            vouch = self._vouch()
            if vouch:
                vouch(position)
            del vouch


def _let_go(claim: Claim | None, syncer: _Syncer | None) -> None:
    if syncer:
        syncer.stop()
    if claim:
        claim.release()


def _problem(error: OSError) -> str:
    if error.errno == errno.ESTALE:
        return "the directory, or the log in it, was removed, or another was put in its place"
    return str(error.strerror)


# ---- Small parts ---------------------------------------------------------------------------------------


def _default_path() -> Path:
    import platformdirs

    return Path(platformdirs.user_data_dir("shmkv")) / "datastore"


def _segment_name(number: int) -> str:
    return f"{number:020}.log"


def _frame_bytes(key: str, text_bytes: int) -> int:
    """Bytes that a frame of one operation takes (frame.h)."""
    return (40 + 24 + len(key.encode()) + text_bytes + 7) & ~7


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_expired(place: Place, now: int) -> bool:
    return 0 < place[3] <= now


def _check_key(key: str) -> None:
    if not isinstance(key, str):
        raise InvalidKeyError(f"a key is a str, not {type(key).__name__}")
    if not 1 <= len(key) <= KEY_CHARACTERS:
        raise InvalidKeyError(f"a key has 1 to {KEY_CHARACTERS} characters, not {len(key)}")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError("a key cannot hold half of a surrogate pair") from None


def _milliseconds(ttl: int | None) -> int:
    if ttl is None:
        return 0
    if isinstance(ttl, bool) or not isinstance(ttl, int):
        raise InvalidTTLError(f"ttl is whole seconds as int, or None, not {type(ttl).__name__}")
    if not 1 <= ttl <= TTL_SECONDS:
        raise InvalidTTLError(f"ttl is 1 to {TTL_SECONDS:,} seconds, not {ttl}")
    return ttl * 1000


def _encode(value: dict[str, Any]) -> bytes:
    if type(value) is not dict:
        raise InvalidValueError(f"a value is a JSON object, a dict, not {type(value).__name__}")
    _check_parts(value)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise InvalidValueError("a str in the value holds half of a surrogate pair") from None
    except ValueError as error:
        raise InvalidValueError(f"the value is not JSON: {error}") from None
    if len(text) > VALUE_BYTES:
        raise InvalidValueError(f"the value takes {len(text):,} bytes as JSON, and {VALUE_BYTES:,} are allowed")
    return text


def _check_parts(value: dict[str, Any]) -> None:
    """What JSON would alter or cannot say is refused; level by level, so that depth costs no stack."""
    level: list[Any] = [value]
    for _ in range(VALUE_LEVELS):
        below: list[Any] = []
        for each in level:
            kind = type(each)
            if kind is dict:
                for key in each:
                    if type(key) is not str:
                        raise InvalidValueError(f"the keys of a JSON object are str, not {type(key).__name__}")
                below += each.values()
            elif kind is list:
                below += each
            elif kind not in (str, int, float, bool, type(None)):
                raise InvalidValueError(f"JSON has no {kind.__name__}: it would not come back as it was")
        # Far more parts than fit are not looked at: they may be one list that holds itself again and again.
        if len(below) > VALUE_BYTES:
            raise InvalidValueError(f"the value has more parts than fit in {VALUE_BYTES:,} bytes, or contains itself")
        level = [each for each in below if type(each) in (dict, list)] + [
            each for each in below if type(each) not in (dict, list, str, int, float, bool, type(None))
        ]
        if not level:
            return
    raise InvalidValueError(f"the value has more than {VALUE_LEVELS} levels, or contains itself")

"""The C extension: the engine's binding.  Use `shmkv.Store`, not this.

Statuses become exceptions in one table (binding/module.c); the exception classes are taken
from `shmkv.errors` at import.
"""

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Any, Final, SupportsIndex

LAYOUT_VERSION: Final[int]
FREE_THREADED: Final[bool]

class Region:
    """One mapping of a store's region in this process (shared by all handles of the same store)."""

    @staticmethod
    def create(
        fd: int,
        size: int,
        *,
        evict: bool,
        mode: int,
        uid: int,
        uuid: bytes,
        seed: int,
        fixed_size: bool,
        log_uuid: bytes | None = None,
    ) -> bool:
        """Lay a store out behind `fd`.  False: a ready store was there already."""
    @staticmethod
    def peek(fd: int, timeout: float) -> bytes | None:
        """The 256 bytes of the fixed header; None if its creator died before it was ready."""
    @staticmethod
    def attach(fd: int, readonly: bool) -> Region: ...
    fd: int
    uuid: bytes
    size: int
    evict: bool
    mode: int
    uid: int
    bucket_count: int
    log_uuid: bytes | None
    alone: bool
    def is_at(self, path: bytes, /) -> bool:
        """Does this path lead to the region?  True where nobody can tell."""
    def replace(self, new: Region, path: bytes, path_of_new: bytes, /) -> bool | None:
        """Move all items to `new` and give it this one's name: True.  False: somebody else is attached.  None: the name
        means another region by now."""

class Descriptor(int):  # for a type checker, as it goes wherever a number goes: by __index__
    """A file descriptor that is closed with the last reference to it, while it still is the file that was opened."""

    def __new__(cls, number: int, /) -> Descriptor: ...
    @classmethod
    def open(
        cls, path: str | PathLike[str], flags: int, mode: int = 0o600, folder: SupportsIndex = ..., /
    ) -> Descriptor: ...
    @classmethod
    def open_private(
        cls, path: str | PathLike[str], flags: int, mode: int = 0o600, folder: SupportsIndex = ..., /
    ) -> Descriptor:
        """As `open`; a forked child closes it, until `share` was called."""

    def share(self) -> None: ...
    @classmethod
    def shared(cls, name: str, flags: int, mode: int, /) -> Descriptor: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def detach(self) -> int:
        """The number, which is the caller's to close now."""
    def __enter__(self) -> Descriptor: ...
    def __exit__(self, *exc_info: object) -> None: ...

def unlink_shared(name: str, /) -> None: ...

class Log:
    """A log in the folder behind a descriptor, of this process alone."""

    def __init__(self, folder: int) -> None: ...
    def recover(
        self, apply: Callable[[int, int, int, list[tuple[int, str | bytes, None, int]]], object]
    ) -> dict[str, Any]:
        """Read the log: apply(segment, offset, size, [(kind, key, None, expires_ms), ...]) for each frame."""
    def begin(self, uuid: bytes) -> None:
        """Get ready to append, behind what was recovered; `uuid` is for a new log."""
    def append(self, kind: int, key: str, value: bytes, expires_ms: int) -> tuple[int, int, int, int]:
        """(segment, offset, size, position) of the new frame."""
    def sync(self, position: int) -> None:
        """Wait until what is below it is on stable storage."""
    def look(self) -> None:
        """OSError (ESTALE): its folder, or the file that is appended to, was removed or replaced."""
    def rotate(self) -> int:
        """Begin the next segment; its number."""
    def read(self, segment: int, offset: int, size: int) -> list[tuple[int, str | bytes, bytes, int]]:
        """[(kind, key, value, expires_ms), ...] of a frame."""
    def frames(
        self, segment: int, at: int, sequence: int, most: int
    ) -> tuple[list[tuple[int, int, list[tuple[int, str | bytes, None, int]]]], int, int]:
        """([(offset, size, operations), ...], at, sequence): frames of up to `most` bytes, from `at` on (0 = the first),
        and where to go on; none at its end."""
    def remove(self, segment: int) -> None:
        """Remove the file of a segment."""
    segment: int
    end: int
    synced: int

class Versioned(tuple[Any, int]):
    value: Any
    version: int

Record = tuple[int, bytes, str | None, int, int]
"""An item as it is stored: (type, payload, content_type, version, expires_ms); binding/records.h says more."""

class Handle:
    """Every operation that touches items.  `shmkv.Store` derives from it and adds names and lives."""

    def __init__(
        self,
        region: Region,
        codec: str = "safe",  # "safe" | "pickle" | "json" | "object"
        encode: Callable[[Any], bytes] | None = None,
        decode: Callable[[bytes], Any] | None = None,
        lock_timeout: float = 5.0,
        readonly: bool = False,
        stable: bool = False,
        follow: bytes = ...,
    ) -> None: ...
    # dict
    def __getitem__(self, key: str | bytes) -> Any: ...
    def __setitem__(self, key: str | bytes, value: Any) -> None: ...
    def __delitem__(self, key: str | bytes) -> None: ...
    def __contains__(self, key: object) -> bool: ...
    def __len__(self) -> int: ...
    def get(self, key: str | bytes, default: Any = None) -> Any: ...
    def put(self, key: str | bytes, value: Any, ttl: Any = None, *, content_type: str | None = None) -> None: ...
    def set(self, key: str | bytes, value: Any, ttl: Any = None, *, content_type: str | None = None) -> None: ...
    def add(self, key: str | bytes, value: Any, ttl: Any = None) -> bool: ...
    def replace(self, key: str | bytes, value: Any, ttl: Any = None) -> bool: ...
    def delete(self, key: str | bytes) -> bool: ...
    def pop(self, key: str | bytes, *default: Any) -> Any: ...
    def setdefault(self, key: str | bytes, default: Any = None) -> Any: ...
    def change(self, key: str | bytes, function: Callable[[Any], Any], *, default: Any = ..., ttl: Any = None) -> Any:
        """Store function(value) in the place of that very value: the new value.  KeyError if there is none, nor a default."""
    def incr(self, key: str | bytes, delta: int = 1, initial: int = 0, ttl: Any = None) -> int: ...
    def decr(self, key: str | bytes, delta: int = 1, initial: int = 0, ttl: Any = None) -> int: ...
    def gets(self, key: str | bytes) -> Versioned: ...  # KeyError if missing
    def cas(self, key: str | bytes, value: Any, version: int, ttl: Any = None) -> bool: ...
    def touch(self, key: str | bytes, ttl: Any) -> bool: ...
    def persist(self, key: str | bytes) -> bool: ...
    def ttl(self, key: str | bytes) -> float | None: ...
    def content_type(self, key: str | bytes) -> str | None: ...
    def get_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Any]: ...
    def put_many(
        self,
        items: Mapping[str, Any] | Mapping[bytes, Any] | Mapping[str | bytes, Any] | Iterable[tuple[str | bytes, Any]],
        ttl: Any = None,
    ) -> None: ...
    def delete_many(self, keys: Iterable[str | bytes]) -> int: ...
    def clear(self) -> None: ...
    def close(self) -> None:
        """Lets running operations of other threads finish; idempotent."""
    closed: bool
    # for shmkv.store: with `follow`, the path of a name, an operation that finds another object there calls `_follow`.
    def _move(self, region: Region, /) -> None:
        """Go over to another region; who is inside finishes in the old one."""
    # for shmkv.store
    # Walks: (next bucket, what the first bucket from `bucket` on has that has anything).  A prefix or bound of one type
    # sees keys of that type only; bounds are start <= key < stop, compared as UTF-8 bytes.  Consistent per bucket.
    def _walk_keys(self, bucket: int, prefix: str | bytes | None) -> tuple[int, list[str | bytes]]: ...
    def _walk_facts(
        self, bucket: int, prefix: str | bytes | None
    ) -> tuple[int, list[tuple[str | bytes, int, int, int]]]:
        """(key, type, bytes of the value, expires_ms)."""
    def _walk_items(
        self, bucket: int, start: str | bytes | None, stop: str | bytes | None
    ) -> tuple[int, list[tuple[str | bytes, Any, int]]]:
        """(key, value, version)."""
    def _walk_records(
        self, bucket: int, start: str | bytes | None, stop: str | bytes | None
    ) -> tuple[int, list[tuple[str | bytes, Record]]]: ...
    def _delete_version(self, key: str | bytes, version: int) -> bool: ...
    # for the server and exports
    def _fetch(self, key: str | bytes) -> Record | None:
        """A get, counted as one, that does not decode."""
    def _fetch_many(self, keys: Iterable[str | bytes]) -> dict[str | bytes, Record]: ...
    def _place(
        self, key: str | bytes, value: Any, ttl: Any, content_type: str | int | None, condition: int, version: int
    ) -> tuple[int, bool] | None:
        """Put under a condition (0 none, 1 absent, 2 present, 3 that version): (new version, replaced), or None."""
    def _put_items(self, items: Iterable[tuple[str | bytes, Any, Any, str | int | None]]) -> None:
        """put_many of (key, value, ttl, content_type); an int there is the type of which `value` is the payload."""
    def _put_batches(self, pairs: Iterable[tuple[str | bytes, Any]], /) -> None:
        """Store pairs in as few batches as they need, each at one instant, and taken only once those before it are stored."""
    def _stats(self) -> dict[str, int]:
        """Raw numbers of struct skv_stats, counters by name (hits, misses, sets, deletes, expired, evicted, retries, lock_waits)."""
    def _processes(self) -> list[tuple[int, int, int, int, bool]]:
        """(slot, pid, pid namespace inode, start time in clock ticks, this process)."""
    def _check(self) -> tuple[list[tuple[str, str]], dict[str, int]]:
        """([(invariant, sentence)], numbers of struct skv_check_result)."""
    def _compact(self) -> dict[str, int]: ...
    def _sweep(self, buckets: int) -> int: ...
    def _reclaim(self) -> int: ...
    def _set_clock(self, now_ms: int) -> None: ...
    def _now_ms(self) -> int: ...
    def _load_tsv(
        self, buffer: Any, on_bad: int, first_line: int, ttl_ms: int
    ) -> tuple[int, int, int, list[tuple[int, str]]]:
        """Parse and store whole lines `key TAB value LF` of a buffer, holding no GIL (see _core/import.c).

        Returns (pairs stored, lines seen, bytes consumed, [(line number, reason)]); on_bad 0 = stop at the first
        malformed line (what came before it is stored), 1 = skip."""

def durable_restore(region: Region, folder: int, /) -> dict[str, Any]:
    """Fill an empty region from the log in a folder: what was found, whether it was damaged, how many items had to go."""

def durable_begin(
    region: Region, folder: int, uuid: bytes, state: bytes = ..., number: int = 0, seconds: float = -1.0, /
) -> None:
    """From now on every change of this process goes through the log."""

def durable_state(region: Region, /) -> dict[str, Any]:
    """segment, end, synced, vouched, kept_from, failed (an errno), joined (this process has begun)."""

def durable_data_bytes(region: Region, /) -> int: ...
def durable_sync(region: Region, seconds: float = -1.0, /) -> None:
    """Returns when everything in the log is on stable storage."""

def durable_vouch(region: Region, /) -> bool:
    """The log says that all of it is on stable storage; False: it is not, nothing is new, or somebody writes to it."""

def durable_checkpoint(region: Region, seconds: float = -1.0, /) -> tuple[int, int, int] | None:
    """(number, items, bytes) of the new snapshot; None: another process is writing one."""

def durable_holders(region: Region, /) -> tuple[tuple[int, int, int, bool] | None, tuple[int, int, int, bool] | None]:
    """Who appends to the log, and who writes a snapshot: (pid, start, pid namespace, does it live?)."""

def durable_set_wall_clock(region: Region, now_ms: int, /) -> None: ...
def restored_bytes() -> int: ...
def xxh3_64(data: bytes, seed: int = 0) -> int:
    """The engine's own XXH3-64, for the test that compares it with the reference."""

def encode_safe(value: Any) -> tuple[int, bytes]:
    """(type code, payload) of the "safe" codec; TypeError names the codec that would take it."""

def decode_safe(type_code: int, payload: bytes) -> Any: ...
def give_back() -> None:
    """What this process keeps for its next write goes back to its stores, which stay open."""

def fail_commit(nth: int) -> None:
    """For tests: the nth commit of memory from now on fails as if the file system were full; 0 = off."""

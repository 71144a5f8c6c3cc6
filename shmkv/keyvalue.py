"""`KeyValueStore`: put, get and delete with durations in milliseconds, over any `Store`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shmkv.store import Store

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["KeyValueStore"]

MOST_MS = 946_728_000_000  # 30 years, the longest ttl of a store


class KeyValueStore:
    """A key-value store of three calls, for any number of threads and processes at the same time.

    Atomicity: each call is atomic between threads and processes.

    Args:
        store: a `Store`, which stays the caller's; or the name of one, which is created, or attached to if it exists;
            or None, for a private one, which is gone when this object is closed or its process ends.

    An object can be handed to another process as a `Store` can (pickle, fork): both see the same items.

    Raises:
        TypeError: `store` is neither.
        What `Store(name)` raises.

    >>> with KeyValueStore() as items:
    ...     items.put("greeting", "hello", duration=60_000)
    ...     items.get("greeting")
    ...     items.delete("greeting")
    ...     items.get("greeting")
    Traceback (most recent call last):
    KeyError: 'greeting'
    """

    __slots__ = ("_mine", "store")

    store: Store
    """The store behind it, for everything else."""

    def __init__(self, store: Store | str | None = None) -> None:
        if store is not None and not isinstance(store, (Store, str)):
            raise TypeError(f"store must be a Store, the name of one, or None, not {type(store).__name__}")
        self._mine = not isinstance(store, Store)
        self.store = store if isinstance(store, Store) else Store(store)

    def put(self, key: str | bytes, value: Any, duration: float | None = None) -> Any:
        """Store the value under the key, in place of an earlier one, and return it.

        Atomicity: readers see the old value or the new one.  O(1).

        Args:
            duration: how long it stays, in milliseconds, more than 0 and at most 30 years; None, for ever.  A fraction
                of a millisecond counts as a whole one.

        Raises:
            TypeError: the key, the value or the duration has a type that cannot be stored.
            ValueError: the duration is not such a number.
            KeyTooLargeError, ValueTooLargeError, StoreFullError, LockTimeoutError: as `Store.put`.
        """
        self.store.put(key, value, None if duration is None else _seconds(duration))
        return value

    def get(self, key: str | bytes) -> Any:
        """The value under the key.  It never waits for writers.  O(1).

        Raises:
            KeyError: there is none, or its time is over.
        """
        return self.store[key]

    def delete(self, key: str | bytes) -> None:
        """Remove the key and its value.  O(1).

        Atomicity: of several that delete one key at the same time, one does and the others raise.

        Raises:
            KeyError: there is none, or its time is over.
        """
        del self.store[key]

    def close(self) -> None:
        """Close the store, unless it is the caller's.  Again is fine."""
        if self._mine:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyValueStore({self.store!r})"


def _seconds(duration: float) -> float:
    if isinstance(duration, bool) or not isinstance(duration, (int, float)):
        raise TypeError(f"duration must be milliseconds as int or float, or None, not {type(duration).__name__}")
    if not 0 < duration <= MOST_MS:  # not true for a NaN
        raise ValueError(f"duration must be more than 0 and at most 30 years ({MOST_MS:,} milliseconds)")
    return math.ceil(duration) / 1000

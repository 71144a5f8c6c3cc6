"""What a store should do: a plain dict of key -> (value, when it expires), and the calls of `Store` on it.

How: each method is named as the store's, takes what it takes, and raises what it raises.  Nothing is kept that a
     caller could see from outside but items, expiry and versions; a version is a number that grows with each change.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from shmkv import BatchTooLargeError, KeyTooLargeError, ValueTooLargeError, _core

Key = str | bytes

KEY_BYTES = 65_535
BATCH_KEYS = 65_536
RECORD_BYTES = 24  # before key and value
LONGEST_TTL_S = 30 * 365 * 86_400
PLAIN = (bytes, str, int, float, bool, type(None), datetime, date, timedelta)
MISSING = object()


def _bytes_of(pair: tuple[Key, Any]) -> int:
    """What it takes in a batch: keys count, those that come again later too."""
    key, value = pair
    return RECORD_BYTES + len(key if isinstance(key, bytes) else key.encode()) + len(_core.encode_safe(value)[1])


class Item(NamedTuple):
    value: Any
    expires: int | None  # ms on the store's clock
    content_type: str | None = None


class Model(MutableMapping[Key, Any]):
    """`now` is the clock, in milliseconds; `size` that of the store, in bytes."""

    def __init__(self, now: int, size: int) -> None:
        self.now = now
        self._size = size
        self._kept: dict[Key, Item] = {}
        self._versions: dict[Key, int] = {}
        self._next_version = itertools.count(1)

    # ---- What is there -------------------------------------------------------------------

    def living(self) -> dict[Key, Item]:
        for key in [key for key, item in self._kept.items() if not self._alive(item)]:
            del self._kept[key]
        return self._kept

    def _alive(self, item: Item) -> bool:
        return item.expires is None or self.now < item.expires

    def _find(self, key: Any) -> Item | None:
        hash(key)
        item = self._kept.get(key) if type(key) in (str, bytes) else None
        return item if item and self._alive(item) else None

    def _demand(self, key: Any) -> Item:
        item = self._find(key)
        if item is None:
            raise KeyError(key)
        return item

    def has(self, key: Any) -> bool:
        """Also of what is no key."""
        return type(key) in (str, bytes) and key in self

    def version(self, key: Key) -> int:
        """The model's own number for what is there now; another one after each change."""
        self._demand(key)
        return self._versions[key]

    def _write(self, key: Key, item: Item) -> None:
        self._kept[key] = item
        self._versions[key] = next(self._next_version)

    # ---- What may be stored --------------------------------------------------------------

    def _check_key(self, key: Any) -> None:
        hash(key)
        if type(key) not in (str, bytes):
            raise TypeError("key")
        if len(key.encode() if isinstance(key, str) else key) > KEY_BYTES:
            raise KeyTooLargeError("key")

    def _check_value(self, value: Any) -> None:
        if type(value) in (list, tuple, set, frozenset):
            for each in value:
                self._check_value(each)
        elif type(value) is dict:
            for pair in value.items():
                self._check_value(pair)
        elif type(value) not in PLAIN:
            raise TypeError("value")
        if isinstance(value, bytes | str) and len(value) > self._size // 4:
            raise ValueTooLargeError("value")

    def _expires(self, ttl: Any) -> int | None:
        if ttl is None:
            return None
        if type(ttl) not in (int, float, timedelta):
            raise TypeError("ttl")
        seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
        if not 0 < seconds <= LONGEST_TTL_S:
            raise ValueError("ttl")
        return self.now + math.ceil(round(seconds * 1000, 6))

    def _item(self, key: Any, value: Any, ttl: Any = None, content_type: str | None = None) -> Item:
        expires = self._expires(ttl)
        if content_type is not None and type(value) is not bytes:
            raise TypeError("content_type")
        self._check_key(key)
        self._check_value(value)
        return Item(value, expires, content_type)

    # ---- One item ------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return self._demand(key).value

    def __setitem__(self, key: Any, value: Any) -> None:
        self.put(key, value)

    def __delitem__(self, key: Any) -> None:
        self._demand(key)
        del self._kept[key]

    def __contains__(self, key: Any) -> bool:
        return self._find(key) is not None

    def __iter__(self) -> Iterator[Key]:
        return iter(self.living())

    def __len__(self) -> int:
        return len(self.living())

    def put(self, key: Any, value: Any, ttl: Any = None, *, content_type: str | None = None) -> None:
        self._write(key, self._item(key, value, ttl, content_type))

    set = put

    def add(self, key: Any, value: Any, ttl: Any = None) -> bool:
        item = self._item(key, value, ttl)
        absent = self._find(key) is None
        if absent:
            self._write(key, item)
        return absent

    def replace(self, key: Any, value: Any, ttl: Any = None) -> bool:
        item = self._item(key, value, ttl)
        present = self._find(key) is not None
        if present:
            self._write(key, item)
        return present

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._check_key(key)
        found = self._find(key)
        if found is None:
            self.put(key, default)
        return found.value if found else default

    def change(self, key: Any, function: Callable[[Any], Any], *, ttl: Any = None, **default: Any) -> Any:
        self._check_key(key)
        expires = self._expires(ttl)
        found = self._find(key)
        if not found and not default:
            raise KeyError(key)
        after = function(found.value if found else default["default"])
        self._write(key, Item(after, found.expires if found and ttl is None else expires))
        return after

    def delete(self, key: Any) -> bool:
        present = self._find(key) is not None
        if present:
            del self._kept[key]
        return present

    def content_type(self, key: Any) -> str | None:
        found = self._find(key)
        return found.content_type if found else None

    def incr(self, key: Any, delta: Any = 1, initial: Any = 0, ttl: Any = None) -> int:
        expires = self._expires(ttl)
        self._check_key(key)
        if type(delta) is not int or type(initial) is not int:
            raise TypeError("delta")
        self._check_int64(delta, initial + delta)  # whether or not the key is there
        found = self._find(key)
        before = found.value if found else initial
        if type(before) is not int:
            raise TypeError("value")
        after = before + delta
        self._check_int64(before, after)
        self._write(key, Item(after, found.expires if found else expires))
        return after

    def _check_int64(self, *numbers: int) -> None:
        if any(not -(2**63) <= number < 2**63 for number in numbers):
            raise OverflowError("value")

    def decr(self, key: Any, delta: Any = 1, initial: Any = 0, ttl: Any = None) -> int:
        if type(delta) is not int:
            raise TypeError("delta")
        return self.incr(key, -delta, initial, ttl)

    # ---- Expiry --------------------------------------------------------------------------

    def touch(self, key: Any, ttl: Any) -> bool:
        if ttl is None:
            raise TypeError("ttl")
        return self._set_expiry(key, self._expires(ttl))

    def persist(self, key: Any) -> bool:
        found = self._find(key)
        return found is not None and found.expires is not None and self._set_expiry(key, None)

    def _set_expiry(self, key: Any, expires: int | None) -> bool:
        found = self._find(key)
        if found:
            self._kept[key] = found._replace(expires=expires)
        return found is not None

    def ttl(self, key: Any) -> float | None:
        expires = self._demand(key).expires
        return None if expires is None else (expires - self.now) / 1000

    # ---- Many items ----------------------------------------------------------------------

    def get_many(self, keys: Iterable[Any]) -> dict[Key, Any]:
        found = {key: self._find(key) for key in keys}
        return {key: item.value for key, item in found.items() if item}

    def put_many(self, items: Any, ttl: Any = None) -> None:
        expires = self._expires(ttl)
        pairs = list(items.items() if isinstance(items, Mapping) else items)
        for key, value in pairs:
            self._item(key, value)
        if len(pairs) > BATCH_KEYS or (len(pairs) > 1 and sum(map(_bytes_of, pairs)) > self._size // 4):
            raise BatchTooLargeError("batch")
        for key, value in pairs:
            self._write(key, Item(value, expires))

    def delete_many(self, keys: Iterable[Any]) -> int:
        return sum([self.delete(key) for key in keys])

    def clear(self) -> None:
        self._kept.clear()

    # ---- Walking -------------------------------------------------------------------------

    def scan(self, prefix: Any = None) -> list[Key]:
        if prefix is not None and type(prefix) not in (str, bytes):
            raise TypeError("prefix")
        return [key for key in self if prefix is None or (type(key) is type(prefix) and key.startswith(prefix))]

    def range(self, start: Any = None, stop: Any = None, limit: Any = None, reverse: bool = False) -> list[Any]:
        types = {type(bound) for bound in (start, stop) if bound is not None}
        if len(types) > 1 or not types <= {str, bytes}:
            raise TypeError("bounds")
        if limit is not None and limit < 0:
            raise ValueError("limit")
        chosen = [
            (key, item.value)
            for key, item in self.living().items()
            if (not types or type(key) in types)
            and (start is None or start <= key)  # type: ignore[operator]
            and (stop is None or key < stop)  # type: ignore[operator]
        ]
        return sorted(chosen, key=order, reverse=reverse)[:limit]


def order(pair: tuple[Key, Any]) -> tuple[bytes, bool]:
    key = pair[0]
    return (key, True) if isinstance(key, bytes) else (key.encode(), False)

"""Calls that both a store and the model take, what came of them, and when two outcomes are the same.

A call is a name and arguments, so it can be sent to another process.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from machine.model import Key, order

Mapping = Any  # a Store or a Model


class Outcome(NamedTuple):
    """What a call returned, or the error that it raised."""

    value: Any = None
    error: type[BaseException] | None = None
    message: str = ""

    def __str__(self) -> str:
        return f"{self.error.__name__}: {self.message}" if self.error else repr(self.value)[:300]


SIMPLE = (bytes, str, int, bool, type(None))


def sorted_keys(keys: Any) -> list[Key]:
    return sorted(keys, key=lambda key: order((key, None)))


def pairs(items: Any) -> list[Any]:
    return sorted(items, key=order)


def grown(value: Any) -> list[Any]:
    """For `change`: a list that tells what it was called with, and grows no further than the codec takes."""
    return [*value[-3:], len(value)] if type(value) is list else [value if type(value) in SIMPLE else None]


# What is not a method by its own name: operators, iterators (made lists that can be compared), views.
CALLS: dict[str, Callable[..., Any]] = {
    "getitem": lambda store, key: store[key],
    "setitem": lambda store, key, value: store.__setitem__(key, value),
    "delitem": lambda store, key: store.__delitem__(key),
    "contains": lambda store, key: key in store,
    "len": len,
    "bool": bool,
    "iterate": lambda store: sorted_keys(store),
    "keys": lambda store: sorted_keys(store.keys()),
    "key in view": lambda store, key: key in store.keys(),  # noqa: SIM118
    "items": lambda store: pairs(store.items()),
    "values": lambda store: sorted(map(whole, store.values()), key=repr),
    "item in view": lambda store, key, value: (key, value) in store.items(),
    "value in view": lambda store, value: value in store.values(),
    "scan": lambda store, prefix: sorted_keys(store.scan(prefix)),
    "equals": lambda store, other: store == other,
    "update from pairs": lambda store, items: store.update(iter(items)),
    "update by name": lambda store, items: store.update(**items),
    "put pairs": lambda store, items, ttl: store.put_many(iter(items), ttl=ttl),
    "change": lambda store, key, **named: store.change(key, grown, **named),
    "get iterated": lambda store, keys: store.get_many(iter(keys)),
}


def perform(store: Mapping, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Outcome:
    """Call it; only errors that a call may raise are caught."""
    call = CALLS.get(name)
    try:
        if call:
            return Outcome(call(store, *arguments, **named))
        return Outcome(getattr(store, name)(*arguments, **named))
    except (LookupError, TypeError, ValueError, OverflowError, MemoryError, OSError) as error:
        return Outcome(error=type(error), message=str(error))


def whole(value: Any) -> Any:
    """A form of a value that is equal only for values that are equal and of the same types throughout."""
    kind = type(value)
    if kind is float:
        return "float", struct.pack("d", value)
    if kind in (list, tuple):
        return kind.__name__, [whole(each) for each in value]
    if kind in (set, frozenset):
        return kind.__name__, sorted(map(whole, value), key=repr)
    if kind is dict:
        return "dict", [
            (whole(key), whole(each)) for key, each in sorted(value.items(), key=lambda item: repr(item[0]))
        ]
    if kind is datetime:
        return "datetime", value.isoformat(), value.fold, repr(value.tzinfo)
    return kind.__name__, value


def same(a: Outcome, b: Outcome) -> bool:
    if a.error or b.error:
        return a.error is b.error
    if type(a.value) is type(b.value) and type(a.value) in SIMPLE:
        return bool(a.value == b.value)
    return bool(whole(a.value) == whole(b.value))

"""Sorted spans of keys out of tables that know no order: a walk over all buckets that keeps what it is asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar

Key = str | bytes
Found = TypeVar("Found", bound=tuple[Any, ...])  # what a walk gives of an item; the key comes first


def sorted_items(
    walk: Callable[[int, Key | None, Key | None], tuple[int, list[Found]]],
    buckets: int,
    start: Key | None,
    stop: Key | None,
    limit: int | None,
    reverse: bool,
) -> list[Found]:
    """What `walk` finds with `start <= key < stop`, sorted by the bytes of the keys; of that, the first `limit`.

    Args:
        walk: `_walk_items` or `_walk_records` of a handle.
        buckets: how many the handle's store has.

    With a limit about twice that many items are kept at a time, and the bounds get narrower on the way.
    """
    typed = _check_bounds(start, stop)
    if limit is not None:
        limit = operator.index(limit)
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, not {limit}")
    order = operator.itemgetter(0) if typed else _key_order
    found: list[Found] = []
    bucket = buckets if limit == 0 else 0
    while bucket < buckets:
        bucket, more = walk(bucket, start, stop)
        found += more
        if limit is not None and len(found) > 2 * limit:
            found.sort(key=order, reverse=reverse)
            del found[limit:]
            if typed and reverse:
                start = found[-1][0]  # what is beyond the last one kept cannot be among the first
            elif typed:
                stop = found[-1][0]
    found.sort(key=order, reverse=reverse)
    return found[:limit]


def _check_bounds(start: object, stop: object) -> bool:
    """True if there is a bound; `TypeError` unless they are of one type, str or bytes."""
    bounds = [bound for bound in (start, stop) if bound is not None]
    for bound in bounds:
        if not isinstance(bound, str | bytes):
            raise TypeError(f"a bound is a str or bytes, not {type(bound).__name__}")
    if len(bounds) == 2 and isinstance(start, str) != isinstance(stop, str):
        raise TypeError("start and stop must both be str or both be bytes")
    return bool(bounds)


def _key_order(item: tuple[Any, ...]) -> tuple[bytes, bool]:
    """By the bytes of the key; "a" before b"a".  (Keys of type str alone sort by themselves: the order of
    their code points is that of their UTF-8 bytes.)"""
    key = item[0]
    return (key, True) if isinstance(key, bytes) else (key.encode(), False)

"""Values that tell where they come from, so that a torn, misplaced or lost one shows.

    0        4        8                16
    +--------+--------+----------------+-----------------
    | index  | changes| stamp          | the same 16 bytes again and again
    +--------+--------+----------------+-----------------

`index` is the key's own; `changes` is how often read-modify-write was at it since the last put; `stamp`
is writer << 32 | sequence number, so that each value written in a run is unique.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct("<IIQ")
MIN_SIZE: Final = _HEAD.size


class Head(NamedTuple):
    key_index: int
    changes: int
    stamp: int

    @property
    def writer(self) -> int:
        return self.stamp >> 32

    @property
    def sequence(self) -> int:
        return self.stamp & 0xFFFF_FFFF


def make_value(key_index: int, changes: int, stamp: int, size: int) -> bytes:
    """A value of `size` bytes, at least 16.

    >>> make_value(1, 0, 2, 20).hex()
    '0100000000000000020000000000000001000000'
    """
    head = _HEAD.pack(key_index, changes, stamp)
    return head if size == MIN_SIZE else (head * (size // MIN_SIZE + 1))[:size]


def read_value(value: bytes) -> Head | None:
    """What a value tells; None if it is torn.

    >>> read_value(make_value(7, 3, 9, 100))
    Head(key_index=7, changes=3, stamp=9)
    >>> read_value(make_value(7, 3, 9, 100)[:99] + b"x") is None
    True
    """
    if len(value) < MIN_SIZE:
        return None
    head = Head(*_HEAD.unpack_from(value))
    return head if value == make_value(*head, len(value)) else None

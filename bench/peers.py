"""The peers, behind one protocol: what each holds, and its timed loops.

A timed loop is as bare as it can be: `for key in keys: get(key)`.  It lives with the peer, as the dict's
is a statement where the store's is a call.  All times are nanoseconds for the whole loop; `loops` below
has the empty ones that are subtracted, and the floors.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from time import perf_counter_ns
from typing import Any, Final, Protocol

from shmkv import Store, __version__
from shmkv.workload.keys import KEY_BYTES

LOAD_CHUNK: Final = 1_000  # larger ones leave the cache between the making of a pair and its storing
ENTRY_BYTES: Final = 67  # header, slot at an average load, rounding; so 96 with a key of 13 and a value of 16 bytes
SPARE_BYTES: Final = 16 << 20
LEAST_BYTES: Final = 64 << 20  # a batch of LOAD_CHUNK values of 1 KiB must fit a quarter of the store

Pairs = Sequence[tuple[str, bytes]]


class Peer(Protocol):
    """Something that maps keys to values."""

    name: str
    version: str

    def open(self, keys: int, value_size: int, name: str | None = None) -> str:
        """Make room for `keys`; answers a name that another process can open, where there is one."""

    def load(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        """Take all pairs, in the way that suits best."""

    def close(self) -> None: ...
    def single_get(self) -> Callable[[str], Any]: ...
    def single_put(self) -> Callable[[str, bytes], Any]: ...
    def time_get(self, keys: Sequence[str]) -> int: ...
    def time_put(self, keys: Sequence[str], values: Sequence[bytes]) -> int: ...
    def time_get_many(self, batches: Sequence[Sequence[str]]) -> int: ...
    def time_put_many(self, batches: Sequence[Pairs]) -> int: ...


class DictPeer:
    """A dict of this process: what every Python program has."""

    name = "dict"
    version = platform.python_version()

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def open(self, keys: int, value_size: int, name: str | None = None) -> str:
        self.held = {}
        return ""

    def load(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        self.held = dict(pairs)

    def close(self) -> None: ...

    def single_get(self) -> Callable[[str], Any]:
        return self.held.get

    def single_put(self) -> Callable[[str, bytes], Any]:
        return self.held.__setitem__

    def time_get(self, keys: Sequence[str]) -> int:
        get = self.held.get
        began = perf_counter_ns()
        for key in keys:
            get(key)
        return perf_counter_ns() - began

    def time_put(self, keys: Sequence[str], values: Sequence[bytes]) -> int:
        held = self.held
        began = perf_counter_ns()
        for key, value in zip(keys, values):  # noqa: B905  # strict= costs, and both sides are made alike
            held[key] = value
        return perf_counter_ns() - began

    def time_get_many(self, batches: Sequence[Sequence[str]]) -> int:
        raise NotImplementedError("a dict has no get_many: compare with its get")

    def time_put_many(self, batches: Sequence[Pairs]) -> int:
        update = self.held.update
        began = perf_counter_ns()
        for pairs in batches:
            update(pairs)
        return perf_counter_ns() - began


class StorePeer:
    """A `shmkv.Store`; several processes may hold the same one."""

    name = "shmkv"
    version = __version__

    def __init__(self) -> None:
        self.held: Store | None = None
        self.owner = False

    @property
    def store(self) -> Store:
        assert self.held is not None, "open comes first"
        return self.held

    def open(self, keys: int, value_size: int, name: str | None = None) -> str:
        self.close()
        self.owner = name is None
        if name is None:
            size = keys * (ENTRY_BYTES + KEY_BYTES + value_size * (9 if value_size > 64 else 8) // 8) + SPARE_BYTES
            size = max(size, LEAST_BYTES)
            self.held = Store.create(f"compare.{os.getpid()}.{os.urandom(4).hex()}", size)
        else:
            self.held = Store.attach(name)
        return self.store.name

    def load(self, pairs: Iterable[tuple[str, bytes]]) -> None:
        put_many, rest = self.store.put_many, iter(pairs)
        for first in rest:
            put_many(chain((first,), islice(rest, LOAD_CHUNK - 1)))

    def close(self) -> None:
        if self.held is not None:
            if self.owner:
                self.held.unlink()
            self.held.close()
            self.held = None

    def single_get(self) -> Callable[[str], Any]:
        return self.store.get

    def single_put(self) -> Callable[[str, bytes], Any]:
        return self.store.put

    def time_get(self, keys: Sequence[str]) -> int:
        get = self.store.get
        began = perf_counter_ns()
        for key in keys:
            get(key)
        return perf_counter_ns() - began

    def time_put(self, keys: Sequence[str], values: Sequence[bytes]) -> int:
        put = self.store.put
        began = perf_counter_ns()
        for key, value in zip(keys, values):  # noqa: B905
            put(key, value)
        return perf_counter_ns() - began

    def time_get_many(self, batches: Sequence[Sequence[str]]) -> int:
        get_many = self.store.get_many
        began = perf_counter_ns()
        for keys in batches:
            get_many(keys)
        return perf_counter_ns() - began

    def time_put_many(self, batches: Sequence[Pairs]) -> int:
        put_many = self.store.put_many
        began = perf_counter_ns()
        for pairs in batches:
            put_many(pairs)
        return perf_counter_ns() - began


PEERS: Final[dict[str, type[DictPeer] | type[StorePeer]]] = {"dict": DictPeer, "shmkv": StorePeer}


# ---- Loops that do nothing -----------------------------------------------------------------


def time_empty(keys: Sequence[object]) -> int:
    """The loop of `time_get` and the batch calls, without the call."""
    began = perf_counter_ns()
    for _key in keys:
        pass
    return perf_counter_ns() - began


def time_empty_pairs(keys: Sequence[str], values: Sequence[bytes]) -> int:
    """The loop of `time_put`, without the call."""
    began = perf_counter_ns()
    for _key, _value in zip(keys, values):  # noqa: B905
        pass
    return perf_counter_ns() - began


def time_floor(keys: Sequence[str]) -> int:
    """`time_get` over a method in C that takes a key and does nothing with it."""
    get: Callable[[str], Any] = [""][:0].count  # counts in an empty list
    began = perf_counter_ns()
    for key in keys:
        get(key)
    return perf_counter_ns() - began


def time_floor_pairs(keys: Sequence[str], values: Sequence[bytes]) -> int:
    """`time_put` over a method in C that takes two arguments and does nothing with them."""
    nothing: dict[str, bytes] = {}
    put: Any = nothing.pop  # an empty dict does not even hash the key
    began = perf_counter_ns()
    for key, value in zip(keys, values):  # noqa: B905
        put(key, value)
    return perf_counter_ns() - began

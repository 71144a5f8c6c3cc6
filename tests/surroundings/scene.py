"""What a scene is, what it may need, and how a store is judged after it."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from campaigns.campaign import Figures
from campaigns.growth import nothing_grows
from helpers import MIB, check, sealed, temporary_store, unseal

from shmkv import Store

Need = Callable[[], str]  # "", or what is missing here
Play = Callable[[Path, int], Figures]  # an empty folder, and how many calls about

EXTRA = "surroundings"  # of this project: the packages that scenes use
KEPT = 2 * MIB  # bytes that a store may hold more than before, once all processes of a scene have ended


@dataclass(frozen=True)
class Scene:
    """One surrounding: `play` does about so many calls there, and raises AssertionError for what must not be."""

    name: str
    judged: str
    play: Play
    needs: tuple[Need, ...] = ()
    slow: bool = False  # in a suite that has to be quick

    def missing(self) -> str:
        """Why it cannot be played here; "" if it can."""
        return "; ".join(filter(None, (need() for need in self.needs)))


# ---- What a scene may need -----------------------------------------------------------------------


def root() -> str:
    return "" if os.geteuid() == 0 else "needs root"


def command(name: str, package: str) -> Need:
    return lambda: "" if shutil.which(name) else f"needs {name} (Debian package {package})"


def module(name: str) -> Need:
    return lambda: "" if importlib.util.find_spec(name) else f"needs {name}: pip install 'shmkv[{EXTRA}]'"


def allowed(*prefix: str) -> Need:
    """Does the system let a program run so?"""

    @functools.cache
    def need() -> str:
        if not shutil.which(prefix[0]):
            return f"needs the command {prefix[0]}"
        done = subprocess.run([*prefix, "true"], capture_output=True, text=True, timeout=60, check=False)
        return "" if done.returncode == 0 else f"is not allowed here: {' '.join(prefix[:4])} ({done.stderr.strip()})"

    return need


# ---- What every program does to a store ----------------------------------------------------------

BATCH = [f"batch {number}" for number in range(24)]


def start(store: Store) -> None:
    """What `call` counts on."""
    store.put_many({"calls": 0} | dict.fromkeys(BATCH, 0) | {f"page {number}": b"" for number in range(8)})


def call(store: Store, number: int) -> int:
    """A few calls as a request makes them; whatever is read is judged."""
    counted = store.incr("calls")
    key = f"of {os.getpid()} {threading.get_native_id()} {number % 16}"
    store.put(key, sealed(key, number, 20 + number * 37 % 3_000), ttl=600)
    assert unseal(key, store[key]) == number
    page = f"page {number % 8}"
    store[page] = sealed(page, number, 8_000)
    unseal(page, store[page])
    store.put_many(dict.fromkeys(BATCH, counted))
    assert len(set(store.get_many(BATCH).values())) == 1, "a batch is torn"
    store.delete(key)
    return counted


def judge(store: Store, calls: int, more: int = 0) -> None:
    """So many calls were answered, and `more` may have been done without an answer."""
    assert calls <= store["calls"] <= calls + more, f"{store['calls']} calls counted, not {calls} to {calls + more}"
    assert len(set(store.get_many(BATCH).values())) == 1, "a batch is torn"
    for number in range(8):
        if store[f"page {number}"]:
            unseal(f"page {number}", store[f"page {number}"])
    check(store)


@contextmanager
def stage(**options: object) -> Iterator[Store]:
    """A store for a scene; afterwards nothing of it is left, neither in it nor in this process.

    Pools and their helpers keep descriptors of their own, which are not judged.
    """
    with nothing_grows(32 * MIB, of="shmkv"), temporary_store(**options) as store:
        start(store)
        used = store.stats().used
        yield store
        now = store.stats().used
        assert now <= used + KEPT, f"processes that have ended kept {now - used:,} bytes"

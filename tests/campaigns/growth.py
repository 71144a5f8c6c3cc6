"""What a scene must not leave behind: names, descriptors, mappings, memory."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers import MIB, NAME_PREFIX


def own_memory() -> int:
    """Bytes of this process that it shares with nobody."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def names_left() -> set[str]:
    """Of this process's stores."""
    return {path.name for path in Path("/dev/shm").glob(f"shmkv.*{NAME_PREFIX}-{os.getpid()}-*")}


def descriptors(of: str) -> list[str]:
    """What the descriptors of this process lead to, if `of` is in it."""
    led = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of listdir itself
            led.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(path for path in led if of in path)


def mappings(of: str) -> int:
    return sum(of in line for line in Path("/proc/self/maps").read_text().splitlines())


@contextmanager
def nothing_grows(memory: int = 8 * MIB, of: str = "") -> Iterator[None]:
    """Neither names, descriptors and mappings (of what has `of` in its path), nor more than so many bytes."""

    def held() -> tuple[list[str], int, int]:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # or what malloc keeps for later counts
        return descriptors(of), mappings(of), own_memory()

    names = names_left()
    before = held()
    yield
    assert names_left() <= names, f"left in /dev/shm: {names_left() - names}"
    now = held()
    more = len(now[0]) - len(before[0])
    assert more <= 0, f"{more} descriptors more than before: {now[0]}"
    assert now[1] <= before[1] + (0 if of else 16), f"{now[1] - before[1]} mappings more"  # malloc's come and go
    assert now[2] <= before[2] + memory, f"{(now[2] - before[2]) / MIB:.1f} MiB of memory more than before"

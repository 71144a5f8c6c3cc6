"""What a process did to the files of one folder, in order, and the marks that it set in between."""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from building import PROGRAMS, WARNINGS, compile_c
from helpers import PATIENCE, python_environment

__all__ = ["Event", "Kind", "Recorder", "record"]

SECONDS = 300
HEAD = struct.Struct("<BBBxIQQ")  # struct event of record_disk.c


class Kind(enum.IntEnum):
    """enum kind of record_disk.c."""

    MADE = 1
    WRITTEN = 2
    CUT = 3
    SYNCED = 4
    RENAMED = 5
    REMOVED = 6
    FOLDER_SYNCED = 7
    MARK = 8


class Event(NamedTuple):
    kind: Kind
    file: int  # inode
    at: int  # place or size in bytes; the number of a mark
    name: str
    to: str
    content: bytes


# ---- In the process that is recorded -------------------------------------------------------------


class Recorder:
    """Begins with the next call; the library is preloaded."""

    def __init__(self, folder: str, trace: str) -> None:
        self._library = ctypes.CDLL(None)
        self._library.record_mark.argtypes = [ctypes.c_uint64]
        self._library.record_begin(os.fsencode(folder), os.fsencode(trace))

    def mark(self, number: int) -> None:
        self._library.record_mark(number)


# ---- Outside -----------------------------------------------------------------------------------------


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """As long as this process runs."""
    return tempfile.TemporaryDirectory(prefix="shmkv-outage-")


@functools.cache
def _library() -> Path:
    path = Path(_kept().name) / "record_disk.so"
    compile_c([*WARNINGS, "-O2", "-shared", "-fPIC", str(PROGRAMS / "record_disk.c"), "-o", str(path), "-lpthread"])
    return path


def record(module: str, folder: Path, trace: Path, *arguments: object) -> list[Event]:
    """Run `python -m MODULE FOLDER TRACE ARGUMENTS` to its end; the events."""
    command = [sys.executable, "-m", module, str(folder), str(trace), *map(str, arguments)]
    environment = {**python_environment(), "LD_PRELOAD": str(_library())}
    limit = SECONDS * PATIENCE
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return list(_events(trace.read_bytes()))


def _events(raw: bytes) -> Iterator[Event]:
    at = 0
    while at < len(raw):
        kind, name_len, to_len, length, file, place = HEAD.unpack_from(raw, at)
        at += HEAD.size
        name, to = raw[at : at + name_len].decode(), raw[at + name_len : at + name_len + to_len].decode()
        at += name_len + to_len
        yield Event(Kind(kind), file, place, name, to, raw[at : at + length])
        at += length

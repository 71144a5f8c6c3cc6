"""A folder that replays what was done to it, and may lose its power: core/disk.h, for events.

Of each file, every 512-byte sector that was written since the last sync is there or not, each by itself; its size is
that of the last sync or a later one.  Of the changes of names since the folder was synced, the first few are there, or
some of them: those of one file or of one name in their order, others in any.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .recording import Event, Kind

__all__ = ["Disk"]

SECTOR = 512
CHANCES = (0, 1, 4, 8, 12, 15, 16)  # of 16, that a sector is there: where all, none or some are, other faults hide


class _Change(NamedTuple):
    at: int
    content: bytes | None  # None: cut to `at` bytes


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    safe: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)


class _NameChange(NamedTuple):
    kind: Kind
    name: str
    to: str
    file: int

    def hangs_on(self, earlier: _NameChange) -> bool:
        mine, others = {self.name, self.to} - {""}, {earlier.name, earlier.to}
        return self.file == earlier.file or bool(mine & others)


def _write(file: bytearray, at: int, content: bytes) -> None:
    if at > len(file):
        file.extend(bytes(at - len(file)))
    file[at : at + len(content)] = content


def _rename(names: dict[str, int], change: _NameChange) -> None:
    if change.kind is not Kind.MADE:
        names.pop(change.name, None)
    if change.kind is not Kind.REMOVED:
        names[change.to or change.name] = change.file


class Disk:
    """Begins as `folder` is, all of it safe."""

    def __init__(self, folder: Path) -> None:
        self._files: list[_File] = []
        self._inodes: dict[int, int] = {}  # to its file: the latest with that inode
        self._now: dict[str, int] = {}
        self._safe: dict[str, int] = {}
        self._changes: list[_NameChange] = []
        for path in folder.iterdir():
            content = path.read_bytes()
            self._inodes[path.stat().st_ino] = self._now[path.name] = len(self._files)
            self._files.append(_File(bytearray(content), bytearray(content)))
        self._safe = dict(self._now)

    # ---- Events ----------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        if event.kind is Kind.MADE:
            self._inodes[event.file] = len(self._files)
            self._files.append(_File())
            self._change(_NameChange(event.kind, event.name, "", self._inodes[event.file]))
        elif event.kind in (Kind.RENAMED, Kind.REMOVED):
            self._change(_NameChange(event.kind, event.name, event.to, self._now[event.name]))
        elif event.kind is Kind.FOLDER_SYNCED:
            self._safe = dict(self._now)
            self._changes.clear()
        elif event.file in self._inodes:
            self._apply_to(self._files[self._inodes[event.file]], event)

    def _change(self, change: _NameChange) -> None:
        self._changes.append(change)
        _rename(self._now, change)

    def _apply_to(self, file: _File, event: Event) -> None:
        if event.kind is Kind.WRITTEN:
            _write(file.now, event.at, event.content)
            file.pending.append(_Change(event.at, event.content))
        elif event.kind is Kind.CUT:
            _cut_to(file.now, event.at)
            file.pending.append(_Change(event.at, None))
        elif event.kind is Kind.SYNCED:
            file.safe = bytearray(file.now)
            file.pending.clear()

    # ---- What is there -----------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of all files, as long as there is power."""
        return sum(len(self._files[file].now) for file in self._now.values())

    def name_of(self, inode: int) -> str:
        """Of an event's file; "" if it has none any more."""
        file = self._inodes.get(inode)
        return next((name for name, each in self._now.items() if each == file), "")

    def content(self) -> dict[str, bytes]:
        """Of each file, as long as there is power."""
        return {name: bytes(self._files[file].now) for name, file in self._now.items()}

    @property
    def is_safe(self) -> bool:
        """Nothing would be lost."""
        return not self._changes and not any(self._files[file].pending for file in self._now.values())

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """Of each file what may be left of it."""
        names = dict(self._safe)
        for change in self._kept_changes(rng):
            _rename(names, change)
        return {name: _left(self._files[file], rng) for name, file in names.items()}

    def _kept_changes(self, rng: random.Random) -> list[_NameChange]:
        if rng.random() < 0.5:
            return self._changes[: rng.randrange(len(self._changes) + 1)]
        lost: list[_NameChange] = []
        kept: list[_NameChange] = []
        for change in self._changes:
            is_lost = rng.randrange(3) == 0 or any(change.hangs_on(earlier) for earlier in lost)
            (lost if is_lost else kept).append(change)
        return kept


def _cut_to(file: bytearray, size: int) -> None:
    del file[size:]
    file.extend(bytes(size - len(file)))


def _left(file: _File, rng: random.Random) -> bytes:
    left = bytearray(file.safe)
    chance = rng.choice(CHANCES)
    count = len(file.pending)
    for change in file.pending[: count if rng.randrange(3) else rng.randrange(count + 1)]:
        if change.content is None:
            if rng.randrange(16) < chance and change.at < len(left):
                _cut_to(left, change.at)
            continue
        end = change.at + len(change.content)
        for at in _sectors(change.at, end):
            if rng.randrange(16) < chance:
                _write(left, at, change.content[at - change.at : min(at - at % SECTOR + SECTOR, end) - change.at])
        if rng.randrange(16) < chance and end > len(left):
            _cut_to(left, end)  # the size without the data
    return bytes(left)


def _sectors(start: int, end: int) -> list[int]:
    """Where each begins; the first where the change does."""
    return [start, *range(start - start % SECTOR + SECTOR, end, SECTOR)] if end > start else []

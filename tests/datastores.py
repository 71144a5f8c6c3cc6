"""What the tests of DataStore share: its files, its clock, its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shmkv.datastore as module
from shmkv import DataStore


def moving_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`now(seconds)`: the clock of the wall goes on by so many, or back."""
    offset = 0.0

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(module, "_now_ms", lambda: time.time_ns() // 1_000_000 + int(offset * 1000))
    return move


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that are reached soon."""
    monkeypatch.setattr(module, "SEGMENT", 100_000)
    monkeypatch.setattr(module, "RESERVE", 200_000)
    monkeypatch.setattr(module, "LIMIT", 1_000_000)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def require_exact(data: DataStore, folder: Path) -> None:
    """What it believes of its files is so."""
    assert data._files.taken - module.LOCK_BYTES + (folder / "lock").stat().st_size == total(folder)
    assert data._files.live == sum(place[2] for _, place in data._index.items())

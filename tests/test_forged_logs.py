"""Logs whose checksums are right and whose contents are not: of another version, or made by somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xxhash
from helpers import killed, lose_memory

from shmkv import CorruptStoreError, LayoutVersionError, ShmkvError, Store

HEAD, FRAME_HEAD, OP_HEAD = 64, 40, 24
YEAR = 365 * 86_400


class Log:
    """The bytes of a file of a log (docs/durability.md), to be changed and sealed again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.raw = bytearray(path.read_bytes())

    def frames(self) -> Iterator[int]:
        """Where each begins."""
        at = HEAD
        while self.raw[at : at + 4] == b"skvF":
            yield at
            at += (FRAME_HEAD + self._length(at) + 7) // 8 * 8

    def _length(self, frame: int) -> int:
        return int.from_bytes(self.raw[frame + 8 : frame + 16], "little")

    def seal(self) -> None:
        """New checksums, and the file as it is now."""
        self.raw[56:HEAD] = xxhash.xxh3_64_intdigest(bytes(self.raw[:56])).to_bytes(8, "little")
        salt = xxhash.xxh3_64_intdigest(bytes(self.raw[:56]), 1)
        for frame in list(self.frames()):
            seed = xxhash.xxh3_64_intdigest(bytes(self.raw[frame : frame + 32]), salt)
            body = bytes(self.raw[frame + FRAME_HEAD : frame + FRAME_HEAD + self._length(frame)])
            self.raw[frame + 32 : frame + 40] = xxhash.xxh3_64_intdigest(body, seed).to_bytes(8, "little")
        self._path.write_bytes(self.raw)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A store that was not closed, with one frame for each of three items, and without its memory."""
    path = tmp_path / "store"

    def write() -> Store:
        store = Store.open(path, size="16MiB", sync="always")
        for name in ("first", "second", "third"):
            store.put(name, name.encode(), ttl=YEAR)
        return store

    killed(write)
    lose_memory(path)
    yield path
    if (path / "store.json").exists():
        with pytest.raises(ShmkvError):
            lose_memory(path)  # closed stores leave none


def log_of(folder: Path) -> Log:
    (only,) = folder.glob("*.log")
    return Log(only)


def test_sealed_again_it_is_as_it_was(folder: Path) -> None:
    before = log_of(folder)
    was = bytes(before.raw)
    before.seal()
    assert bytes(before.raw) == was
    assert len(list(before.frames())) == 3
    with Store.open(folder) as store:
        assert set(store) == {"first", "second", "third"}


def file_of_another_version(log: Log) -> None:
    log.raw[8] += 1


def frame_of_another_version(log: Log) -> None:
    log.raw[list(log.frames())[1] + 4] += 1


def log_that_begins_later(log: Log) -> None:
    log.raw[40] += 8


def value_of_an_unknown_type(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD + 1] = 99


def value_with_something_behind_it(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD + 8] -= 1


@pytest.mark.parametrize(
    ("forge", "error", "words"),
    [
        (file_of_another_version, LayoutVersionError, "another version"),
        (frame_of_another_version, LayoutVersionError, "another version"),
        (log_that_begins_later, CorruptStoreError, "does not go on where"),
        (value_of_an_unknown_type, CorruptStoreError, "damaged"),
        (value_with_something_behind_it, CorruptStoreError, "damaged"),
    ],
)
def test_is_refused(folder: Path, forge: Callable[[Log], None], error: type[ShmkvError], words: str) -> None:
    log = log_of(folder)
    forge(log)
    log.seal()
    before = bytes(log.raw)
    for repair in (False, True) if error is LayoutVersionError else (False,):
        with pytest.raises(error, match=words):
            Store.open(folder, repair=repair)
    assert bytes(log_of(folder).raw) == before, "nothing was changed"


def test_an_expiry_beyond_all_is_the_longest(folder: Path) -> None:
    """So far away no store can have put it; it counts as 30 years from now."""
    log = log_of(folder)
    at = list(log.frames())[1] + FRAME_HEAD + 16
    log.raw[at : at + 8] = (1 << 62).to_bytes(8, "little")
    log.seal()
    with Store.open(folder) as store:
        assert 29 * YEAR < (store.ttl("second") or 0) <= 31 * YEAR
        assert (store.ttl("first") or 0) <= YEAR
        assert store.check().ok

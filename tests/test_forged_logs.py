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
INTEGER = 3  # docs/memory-layout.md, types of values


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


def file_without_its_mark(log: Log) -> None:
    log.raw[0] += 1


def file_of_another_number(log: Log) -> None:
    log.raw[32] += 1


def file_of_an_unknown_kind(log: Log) -> None:
    log.raw[12] = 9


def log_that_says_it_is_a_snapshot(log: Log) -> None:
    log.raw[12] = 2


def operation_of_an_unknown_kind(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD] = 9


def key_longer_than_its_frame(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD + 4] = 255


def value_longer_than_its_frame(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD + 15] = 255


def integer_of_six_bytes(log: Log) -> None:
    log.raw[list(log.frames())[1] + FRAME_HEAD + 1] = INTEGER


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
        (file_without_its_mark, CorruptStoreError, "damaged"),
        (file_of_another_number, CorruptStoreError, "damaged"),
        (file_of_an_unknown_kind, CorruptStoreError, "damaged"),
        (log_that_says_it_is_a_snapshot, CorruptStoreError, "damaged"),
        (operation_of_an_unknown_kind, CorruptStoreError, "damaged"),
        (key_longer_than_its_frame, CorruptStoreError, "damaged"),
        (value_longer_than_its_frame, CorruptStoreError, "damaged"),
        (integer_of_six_bytes, CorruptStoreError, "damaged"),
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


# ---- Snapshots -------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(folder: Path) -> Log:
    """The three items are in it, and the log behind it is empty."""
    with Store.open(folder) as store:
        store.snapshot()
    (only,) = folder.glob("*.snapshot")
    return Log(only)


def without_an_end(log: Log) -> None:
    del log.raw[list(log.frames())[-1] :]


@pytest.mark.parametrize(
    ("forge", "error", "words"),
    [
        (file_of_another_version, LayoutVersionError, "another version"),
        (frame_of_another_version, LayoutVersionError, "another version"),
        (file_of_another_number, CorruptStoreError, "damaged"),
        (without_an_end, CorruptStoreError, "no end"),
    ],
)
def test_snapshot_is_refused(
    folder: Path, snapshot: Log, forge: Callable[[Log], None], error: type[ShmkvError], words: str
) -> None:
    forge(snapshot)
    snapshot.seal()
    with pytest.raises(error, match=words):
        Store.open(folder)


# ---- What is large, and what somebody left -------------------------------------------------------------


def test_values_larger_than_what_is_written_at_once(tmp_path: Path) -> None:
    """Read from a log that was not synced, and written to it again before it is gone on with."""
    path = tmp_path / "large"
    values = {"small": b"s", "large": b"l" * (5 << 20), "another": b"a" * 100}

    def write() -> Store:
        store = Store.open(path, size="64MiB", sync="none")
        store.update(values)
        return store

    killed(write)
    lose_memory(path)
    with Store.open(path) as store:
        assert dict(store) == values


def test_a_snapshot_larger_than_what_is_synced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with Store.open(path, size="256MiB", sync="none") as store:
        store.update({f"k{i}": bytes([i]) * (1 << 20) for i in range(100)})
        store.snapshot()
    with Store.open(path) as store:
        assert all(store[f"k{i}"] == bytes([i]) * (1 << 20) for i in range(100))


def test_a_snapshot_that_somebody_left_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "left"
    with Store.open(path, size="16MiB") as store:
        store["a"] = 1
        store.snapshot()
        (newest,) = path.glob("*.snapshot")
        for later in range(1, 4):
            (path / f"{int(newest.stem) + later:020}.snapshot.tmp").write_bytes(b"left")
        store["a"] = 2
        store.snapshot()
    with Store.open(path) as store:
        assert dict(store) == {"a": 2}
        assert not list(path.glob("*.tmp"))

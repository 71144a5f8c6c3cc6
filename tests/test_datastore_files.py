"""`DataStore` and its files: limits, damage, disks that fail, and signals that come in between."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datastores import make_small, moving_clock, require_exact, segments, total
from helpers import Forked, finish, killed, start_python, wait_until

import shmkv.datastore as module
from shmkv import (
    ClosedStoreError,
    CorruptStoreError,
    DataStore,
    LogFailedError,
    MissingKeyError,
    ShmkvError,
    StoreFullError,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def data(folder: Path) -> Iterator[DataStore]:
    with DataStore(folder) as store:
        yield store


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    return moving_clock(monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


# ---- Limits --------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
def test_the_files_never_exceed_the_limit(folder: Path, rng: random.Random) -> None:
    """Records come and go, in a space that is always nearly full; everything is there, before and after opening."""
    model: dict[str, dict[str, Any]] = {}
    most = 0
    refused = 0
    for _ in range(4):
        with DataStore(folder, sync="none") as data:
            assert {key: data.read(key) for key in model} == model
            for step in range(1500):
                key = f"k{rng.randrange(400)}"
                if key in model:
                    data.delete(key)
                    del model[key]
                else:
                    value = {"step": step, "text": "x" * rng.choice([10, 500, 3000, 6000])}
                    try:
                        data.create(key, value)
                        model[key] = value
                    except StoreFullError:
                        refused += 1
                        for victim in rng.sample(sorted(model), 20):
                            data.delete(victim)
                            del model[victim]
                most = max(most, total(folder))
            require_exact(data, folder)
    assert most <= module.LIMIT
    assert most > module.LIMIT * 0.7
    with DataStore(folder) as data:
        assert {key: data.read(key) for key in model} == model
        for key in (f"k{i}" for i in range(400)):
            if key not in model:
                with pytest.raises(MissingKeyError):
                    data.read(key)


def fill(data: DataStore) -> int:
    """How many records of 5,000 characters fit."""
    for count in range(10_000):
        try:
            data.create(f"k{count}", {"text": "x" * 5000})
        except StoreFullError:
            return count
    raise AssertionError("it never fills")


@pytest.mark.usefixtures("small")
def test_what_is_full_is_told_and_can_be_emptied(folder: Path) -> None:
    with DataStore(folder, sync="none") as data:
        count = fill(data)
        assert count * 5000 >= 0.7 * module.LIMIT, "that much is usable"
        assert total(folder) <= module.LIMIT
        with pytest.raises(MissingKeyError):
            data.read(f"k{count}")
        for i in range(count):
            data.delete(f"k{i}")
        assert total(folder) <= module.LIMIT
        for i in range(count):
            data.create(f"l{i}", {"text": "y" * 5000})
    with DataStore(folder) as data:
        for i in range(count):
            assert data.read(f"l{i}") == {"text": "y" * 5000}
            with pytest.raises(MissingKeyError):
                data.read(f"k{i}")


@pytest.mark.usefixtures("small")
def test_what_has_expired_makes_room(folder: Path, now: Callable[[float], None]) -> None:
    with DataStore(folder, sync="none") as data:
        for i in range(130):
            data.create(f"k{i}", {"text": "x" * 5000}, ttl=10)
        now(11)
        for i in range(130):
            data.create(f"l{i}", {"text": "x" * 5000})
        require_exact(data, folder)
    with DataStore(folder) as data:
        for i in range(130):
            assert data.read(f"l{i}")
    now(-11)
    with DataStore(folder) as data:
        alive = 0
        for i in range(130):
            with contextlib.suppress(MissingKeyError):
                data.read(f"k{i}")
                alive += 1
        assert alive < 130, "what was dropped stays away when the clock goes back"


@pytest.mark.usefixtures("small")
def test_what_was_deleted_stays_away(folder: Path, rng: random.Random) -> None:
    """A deletion goes no sooner than what it hides."""
    with DataStore(folder, sync="none") as data:
        for i in range(100):
            data.create(f"old{i}", {"text": "x" * 300})
            data.create(f"keep{i}", {"text": "y" * 1000})
        for i in range(100):
            data.delete(f"old{i}")
    gone = set(range(100))
    for _ in range(6):
        with DataStore(folder, sync="none") as data:
            for i in range(150):
                data.create(f"new{i}", {"text": "z" * 5000})
                data.delete(f"new{i}")
            for i in gone:
                with pytest.raises(MissingKeyError):
                    data.read(f"old{i}")
            for i in range(100):
                assert data.read(f"keep{i}") == {"text": "y" * 1000}
    assert len(segments(folder)) <= 10


@pytest.mark.usefixtures("small")
def test_kills_while_segments_are_emptied(folder: Path, rng: random.Random) -> None:
    with DataStore(folder, sync="none") as data:
        for i in range(100):
            data.create(f"keep{i}", {"i": i, "text": "x" * 5000})
    for _ in range(10):

        def churn() -> None:
            data = DataStore(folder, sync="none")
            for i in range(100_000):
                key = f"c{i % 20}"
                with contextlib.suppress(MissingKeyError):
                    data.delete(key)
                data.create(key, {"i": i, "text": "y" * 3000})

        child = Forked(churn)
        time.sleep(rng.uniform(0.1, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert total(folder) <= module.LIMIT
        with DataStore(folder, sync="none") as data:
            for i in range(100):
                assert data.read(f"keep{i}")["i"] == i
            require_exact(data, folder)


@pytest.mark.usefixtures("small")
def test_a_segment_without_a_record_is_counted_and_goes(folder: Path) -> None:
    with DataStore(folder, sync="none") as data:
        data.create("first", {"n": 1})
        data._rotate()
        data._rotate()
        data.create("last", {"n": 2})
    with DataStore(folder, sync="none") as data:
        require_exact(data, folder)
        for i in range(300):
            data.create(f"c{i}", {"text": "x" * 5000})
            data.delete(f"c{i}")
        require_exact(data, folder)
        assert [int(path.stem) for path in segments(folder)] == data._files.numbers()
    with DataStore(folder) as data:
        assert data.read("first") == {"n": 1}


def test_a_segment_that_was_begun_in_vain_goes(folder: Path) -> None:
    """The power went: of the segment before it more is there than was synced, and it is gone on with."""

    def begin_another() -> None:
        data = DataStore(folder)
        data.create("k", {"n": 1})
        data._rotate()

    killed(begin_another)
    with segments(folder)[0].open("ab") as file:
        file.write(bytes(100))
    with DataStore(folder) as data:
        assert len(segments(folder)) == 1
        require_exact(data, folder)
        assert data.read("k") == {"n": 1}


# ---- Damage after the last sync ------------------------------------------------------------------


def spoil(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(2)
        file.seek(at)
        file.write(bytes(byte ^ 0x55 for byte in old))


@pytest.mark.parametrize("sync", ["interval", "always"])
def test_damage_in_what_a_close_had_synced_is_told(folder: Path, sync: str) -> None:
    """Nothing was written after it, and all the same it is not taken for what a power cut left, and cut off."""
    with DataStore(folder, sync=sync) as data:
        for n in range(500):
            data.create(f"k{n}", {"n": n})
    (path,) = segments(folder)
    size = path.stat().st_size
    for at in (114, size // 2, size - 100):
        spoil(path, at)
        with pytest.raises(CorruptStoreError, match="damaged"):
            DataStore(folder)
        assert path.stat().st_size == size, "nothing was changed"
        spoil(path, at)
    for _ in range(3):
        with DataStore(folder) as data:
            assert len(data.range()) == 500
    assert path.stat().st_size == size, "who changes nothing writes nothing"


def test_damage_in_what_an_idle_store_had_synced_is_told(folder: Path) -> None:
    def work() -> None:
        data = DataStore(folder)
        data.create("k", {"n": 1})
        wait_until(lambda: data._vouched == data._log.end, what="a sync")

    killed(work)
    (path,) = segments(folder)
    spoil(path, 114)
    with pytest.raises(CorruptStoreError, match="damaged"):
        DataStore(folder)


# ---- Signal handlers -----------------------------------------------------------------------------

CHANGES_FOR_EVER = """
import os, signal, sys
from shmkv import DataStore, ShmkvError

data, how = DataStore(sys.argv[1]), sys.argv[2]

def on_signal(*_):
    if how == "create":
        try:
            data.create("from the handler", {})
        except ShmkvError as error:
            assert "middle of another change" in str(error), error
    data.close()
    if how == "exit":
        os._exit(0)
    sys.exit(0)

signal.signal(signal.SIGTERM, on_signal)
print("ready", flush=True)
n = 0
while True:
    data.create(f"k{n}", {"n": n})
    n += 1
"""


@pytest.mark.parametrize("how", ["exit", "raise", "create"])
def test_closed_by_a_signal_handler(folder: Path, how: str, rng: random.Random) -> None:
    """As services do it on SIGTERM, which comes into the middle of a change as often as not."""
    for turn in range(8):
        process = start_python(CHANGES_FOR_EVER, str(folder / f"{turn}"), how)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.random() / 20)
        process.send_signal(signal.SIGTERM)
        _, err, status = finish(process, 20)
        assert (status, err) == (0, "")
        with DataStore(folder / f"{turn}") as data:
            found = {key: value["n"] for key, value in data.range() if key != "from the handler"}
            assert found == {f"k{n}": n for n in range(len(found))}


def test_a_change_in_the_middle_of_a_change_is_refused(folder: Path) -> None:
    with DataStore(folder) as data:
        with data._change(), pytest.raises(ShmkvError, match="middle of another change"):
            data.create("k", {})
        data.create("k", {})
        with data._change():
            data.close()
            assert not data._finished
        assert data._finished
        with pytest.raises(ClosedStoreError), data:
            pass


# ---- A disk that fails -----------------------------------------------------------------------


class Failing:
    """A log, of which one call fails, always or one time in ten."""

    def __init__(self, log: Any, call: str, error: int, rng: random.Random | None = None) -> None:
        self._log, self._call, self._error, self._rng = log, call, error, rng

    def __getattr__(self, name: str) -> Any:
        if name != self._call or (self._rng and self._rng.random() > 0.1):
            return getattr(self._log, name)

        def fail(*_: object) -> None:
            raise OSError(self._error, os.strerror(self._error))

        return fail


def test_a_full_disk_changes_nothing(data: DataStore) -> None:
    data.create("k", {"n": 1})
    log = data._log
    data._log = Failing(log, "append", errno.ENOSPC)  # type: ignore[assignment]
    with pytest.raises(StoreFullError, match="disk is full"):
        data.create("l", {})
    with pytest.raises(StoreFullError, match="disk is full"):
        data.delete("k")
    data._log = log
    assert data.read("k") == {"n": 1}
    data.create("l", {})


@pytest.mark.parametrize("call", ["append", "sync"])
def test_a_disk_that_fails_is_told(folder: Path, call: str) -> None:
    with DataStore(folder, sync="always") as data:
        data.create("k", {"n": 1})
        log = data._log
        data._log = Failing(log, call, errno.EIO)  # type: ignore[assignment]
        with pytest.raises(LogFailedError) as caught:
            data.create("l", {})
        assert caught.value.errno == errno.EIO
        assert caught.value.filename == str(folder)
        data._log = log
        assert data.read("k") == {"n": 1}


@pytest.mark.usefixtures("small")
def test_a_disk_that_is_full_now_and_then_loses_nothing(folder: Path, rng: random.Random) -> None:
    """Appending fails at random, also while a segment is gathered: what could not be moved stays where it is."""
    model: dict[str, dict[str, Any]] = {}
    refused = 0
    with DataStore(folder, sync="none") as data:
        log = data._log
        for step in range(3000):
            data._log = Failing(log, "append", errno.ENOSPC, rng) if step % 2 else log  # type: ignore[assignment]
            key = f"k{rng.randrange(150)}"
            value = {"step": step, "text": "x" * rng.choice([10, 3000, 6000])}
            try:
                if key in model:
                    data.delete(key)
                    del model[key]
                else:
                    data.create(key, value)
                    model[key] = value
            except StoreFullError:
                refused += 1
        data._log = log
        assert refused > 50
        assert {each: data.read(each) for each in model} == model
        require_exact(data, folder)
    with DataStore(folder) as data:
        assert {each: data.read(each) for each in model} == model


def gather_until(data: DataStore, condition: Callable[[], bool]) -> None:
    for _ in range(30):
        if condition():
            return
        data._gather(1000)
    raise AssertionError("it goes on for ever")


@pytest.mark.usefixtures("small")
def test_a_segment_whose_name_comes_back_with_what_has_expired(
    folder: Path, monkeypatch: pytest.MonkeyPatch, now: Callable[[float], None]
) -> None:
    """A power cut may take the removal of a name back; what was dropped instead of moved is in it."""
    monkeypatch.setattr(module, "SEGMENT", 5_000)
    with DataStore(folder, sync="none") as data:
        for i in range(20):
            data.create(f"k{i}", {"text": "x" * 1000}, ttl=None if i else 10)
        first = segments(folder)[0]
        kept = first.read_bytes()
        now(20)
        gather_until(data, lambda: not first.exists())
    first.write_bytes(kept)
    with DataStore(folder, sync="none") as data:
        gather_until(data, lambda: not first.exists())
        assert {key for key, _ in data.range()} == {f"k{i}" for i in range(1, 20)}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("gone", [True, False])
def test_a_segment_whose_removal_fails_goes_later(folder: Path, monkeypatch: pytest.MonkeyPatch, *, gone: bool) -> None:
    """Its name may be gone or not, and what is in it is expected to be there no more."""
    monkeypatch.setattr(module, "SEGMENT", 5_000)
    with DataStore(folder, sync="none") as data:
        for i in range(20):
            data.create(f"k{i}", {"text": "x" * 1000})
        first = segments(folder)[0]
        log = data._log
        data._log = Failing(log, "remove", errno.EIO)  # type: ignore[assignment]
        with pytest.raises(LogFailedError):
            gather_until(data, lambda: False)
        data._log = log
        if gone:
            first.unlink()
        gather_until(data, lambda: not first.exists() and first.name != f"{data._files.oldest():020}.log")
        assert {f"k{i}" for i in range(20)} == {key for key, _ in data.range()}
        require_exact(data, folder)
    with DataStore(folder) as data:
        assert len(data.range()) == 20


# ---- Damage --------------------------------------------------------------------------------


def test_a_damaged_record_is_told_when_it_is_read(data: DataStore, folder: Path) -> None:
    data.create("k", {"text": "x" * 100})
    (path,) = segments(folder)
    with path.open("r+b") as file:
        file.seek(150)
        file.write(b"?")
    with pytest.raises(CorruptStoreError, match=path.name):
        data.read("k")


def test_a_segment_that_goes_missing_is_told(data: DataStore, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not looked for again and again, as one that was gathered would be."""
    monkeypatch.setattr(module, "SEGMENT", 500)
    for i in range(10):
        data.create(f"k{i}", {"text": "x" * 100})
    segments(folder)[0].unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        data.read("k0")
    assert data.read("k9") == {"text": "x" * 100}


def test_damage_is_told_when_it_is_opened(folder: Path) -> None:
    with DataStore(folder, sync="always") as data:
        for i in range(20):
            data.create(f"k{i}", {"text": "x" * 100})
    (path,) = segments(folder)
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    before = path.read_bytes()
    with pytest.raises(CorruptStoreError, match=path.name) as caught:
        DataStore(folder)
    assert "at byte" in str(caught.value)
    assert path.read_bytes() == before, "nothing was changed"
    with pytest.raises(CorruptStoreError):
        DataStore(folder)


def test_a_torn_end_is_cut_off(folder: Path) -> None:
    with DataStore(folder) as data:
        data.create("k", {})
    (path,) = segments(folder)
    with path.open("ab") as file:
        file.write(b"half of something")
    with DataStore(folder) as data:
        assert data.read("k") == {}
        data.create("l", {"n": 1})
    with DataStore(folder) as data:
        assert data.read("l") == {"n": 1}


def test_a_missing_segment_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT", 2000)
    with DataStore(folder) as data:
        for i in range(60):
            data.create(f"k{i}", {"text": "x" * 100})
    files = segments(folder)
    assert len(files) > 3
    files[1].unlink()
    with pytest.raises(CorruptStoreError, match="missing"):
        DataStore(folder)


@pytest.mark.usefixtures("small")
def test_a_segment_that_is_missing_at_the_old_end_is_told(folder: Path) -> None:
    """Which of them were removed by the store itself is in the log."""
    with DataStore(folder, sync="none") as data:
        for i in range(60):
            data.create(f"keep{i}", {"text": "x" * 5000})
        oldest = segments(folder)[0]
        for i in range(400):
            data.create(f"c{i}", {"text": "x" * 5000})
            data.delete(f"c{i}")
    files = segments(folder)
    assert files[0] > oldest, "none was removed"
    DataStore(folder).close()
    for path in files[:3]:
        path.unlink()
        with pytest.raises(CorruptStoreError, match=f"{files[0].name} is missing"):
            DataStore(folder)

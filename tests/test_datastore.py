"""`DataStore`: its calls and their errors, what survives, who may open it, and its limits."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Forked, finish, in_fork, killed, run_python, start_python, wait_until

import shmkv.datastore as module
from shmkv import (
    ClosedStoreError,
    CorruptStoreError,
    DataStore,
    DuplicateKeyError,
    ForkedError,
    InvalidKeyError,
    InvalidTTLError,
    InvalidValueError,
    LogFailedError,
    MissingKeyError,
    ShmkvError,
    StoreFullError,
    StoreLockedError,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def data(folder: Path) -> Iterator[DataStore]:
    with DataStore(folder) as store:
        yield store


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """`now(seconds)`: the clock of the wall goes on by so many, or back."""
    offset = 0.0

    def move(seconds: float) -> None:
        nonlocal offset
        offset += seconds

    monkeypatch.setattr(module, "_now_ms", lambda: time.time_ns() // 1_000_000 + int(offset * 1000))
    return move


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
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


# ---- The three calls -----------------------------------------------------------------------

VALUES: list[dict[str, Any]] = [
    {},
    {"a": None, "b": True, "c": False, "d": 0, "e": -1.5, "f": "", "g": [], "h": {}},
    {"deep": [[[{"x": [1, [2]]}]]]},
    {"": "empty key", "äöü": "日本語 🎉", "\x00": "\x1f\u2028"},
    {"big": 2**200, "small": 5e-324, "large": 1.7976931348623157e308, "one": 1.0},
]


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_comes_back_equal_and_of_the_same_types(data: DataStore, value: dict[str, Any]) -> None:
    data.create("k", value)
    got = data.read("k")
    assert got == value
    assert json.dumps(got) == json.dumps(value), "1 and 1.0, True and 1 are told apart"


def test_what_is_read_is_a_copy(data: DataStore) -> None:
    value = {"list": [1]}
    data.create("k", value)
    value["list"].append(2)
    data.read("k")["list"].append(3)
    assert data.read("k") == {"list": [1]}


def test_create_does_not_replace(data: DataStore) -> None:
    data.create("k", {"n": 1})
    with pytest.raises(DuplicateKeyError, match="'k'"):
        data.create("k", {"n": 2})
    assert data.read("k") == {"n": 1}
    data.delete("k")
    data.create("k", {"n": 2})
    assert data.read("k") == {"n": 2}


def test_a_missing_key(data: DataStore) -> None:
    for call in (data.read, data.delete):
        with pytest.raises(MissingKeyError, match="nobody"):
            call("nobody")
        with pytest.raises(KeyError):
            call("nobody")
    data.create("k", {})
    data.delete("k")
    for call in (data.read, data.delete):
        with pytest.raises(MissingKeyError):
            call("k")


# ---- Keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a", " ", "x" * 32, "ß" * 32, "日" * 32, "🎉" * 32, "\x00", "a/b\n", "\u0301"])
def test_keys_that_are_taken(data: DataStore, key: str) -> None:
    data.create(key, {"key": key})
    assert data.read(key) == {"key": key}
    data.delete(key)


@pytest.mark.parametrize("key", ["", "x" * 33, "日" * 33, "🎉" * 33, "\ud800", b"k", 5, None, ("k",)], ids=ascii)
def test_keys_that_are_refused(data: DataStore, folder: Path, key: Any) -> None:
    before = total(folder)
    for call in (data.read, data.delete, lambda k: data.create(k, {})):
        with pytest.raises(InvalidKeyError):
            call(key)
    assert total(folder) == before


# ---- Values --------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"d": value}
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {"list": []}
    value["list"].append(value)
    return value


def bushy() -> dict[str, Any]:
    """A list that holds itself many times over: each level is many times the one before."""
    inner: list[Any] = []
    inner += [inner] * 50
    return {"x": inner}


class Text(str):
    pass


REFUSED: dict[str, Any] = {
    "None": None,
    "list": [1],
    "str": "{}",
    "NaN": {"x": float("nan")},
    "infinity": {"x": [float("inf")]},
    "int key": {"x": {1: 2}},
    "None key": {None: 1},
    "key of a subclass": {Text("a"): 1},
    "bytes": {"x": b"y"},
    "tuple": {"x": (1, 2)},
    "set": {"x": {1}},
    "object": {"x": object()},
    "str of a subclass": {"x": Text("a")},
    "surrogate": {"x": "\ud800"},
    "surrogate in a key": {"\udfff": 1},
    "cycle": cyclic(),
    "bushy cycle": bushy(),
    "deep": nested(10_000),
    "one level too deep": nested(201),
    "digits": {"x": 10**5000},
}


@pytest.mark.parametrize("name", REFUSED)
def test_values_that_are_refused(data: DataStore, folder: Path, name: str) -> None:
    before = total(folder)
    with pytest.raises(InvalidValueError):
        data.create("k", REFUSED[name])
    with pytest.raises(MissingKeyError):
        data.read("k")
    assert total(folder) == before


def test_depth(data: DataStore) -> None:
    data.create("k", nested(200))
    assert data.read("k") == nested(200)


@pytest.mark.parametrize("character", ["x", "ü", "日", "🎉"])
def test_the_limit_counts_encoded_bytes(data: DataStore, character: str) -> None:
    width = len(character.encode())
    room = 16_384 - len('{"k":""}')
    text = character * (room // width)
    text += "x" * (room - len(text.encode()))
    data.create("fits", {"k": text})
    assert data.read("fits") == {"k": text}
    with pytest.raises(InvalidValueError, match="16,385"):
        data.create("k", {"k": text + "x"})


# ---- Time to live --------------------------------------------------------------------------


def test_it_expires(data: DataStore, now: Callable[[float], None]) -> None:
    data.create("k", {"n": 1}, ttl=10)
    now(9.5)
    assert data.read("k") == {"n": 1}
    now(1)
    for call in (data.read, data.delete):
        with pytest.raises(MissingKeyError):
            call("k")
    data.create("k", {"n": 2})
    now(1000)
    assert data.read("k") == {"n": 2}


def test_a_ttl_survives_closing(folder: Path, now: Callable[[float], None]) -> None:
    with DataStore(folder) as data:
        data.create("short", {}, ttl=10)
        data.create("long", {}, ttl=100)
        data.create("for ever", {})
    now(50)
    with DataStore(folder) as data:
        with pytest.raises(MissingKeyError):
            data.read("short")
        assert data.read("long") == {}
        now(60)
        with pytest.raises(MissingKeyError):
            data.read("long")
        assert data.read("for ever") == {}
        data.create("short", {"again": 1})
    with DataStore(folder) as data:
        assert data.read("short") == {"again": 1}


@pytest.mark.parametrize("ttl", [0, -1, 10**11, 1.0, 0.5, "1", True, b"1", [1], float("nan")])
def test_ttls_that_are_refused(data: DataStore, ttl: Any) -> None:
    with pytest.raises(InvalidTTLError):
        data.create("k", {}, ttl=ttl)
    with pytest.raises(MissingKeyError):
        data.read("k")


# ---- Opening and closing -------------------------------------------------------------------


def test_errors_have_one_root() -> None:
    for error in (DuplicateKeyError, MissingKeyError, InvalidKeyError, InvalidValueError, InvalidTTLError):
        assert issubclass(error, ShmkvError)
    assert issubclass(MissingKeyError, KeyError)
    for error in (InvalidKeyError, InvalidValueError, InvalidTTLError):
        assert issubclass(error, ValueError)


def test_a_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    with DataStore(path) as data:
        assert data.path == path
        assert path.is_dir()
    with DataStore(str(path)) as data:
        assert data.path == path


def test_a_reasonable_place_is_taken_and_told(tmp_path: Path) -> None:
    out = run_python(
        "import os, sys; os.environ['XDG_DATA_HOME'] = sys.argv[1]\n"
        "from shmkv import DataStore\n"
        "with DataStore() as data: data.create('k', {}); print(data.path)",
        str(tmp_path),
    )
    path = Path(out.strip())
    assert path.is_relative_to(tmp_path)
    with DataStore(path) as data:
        assert data.read("k") == {}


def test_its_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with DataStore("data") as data:
        monkeypatch.chdir("/")
        assert data.path == tmp_path / "data"
        assert data.path.stat().st_mode & 0o077 == 0, "nobody else may remove its files"
        for wrong in ((0,), (None, 7), (b"a",)):
            with pytest.raises(TypeError, match="str or None"):
                data.range(*wrong)  # type: ignore[arg-type]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(NotADirectoryError, match="this is a file"):
        DataStore(path)
    assert path.read_text() == "mine"


def test_after_close(folder: Path) -> None:
    data = DataStore(folder)
    data.create("k", {})
    data.close()
    data.close()
    for call in (lambda: data.read("k"), lambda: data.delete("k"), lambda: data.create("l", {})):
        with pytest.raises(ClosedStoreError):
            call()


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_all_is_there_again(folder: Path, sync: str, rng: random.Random) -> None:
    model: dict[str, dict[str, Any]] = {}
    for _ in range(4):
        with DataStore(folder, sync=sync) as data:
            for key in model:
                assert data.read(key) == model[key]
            for _ in range(150):
                key = f"k{rng.randrange(60)}"
                if key in model:
                    data.delete(key)
                    del model[key]
                else:
                    model[key] = {"n": rng.random(), "text": "x" * rng.randrange(2000)}
                    data.create(key, model[key])
            for key in (f"k{i}" for i in range(60)):
                with contextlib.nullcontext() if key in model else pytest.raises(MissingKeyError):
                    assert data.read(key) == model[key]
            require_exact(data, folder)


@pytest.mark.parametrize("sync", ["", "sometimes", None, True])
def test_a_sync_that_is_none(folder: Path, sync: Any) -> None:
    with pytest.raises(ValueError, match="interval"):
        DataStore(folder, sync=sync)


# ---- One process at a time -----------------------------------------------------------------


def test_a_second_one_in_this_process(data: DataStore, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    for path in (folder, tmp_path / "link", folder / ".." / "data"):
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            DataStore(path)
    data.create("k", {})
    assert data.read("k") == {}


def test_a_second_process(data: DataStore, folder: Path) -> None:
    def attempt() -> str:
        try:
            DataStore(folder)
        except StoreLockedError as error:
            return str(error)
        return "it was opened"

    assert f"pid {os.getpid()}" in in_fork(attempt)
    data.close()
    assert in_fork(attempt) == "it was opened"


def test_a_forked_child(data: DataStore) -> None:
    data.create("k", {})

    def attempt() -> list[str]:
        told = []
        for call in (lambda: data.read("k"), lambda: data.delete("k"), lambda: data.create("l", {})):
            try:
                call()
            except ForkedError as error:
                told.append(str(error))
        data.close()
        return told

    told = in_fork(attempt)
    assert len(told) == 3
    assert all(str(os.getpid()) in sentence for sentence in told)
    assert data.read("k") == {}


def test_a_child_that_lives_on_does_not_keep_it(folder: Path) -> None:
    """The claim is given back when its process is killed, whoever inherited its descriptors."""
    holder = start_python(
        "import os, sys, time\n"
        "from shmkv import DataStore\n"
        "data = DataStore(sys.argv[1])\n"
        "data.create('k', {})\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60); os._exit(0)\n"
        "print(child, flush=True)\n"
        "time.sleep(60)",
        str(folder),
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(StoreLockedError, match=str(holder.pid)):
            DataStore(folder)
        holder.kill()
        holder.wait()
        with DataStore(folder) as data:
            assert data.read("k") == {}
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.wait()


def test_kills_lose_nothing(folder: Path, rng: random.Random) -> None:
    """Whatever a call had returned from is there, and the next process needs no step by hand."""
    acknowledged = 0
    for _ in range(12):
        reader, writer = os.pipe()

        def work(first: int = acknowledged, out: int = writer) -> None:
            data = DataStore(folder, sync="none")
            for i in range(first, first + 100_000):
                data.create(f"k{i}", {"i": i, "text": "x" * (i % 500)})
                os.write(out, b".")

        child = Forked(work)
        os.close(writer)
        wanted = rng.randrange(1, 400)
        seen = 0
        while seen < wanted:
            got = len(os.read(reader, 4096))
            assert got, child.result()
            seen += got
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        while got := len(os.read(reader, 4096)):
            seen += got
        os.close(reader)
        acknowledged += seen
        with DataStore(folder) as data:
            for i in range(acknowledged):
                assert data.read(f"k{i}")["i"] == i
            # The one that was going on may be there.
            with contextlib.suppress(MissingKeyError):
                data.read(f"k{acknowledged}")
                acknowledged += 1
            with pytest.raises(MissingKeyError):
                data.read(f"k{acknowledged}")


# ---- Threads -------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_many_threads(folder: Path, sync: str) -> None:
    """Of those who create or delete one key at the same time, one does."""
    threads, keys = 8, 60
    with DataStore(folder, sync=sync) as data:
        created: list[str] = []
        deleted: list[str] = []

        def work(number: int) -> None:
            for i in range(keys):
                with contextlib.suppress(DuplicateKeyError):
                    data.create(f"k{i}", {"by": number})
                    created.append(f"k{i}")
                assert "by" in data.read(f"k{i}")

        def remove() -> None:
            for i in range(keys):
                with contextlib.suppress(MissingKeyError):
                    data.delete(f"k{i}")
                    deleted.append(f"k{i}")

        for target, arguments in ((work, [(n,) for n in range(threads)]), (remove, [()] * threads)):
            running = [threading.Thread(target=target, args=each) for each in arguments]  # type: ignore[arg-type]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join()
        assert sorted(created) == sorted(deleted) == sorted(f"k{i}" for i in range(keys))


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

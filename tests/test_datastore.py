"""`DataStore`: its calls and their errors, what survives, who may open it, and its limits."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datastores import make_small, moving_clock, require_exact, total
from helpers import Forked, in_fork, run_python, start_python

from shmkv import (
    ClosedStoreError,
    DataStore,
    DuplicateKeyError,
    ForkedError,
    InvalidKeyError,
    InvalidTTLError,
    InvalidValueError,
    MissingKeyError,
    ShmkvError,
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
    return moving_clock(monkeypatch)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


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

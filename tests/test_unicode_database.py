"""The main job on real input: the Unicode character database that ships with Python.

Every named character is written to a file (code point -> name; category; numeric value; decomposition),
loaded by `shmkv import` with four threads, read back and compared, all of it, by four worker processes
that attach by name, while a fifth updates; `scan` and `range` are compared with a sorted list.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from helpers import check, killed, lose_memory
from test_cli import run_cli

from shmkv import DataStore, Store

pytestmark = pytest.mark.slow

READERS = 4
UPDATED = 500  # keys of the updating process, besides the characters that it puts again
ROUNDS = 3  # times that each reader reads everything of its share


def database() -> dict[str, str]:
    """Code point in hexadecimal -> what is known of the character, of all that have a name."""
    pairs = {}
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        name = unicodedata.name(character, "")
        if name:
            numeric = unicodedata.numeric(character, None)
            parts = (name, unicodedata.category(character), "" if numeric is None else repr(numeric))
            pairs[f"{point:04X}"] = ";".join((*parts, unicodedata.decomposition(character)))
    return pairs


@pytest.fixture(scope="module")
def pairs() -> dict[str, str]:
    return database()


@pytest.fixture
def loaded(name: str, pairs: dict[str, str], tmp_path: Path) -> Store:
    """The database in a store, by the command."""
    path = tmp_path / "unicode.tsv"
    path.write_text("".join(f"{key}\t{value}\n" for key, value in pairs.items()), encoding="utf-8")
    words = ("import", str(path), "--store", name, "--size", "64MiB", "--threads", "4", "--json")
    out, err, status = run_cli(*words)
    assert status == 0, err
    told = json.loads(out)
    assert (told["pairs"], told["malformed_count"], told["bytes"]) == (len(pairs), 0, path.stat().st_size)
    return Store.attach(name)


# ---- Worker processes ------------------------------------------------------------------------


def read_back(name: str, share: int) -> int:
    """Compare a quarter of the database, key by key and in batches; how many characters it were."""
    expected = sorted(database().items())[share::READERS]
    with Store.attach(name) as store:
        for _ in range(ROUNDS):
            for key, value in expected:
                assert store[key] == value, key
            for begin in range(0, len(expected), 1_000):
                part = dict(expected[begin : begin + 1_000])
                assert store.get_many(part) == part
            seen = store.get_many([f"seen:{i}" for i in range(UPDATED)])
            assert len(set(seen.values())) <= 1, "a batch is seen whole"
    return len(expected)


def update(name: str, ready: Event, stop: Event) -> tuple[int, int]:
    """Write until told to stop: batches of keys of its own, counters, and characters anew, as they are."""
    characters = list(database().items())
    rounds = put = 0
    with Store.attach(name) as store:
        while not stop.is_set():
            rounds += 1
            store.put_many({f"seen:{i}": rounds for i in range(UPDATED)})
            store.incr("updates")
            for key, value in characters[rounds * 997 % len(characters) :][:1_000]:
                store[key] = value
                put += 1
            store[f"gone:{rounds}"] = "x" * (rounds % 2_000)
            del store[f"gone:{rounds}"]
            ready.set()
    return rounds, put


# ---- The job ---------------------------------------------------------------------------------


def test_read_back_by_four_processes_while_a_fifth_updates(loaded: Store, pairs: dict[str, str]) -> None:
    assert len(pairs) > 130_000
    context = get_context("spawn")
    with context.Manager() as manager, context.Pool(READERS + 1) as pool:
        ready, stop = manager.Event(), manager.Event()
        updating = pool.apply_async(update, (loaded.name, ready, stop))
        assert ready.wait(60)
        try:
            reading = [pool.apply_async(read_back, (loaded.name, share)) for share in range(READERS)]
            assert sum(result.get(100) for result in reading) == len(pairs)
            compare_order(loaded, pairs)
        finally:
            stop.set()
        rounds, put = updating.get(60)
    assert loaded["updates"] == rounds > 0
    assert put > 0
    assert loaded.get_many(f"seen:{i}" for i in range(UPDATED)) == {f"seen:{i}": rounds for i in range(UPDATED)}
    for i in range(UPDATED):
        del loaded[f"seen:{i}"]
    del loaded["updates"]
    assert dict(loaded) == pairs
    check(loaded)
    loaded.close()


def compare_order(store: Store, pairs: dict[str, str]) -> None:
    """`scan` and `range` against a sorted list, also while somebody writes."""
    ordered = sorted(pairs.items(), key=lambda pair: pair[0].encode())
    for prefix in ("1F6", "00", "AC", "1F600", "no such prefix"):
        found = list(store.scan(prefix))
        assert len(found) == len(set(found))
        assert sorted(found) == [key for key, _ in ordered if key.startswith(prefix)]
    for start, stop in (("0041", "005B"), ("1F600", "1F650"), ("E", "F"), ("2", "1")):
        expected = [pair for pair in ordered if start <= pair[0] < stop]
        assert store.range(start, stop) == expected
        assert store.range(start, stop, reverse=True) == expected[::-1]
        assert store.range(start, stop, limit=7) == expected[:7]
        assert store.range(start, stop, limit=7, reverse=True) == expected[::-1][:7]
    assert store.range(None, "G") == ordered
    assert {key for key in store if isinstance(key, str) and key < "G"} == pairs.keys()


def test_what_is_in_it(loaded: Store) -> None:
    assert loaded["0041"] == "LATIN CAPITAL LETTER A;Lu;;"
    assert loaded["00BD"] == "VULGAR FRACTION ONE HALF;No;0.5;<fraction> 0031 2044 0032"
    assert loaded["1F600"] == "GRINNING FACE;So;;"
    assert "D800" not in loaded
    loaded.close()


# ---- On disk ---------------------------------------------------------------------------------


def test_the_database_survives_a_kill_of_everything(pairs: dict[str, str], tmp_path: Path) -> None:
    """In a durable store: written by a process that is killed, its memory lost, filled from disk, compared."""
    path = tmp_path / "unicode"
    items = list(pairs.items())

    def write(half: list[tuple[str, str]], with_snapshot: bool) -> Store:
        store = Store.open(path, size="64MiB")
        for begin in range(0, len(half), 500):
            store.put_many(half[begin : begin + 500])
        for key, value in half[:2000]:
            store[key] = value
        if with_snapshot:
            store.snapshot()
        return store  # so that it is open when the kill comes

    for first, half in ((True, items[: len(items) // 2]), (False, items[len(items) // 2 :])):
        killed(partial(write, half, first))
        lose_memory(path)
    with Store.open(path) as store:
        assert dict(store) == pairs
        assert store.check().ok


def test_the_database_in_a_datastore(pairs: dict[str, str], tmp_path: Path) -> None:
    """As JSON, in files of one process: written, killed, opened again, compared."""
    path = tmp_path / "unicode"

    def write() -> DataStore:
        data = DataStore(path)
        for key, value in pairs.items():
            data.create(key, record_of(value))
        return data

    killed(write)
    with DataStore(path) as data:
        for key, value in pairs.items():
            assert data.read(key) == record_of(value)


def record_of(value: str) -> dict[str, object]:
    """A character as a JSON object."""
    name, category, numeric, decomposition = value.split(";")
    return {
        "name": name,
        "category": category,
        "numeric": float(numeric) if numeric else None,
        "decomposition": decomposition.split(),
    }

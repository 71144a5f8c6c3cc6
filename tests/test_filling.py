"""Who fills a store, and how full it is: the same numbers from the module, the command and the server."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
from helpers import fill_up, temporary_store, wait_until
from serving import serving
from shell import Shell, run

from shmkv import Store, filling
from shmkv.exposition import stats_of
from shmkv.filling import Prefixes, fill_of

pytestmark = pytest.mark.slow


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(filling).failed == 0


def test_prefixes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST_PREFIXES", 3)
    shares = Prefixes()
    for n in range(10):
        shares.add(f"p{n}:x", 1, 5.0 if n == 7 else None)
    told = shares.told(2)
    assert [row.get("prefix") for row in told] == ["p0:", "p1:", None]
    assert told[-1] == {"prefix": None, "which": "others", "items": 8, "bytes": 8 * 5, "expiring": 1, "next_ttl": 5.0}


def fill(store: Store) -> None:
    store.put("user:1", "x" * 100, ttl=500)
    store.put("user:2", "x" * 10)
    store.put("page/a", {"a": 1})
    store.put(b"raw:\xff", b"12345")
    store.put("ключ:1", b"")
    store.put("plain", 1)


def test_the_largest_keys(shell: Shell) -> None:
    fill(shell.store)
    told = shell("keys", "--largest", "2")
    assert (told.err, told.status) == ("", 0)
    assert told.lines[0].split() == ["type", "bytes", "expires", "in"]
    assert told.lines[1].split()[:2] == ["str", "100"]
    assert told.lines[1].endswith("  user:1")
    assert len(told.lines) == 3
    rows = [json.loads(line) for line in shell("keys", "--largest", "100", "--json").lines]
    assert [row["bytes"] for row in rows] == sorted((row["bytes"] for row in rows), reverse=True)
    assert {row["key"]: "ttl" in row for row in rows if "key" in row}["user:1"]
    assert len(rows) == len(shell.store)


def test_what_prefixes_take(shell: Shell) -> None:
    fill(shell.store)
    told = shell("keys", "--by-prefix")
    assert (told.err, told.status) == ("", 0)
    names = [line.split()[0] for line in told.lines[1:]]
    assert sorted(names) == sorted(["user:", "page/", "ключ:", "base64:cmF3Og==", "(no"])
    assert names[0] == "user:"
    rows: list[dict[str, Any]] = [json.loads(line) for line in shell("keys", "--by-prefix", "--json").lines]
    user = next(row for row in rows if row.get("prefix") == "user:")
    assert (user["items"], user["bytes"], user["expiring"]) == (2, 122, 1)
    assert 400 < user["next_ttl"] <= 500
    assert sum(row["items"] for row in rows) == len(shell.store)
    one = [json.loads(line) for line in shell("keys", "--by-prefix", "--separators", "1", "--json").lines]
    assert {row.get("prefix") for row in one} == {"user:1", "ключ:1", None}
    assert shell("keys", "--by-prefix", "--prefix", "page", "--json").json["items"] == 1


@pytest.mark.parametrize("words", [("--largest", "0"), ("--largest", "1", "--by-prefix"), ("--by-prefix", "-0")])
def test_what_makes_no_sense(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell("keys", *words).status == 2


def test_what_was_evicted_stands_below(name: str) -> None:
    with Store.create(name, size="2MiB", on_full="evict") as store:
        for n in range(3_000):
            store.put(f"a:{n}", b"x" * 1000)
        assert (
            f"{store.stats().evicted:,} items were evicted" in run("keys", "--store", name, "--by-prefix").out.decode()
        )
        store.unlink()


def test_the_report_tells_prefixes() -> None:
    with temporary_store() as store:
        fill(store)
        with serving("--store", store.name) as server:
            rows = server.http.get("/report").json()["prefixes"]
    assert sum(row["items"] for row in rows) == 6
    assert rows[0]["prefix"] == "user:"


# ---- How full --------------------------------------------------------------------------------------


def test_fill() -> None:
    with Store(size="4MiB") as store, Store(size="2MiB", on_full="evict") as cache:
        assert not stats_of(store)["nearly_full"]
        fill_up(store, 500)
        for n in range(10_000):
            cache.put(f"k{n}", b"x" * 500)
        told = stats_of(store)
        assert (told["on_full"], told["nearly_full"], told["limit"]) == ("error", True, store.size)
        assert told["fill"] > 0.9
        assert (stats_of(cache)["on_full"], stats_of(cache)["nearly_full"]) == ("evict", False)


def test_what_dev_shm_has_no_room_for_counts_as_full() -> None:
    with Store(size="1GiB") as store:
        stats = store.stats()
        assert fill_of(stats, False, free=1 << 30).share < 0.1
        tight = fill_of(stats, False, free=0)
        assert (tight.limit, tight.share) == (stats.committed, stats.used / stats.committed)


def test_ready_and_full(name: str) -> None:
    with Store.create(name, size="4MiB") as store:
        fill_up(store, 500)
        with serving("--store", name) as server:
            assert server.http.get("/readyz").json() == {"ready": True, "nearly_full": True}
            wait_until(lambda: len(server.http.get("/history").json()["points"]) >= 2, 60, "two points")
            told = server.http.get("/history").json()
            point = dict(zip(told["names"], told["points"][-1], strict=True))
            assert (point["items"], told["step"]) == (len(store), 5)
        assert "full: writes will be refused" in run("stats", "--store", name).out.decode()
        found = run("doctor", "--store", name, "--json").json["findings"]
        assert "nearly-full" in [finding["kind"] for finding in found]
        store.unlink()

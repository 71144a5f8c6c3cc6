"""The server on real input: the Unicode character database behind two workers.

Stored by batches, read in full by HTTP clients at the same time (through two routes, and by `curl`), read in ranges
from the first key to the last, updated by batches while a reader looks, and watched in the status page.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import browser
import httpx
import pytest
from helpers import PATIENCE, check, wait_until
from serving import Serving, serving
from test_unicode_database import database

from shmkv import Store

pytestmark = pytest.mark.slow

BATCH = 1_000
CLIENTS = 4
SINGLE = 100  # each of so many is read by itself as well
ROUNDS = 20  # batches of updates
UPDATED = 200  # keys in each


@pytest.fixture(scope="module")
def pairs() -> dict[str, str]:
    return database()


@pytest.fixture(scope="module")
def served(pairs: dict[str, str]) -> Iterator[tuple[Serving, Store]]:
    with Store(size="128MiB") as store, serving("--store", store.name, "--workers", "2") as server:
        items = [{"key": key, "value": value} for key, value in pairs.items()]
        for begin in range(0, len(items), BATCH):
            answer = server.http.post("/batch_put/", json={"items": items[begin : begin + BATCH]})
            assert answer.json() == {"stored": len(items[begin : begin + BATCH])}
        yield server, store


def test_every_client_reads_all_of_it(served: tuple[Serving, Store], pairs: dict[str, str]) -> None:
    server, store = served
    assert dict(store.items()) == pairs

    def read_share(share: int) -> int:
        mine = sorted(pairs)[share::CLIENTS]
        with server.client() as http:
            for begin in range(0, len(mine), BATCH):
                part = mine[begin : begin + BATCH]
                answer = http.post("/kv", json={"get": part}).json()
                assert answer["items"] == [{"key": key, "value": pairs[key]} for key in part]
            for key in mine[::SINGLE]:
                assert http.get(f"/kv/{quote(key)}").text == pairs[key]
                assert http.get(f"/read/{quote(key)}").json() == {"key": key, "value": pairs[key]}
        return len(mine)

    with ThreadPoolExecutor(CLIENTS) as threads:
        assert sum(threads.map(read_share, range(CLIENTS))) == len(pairs)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs the Debian package curl")
def test_curl_reads_it(served: tuple[Serving, Store], pairs: dict[str, str], tmp_path: Path) -> None:
    server, _ = served
    some = sorted(pairs)[:: len(pairs) // 100]
    lines = [f'url = "{server.url}/kv/{quote(key)}"\noutput = "{tmp_path / key}"\n' for key in some]
    (tmp_path / "config").write_text("".join(lines))
    subprocess.run(
        ["curl", "--silent", "--fail", "--config", str(tmp_path / "config")], check=True, timeout=60 * PATIENCE
    )
    assert {key: (tmp_path / key).read_text() for key in some} == {key: pairs[key] for key in some}


def test_ranges_cover_it(served: tuple[Serving, Store], pairs: dict[str, str]) -> None:
    server, _ = served
    found, cursor = [], {}
    while True:
        page = server.http.get("/read_key_range/", params={"limit": 1_000, **cursor}).json()
        found += [(item["key"], item["value"]) for item in page["items"]]
        if page["cursor"] is None:
            break
        cursor = {"cursor": page["cursor"]}
    assert found == sorted(pairs.items())
    latin = server.http.get("/read_key_range/", params={"start": "0041", "end": "005B"}).json()["items"]
    assert [item["key"] for item in latin] == [f"{point:04X}" for point in range(0x41, 0x5B)]


def test_batches_change_it_while_others_read(served: tuple[Serving, Store], pairs: dict[str, str]) -> None:
    server, store = served
    keys = [f"seen:{number}" for number in range(UPDATED)]

    def write() -> None:
        with server.client() as http:
            for number in range(ROUNDS):
                items = [{"key": key, "value": number} for key in keys]
                assert http.post("/batch_put/", json={"items": items}).status_code == 200

    def read() -> None:
        with server.client() as http:
            for _ in range(ROUNDS):
                seen = {item["value"] for item in http.post("/kv", json={"get": keys}).json()["items"]}
                assert len(seen) <= 1, "a batch is seen whole"

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(write), threads.submit(read), threads.submit(read)]:
            done.result()
    assert store.get_many(keys) == dict.fromkeys(keys, ROUNDS - 1)
    assert server.http.post("/kv", json={"delete": keys}).json() == {"deleted": len(keys)}
    assert len(store) == len(pairs)
    check(store)


@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "never")
def test_the_status_page_shows_it(served: tuple[Serving, Store], pairs: dict[str, str]) -> None:
    server, _ = served
    with browser.browser() as driver:
        driver.get(server.url)
        shown = f"{len(pairs):,}"
        wait_until(lambda: shown in driver.find_element("tag name", "body").text, 30, "the number of items")


def test_its_export_is_all_of_it(served: tuple[Serving, Store], pairs: dict[str, str]) -> None:
    server, _ = served
    with httpx.stream("GET", f"{server.url}/export", timeout=60 * PATIENCE, trust_env=False) as answer:
        forms = [json.loads(line) for line in answer.iter_lines()]
    assert {form["key"]: form["value"] for form in forms} == pairs

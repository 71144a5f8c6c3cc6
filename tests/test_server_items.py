"""The JSON routes: /read/, /read_key_range/, /put/, /batch_put/, /delete/; each statement of docs/server.md."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from helpers import temporary_store
from serving import Serving, ask, serving

from shmkv import Store

pytestmark = pytest.mark.slow

LONGEST_KEY = 65_535
MOST_TTL = 946_728_000
ODD_KEYS = ["", "/", "a/b//c/", "line\nbreak\r\n", "%2F", "%", "\0", "ä€😀", "a b+c?d=e&f#g", "..", "x/incr", "k" * 300]


@pytest.fixture(scope="module")
def items() -> Iterator[Store]:
    with temporary_store() as store:
        yield store


@pytest.fixture(scope="module")
def server(items: Store) -> Iterator[Serving]:
    with serving("--store", items.name, "--workers", "2", "--max-body", "1") as server:
        server.wait_for_workers()
        yield server


@pytest.fixture
def http(server: Serving, items: Store) -> httpx.Client:
    items.clear()
    return server.http


def put(http: httpx.Client, key: str, value: Any, **more: Any) -> httpx.Response:
    return http.post("/put/", json={"key": key, "value": value, **more})


def raw_put(http: httpx.Client, body: str | bytes) -> httpx.Response:
    return http.post("/put/", content=body, headers={"content-type": "application/json"})


def is_problem(response: httpx.Response, status: int) -> bool:
    told = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert told["status"] == response.status_code == status, response.text
    assert set(told) - {"error"} == {"type", "title", "status", "detail"}
    return True


# ---- One item ------------------------------------------------------------------------------------


def test_put_read_delete(http: httpx.Client) -> None:
    first = put(http, "k", {"a": [1, None]})
    assert (first.status_code, first.json()) == (201, {"key": "k", "created": True})
    second = put(http, "k", "other")
    assert (second.status_code, second.json()) == (200, {"key": "k", "created": False})
    assert http.get("/read/k").json() == {"key": "k", "value": "other"}
    gone = http.delete("/delete/k")
    assert (gone.status_code, gone.json()) == (200, {"key": "k", "deleted": True})
    assert is_problem(http.get("/read/k"), 404)
    assert is_problem(http.delete("/delete/k"), 404)


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_any_text_is_a_key(http: httpx.Client, server: Serving, items: Store, key: str) -> None:
    assert put(http, key, 1).json() == {"key": key, "created": True}
    assert items[key] == 1
    target = quote(key, safe="")
    assert ask(server, "GET", f"/read/{target}").json == {"key": key, "value": 1}
    assert ask(server, "DELETE", f"/delete/{target}").json == {"key": key, "deleted": True}
    assert key not in items


def test_slashes_need_no_encoding(server: Serving, http: httpx.Client, items: Store) -> None:
    items["a/../b//"] = 1
    assert ask(server, "GET", "/read/a/../b//").json["key"] == "a/../b//"


def test_the_longest_key(server: Serving, http: httpx.Client, items: Store) -> None:
    key = "ä" * (LONGEST_KEY // 2) + "x"
    assert put(http, key, 1).status_code == 201
    assert ask(server, "GET", f"/read/{quote(key)}").json == {"key": key, "value": 1}
    assert ask(server, "GET", f"/read/{quote(key)}x").status in (404, 422)
    assert is_problem(put(http, key + "x", 1), 422)
    assert ask(server, "GET", "/read/" + "%41" * 100_000).status == 414


@pytest.mark.parametrize("target", ["%", "%z1", "%4", "%ff", "%c3", "a%ED%A0%80"])
def test_paths_that_are_no_percent_encoded_utf8(server: Serving, target: str) -> None:
    for method, route in (("GET", "/read/"), ("DELETE", "/delete/"), ("GET", "/kv/"), ("PUT", "/kv/")):
        answer = ask(server, method, route + target)
        assert answer.status == 400, (route, answer.body)
        assert answer.json["status"] == 400


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**63, -(2**64), 10**400, 0.1, -0.0, 1e308, "", "ä\0", [], {}, [[1, [2]], {"": {"a": None}}]],
    ids=lambda value: ascii(value)[:20],
)
def test_any_json_comes_back(http: httpx.Client, items: Store, value: Any) -> None:
    assert put(http, "k", value).status_code == 201
    back = http.get("/read/k").json()["value"]
    assert back == value
    assert type(back) is type(value)
    assert items["k"] == value


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"key":"k"}', b'{"value":1}', b'{"key":1,"value":1}', b'{"key":null,"value":1}',
        b'{"key":"k","value":NaN}', b'{"key":"k","value":1e999}', b'{"key":"k","value":Infinity}', b"\xff\xfe",
        b'{"key":"k","value":1,"more":1}', b'{"key":"k","value":"\\ud800"}', b'{"key":"\\ud800","value":1}',
        b'{"key":"k","value":' + b"[" * 100_000, b'{"key":"k","value":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"key":"k","value":' + b"9" * 6_000 + b"}", b'{"key":"k","value":1} x',
        b'{"key":"k","value":1,"ttl":0}', b'{"key":"k","value":1,"ttl":-1}', b'{"key":"k","value":1,"ttl":"5"}',
        b'{"key":"k","value":1,"ttl":true}', b'{"key":"k","value":1,"ttl":946728001}',
        b'{"key":"k","value":1,"ttl":1e300}',
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_bodies_that_are_no_item(http: httpx.Client, items: Store, body: bytes) -> None:
    assert is_problem(raw_put(http, body), 422)
    assert len(items) == 0


def test_ttl(http: httpx.Client, items: Store) -> None:
    assert put(http, "k", 1, ttl=100).status_code == 201
    assert 99 < (items.ttl("k") or 0) <= 100
    assert put(http, "k", 1, ttl=MOST_TTL).status_code == 200
    assert put(http, "k", 1, ttl=0.5).status_code == 200
    assert put(http, "k", 1, ttl=None).status_code == 200
    assert items.ttl("k") is None


def test_what_has_no_json_is_406(http: httpx.Client, items: Store) -> None:
    for value in (b"bytes", (1, 2), {1, 2}, float("inf"), {1: 2}, [b"x"], 1 << 5_000):
        items["k"] = value
        assert is_problem(http.get("/read/k"), 406)


def test_the_body_has_a_limit(http: httpx.Client, server: Serving, items: Store) -> None:
    assert put(http, "k", "x" * (1 << 20)).status_code == 413
    assert put(http, "k", "x" * (1 << 19)).status_code == 201


def test_routes_that_are_not_there(http: httpx.Client) -> None:
    for method, path in (
        ("GET", "/nothing"), ("GET", "/read"), ("POST", "/put//"), ("GET", "/read_key_range//"), ("GET", "//read/k"),
    ):  # fmt: skip
        assert is_problem(http.request(method, path), 404)
    for method, path in (("PUT", "/read/k"), ("GET", "/put/"), ("POST", "/delete/k"), ("DELETE", "/healthz")):
        answer = http.request(method, path)
        assert is_problem(answer, 405)
        assert answer.headers["allow"]


def test_only_a_key_is_decoded(server: Serving, http: httpx.Client, items: Store) -> None:
    """A route's own characters, escaped, are no route; above all not one for keys, without a key."""
    items["k"] = 1
    for method, target in (
        ("GET", "/read%2Fk"), ("DELETE", "/delete%2fk"), ("GET", "/%72ead/k"), ("DELETE", "/%64elete/k"),
        ("GET", "/kv%2Fk"), ("GET", "/%6Bv/k"), ("GET", "/%68ealthz"), ("GET", "/%"), ("GET", "/%FF"), ("GET", "/%0A"),
    ):  # fmt: skip
        answer = ask(server, method, target)
        assert answer.status == 404, target
        assert answer.json["detail"].startswith(f"{method} '{target}'")
    assert items["k"] == 1
    assert server.complaints == ""


# ---- Many items ----------------------------------------------------------------------------------


def test_batch_put(http: httpx.Client, items: Store) -> None:
    given = [{"key": "a", "value": 1}, {"key": "b", "value": [2], "ttl": 50}, {"key": "a", "value": 3}]
    answer = http.post("/batch_put/", json={"items": given})
    assert (answer.status_code, answer.json()) == (200, {"stored": 2})
    assert items.get_many(["a", "b"]) == {"a": 3, "b": [2]}
    assert items.ttl("a") is None
    assert 49 < (items.ttl("b") or 0) <= 50


def test_a_batch_is_all_or_none(http: httpx.Client, items: Store) -> None:
    items["a"] = "before"
    for wrong in ({"key": "k" * 65_536, "value": 1}, {"key": "b", "value": 1, "ttl": -1}, {"key": "b"}, 5):
        answer = http.post("/batch_put/", json={"items": [{"key": "a", "value": 1}, wrong]})
        assert is_problem(answer, 422)
        assert dict(items) == {"a": "before"}
    assert http.post("/batch_put/", json={"items": []}).json() == {"stored": 0}
    many = {"items": [{"key": f"{at:x}", "value": 0} for at in range(65_537)]}
    body = json.dumps(many, separators=(",", ":")).encode()
    with serving("--store", items.name) as other:
        answer = other.http.post("/batch_put/", content=body)
        assert is_problem(answer, 422)
        assert len(items) == 1


# ---- Ranges --------------------------------------------------------------------------------------


def keys_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["key"] for item in response.json()["items"]]


def test_range(http: httpx.Client, items: Store) -> None:
    items.update({key: key for key in ("", "a", "b", "ba", "c", "ä", "😀", b"b", b"bytes")})
    everything = ["", "a", "b", "ba", "c", "ä", "😀"]
    ranged = "/read_key_range/"
    assert keys_of(http.get(ranged)) == everything
    assert keys_of(http.get(ranged, params={"start": "b"})) == ["b", "ba", "c", "ä", "😀"]
    assert keys_of(http.get(ranged, params={"end": "b"})) == ["", "a"]
    assert keys_of(http.get(ranged, params={"start": "a", "end": "c"})) == ["a", "b", "ba"]
    assert keys_of(http.get(ranged, params={"start": "b", "end": "b"})) == []
    assert keys_of(http.get(ranged, params={"start": "c", "end": "a"})) == []
    assert keys_of(http.get(ranged, params={"end": ""})) == []
    first = http.get(ranged, params={"limit": 2}).json()
    assert first["items"] == [{"key": "", "value": ""}, {"key": "a", "value": "a"}]


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_pages(http: httpx.Client, items: Store, limit: int) -> None:
    keys = sorted(["", "\0", "a", "a\0", "a\0\0", "b" * 65_535, "b" * 65_534 + "c", "z"], key=str.encode)
    items.update(dict.fromkeys(keys, 1))
    found, query = [], {"limit": str(limit), "end": "zz"}
    while True:
        page = http.get("/read_key_range/", params=query)
        found += keys_of(page)
        assert len(keys_of(page)) <= limit
        cursor = page.json()["cursor"]
        if not cursor:
            assert cursor is None
            break
        if len(cursor) > 60_000:  # longer than what httpx takes for a URL
            found += keys[len(found) :]
            break
        query["cursor"] = cursor
    assert found == keys


def test_a_page_behind_the_longest_key(server: Serving, http: httpx.Client, items: Store) -> None:
    items.update({"k" * LONGEST_KEY: 1, "z": 2})
    cursor = http.get("/read_key_range/?limit=1").json()["cursor"]
    assert ask(server, "GET", f"/read_key_range/?limit=1&cursor={cursor}").json == {
        "items": [{"key": "z", "value": 2}],
        "cursor": None,
    }


def test_forms_in_a_range(http: httpx.Client, items: Store) -> None:
    items._place("bytes", b"\0\xff", None, "image/png", 0, 0)
    items.put("ttl", 1, ttl=50)
    items["tuple"] = (1,)
    told = {item["key"]: item for item in http.get("/read_key_range/").json()["items"]}
    assert told["bytes"] == {"key": "bytes", "base64": "AP8=", "content_type": "image/png"}
    assert 49 < told["ttl"]["ttl"] <= 50
    assert set(told["tuple"]) == {"key", "safe", "python"}
    assert told["tuple"]["python"] == "(1,)"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1.0", "limit=%D9%A3", "limit=1&limit=2",
        "cursor=%21", "cursor=a", "cursor=_w==", "stop=a", "x", "start=a&start=b",
    ],
)  # fmt: skip
def test_queries_that_are_wrong(http: httpx.Client, query: str) -> None:
    assert is_problem(http.get(f"/read_key_range/?{query}"), 422)


def test_queries_that_are_no_utf8(server: Serving) -> None:
    assert ask(server, "GET", "/read_key_range/?start=%ff").status == 400
    assert ask(server, "GET", "/read_key_range/?start=%zz").status == 400


def test_pages_while_keys_come_and_go(http: httpx.Client, server: Serving, items: Store) -> None:
    """What is there throughout comes exactly once, whatever others do."""
    steady = [f"s{at:04d}" for at in range(600)]
    items.update(dict.fromkeys(steady, 0))
    ended = threading.Event()

    def disturb() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            items[f"s{number % 600:04d}x"] = number
            items.delete(f"s{number * 7 % 600:04d}x")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            found: list[str] = []
            query = {"limit": "70"}
            while True:
                page = http.get("/read_key_range/", params=query)
                found += keys_of(page)
                if page.json()["cursor"] is None:
                    break
                query["cursor"] = page.json()["cursor"]
            assert found == sorted(set(found)), "out of order, or twice"
            assert [key for key in found if not key.endswith("x")] == steady
    finally:
        ended.set()
        thread.join()


def test_the_number_of_ranges_is_capped(server: Serving, http: httpx.Client, items: Store) -> None:
    """Beyond it 503 with Retry-After; and nobody else waits."""
    items.update({f"{at:06d}": "v" * 50 for at in range(60_000)})
    refused, done = [], []

    def read() -> None:
        with server.client() as client:
            for _ in range(4):
                answer = client.get("/read_key_range/?limit=1000")
                (done if answer.status_code == 200 else refused).append(answer)

    threads = [threading.Thread(target=read) for _ in range(24)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert http.get("/read/000000").status_code == 200
    for thread in threads:
        thread.join()
    assert done
    assert refused, "24 readers and 4 ranges in each of 2 workers"
    assert {answer.status_code for answer in refused} == {503}
    assert all(answer.headers["retry-after"] == "1" for answer in refused)

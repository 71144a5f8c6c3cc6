"""`shmkv serve --datastore`: the rules of a DataStore over HTTP, a statement of docs/server.md at a time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Serving, ask, serving
from shell import run
from test_server_items import is_problem

from shmkv import DataStore

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving("--datastore", str(tmp_path_factory.mktemp("data"))) as server:
        yield server


@pytest.fixture
def http(server: Serving) -> httpx.Client:
    while items := server.http.get("/read_key_range/").json()["items"]:
        for item in items:
            assert (
                ask(server, "DELETE", "/delete/" + "".join(f"%{byte:02x}" for byte in item["key"].encode())).status
                == 200
            )
    return server.http


def put(http: httpx.Client, key: Any, value: Any, **more: Any) -> httpx.Response:
    return http.post("/put/", json={"key": key, "value": value, **more})


def test_put_creates_and_nothing_else(http: httpx.Client) -> None:
    made = put(http, "k", {"a": 1})
    assert (made.status_code, made.json()) == (201, {"key": "k", "created": True})
    again = put(http, "k", {"a": 2})
    assert is_problem(again, 409)
    assert again.json()["error"] == "DuplicateKeyError"
    assert http.get("/read/k").json() == {"key": "k", "value": {"a": 1}}
    assert http.delete("/delete/k").json() == {"key": "k", "deleted": True}
    assert is_problem(http.get("/read/k"), 404)
    assert is_problem(http.delete("/delete/k"), 404)
    assert put(http, "k", {"a": 2}).status_code == 201


@pytest.mark.parametrize("key", ["k" * 32, "ä" * 32, "a/b//", "line\n", "%2F", "..", "\0", "a b+c?d=e&f#g"], ids=ascii)
def test_keys(http: httpx.Client, server: Serving, key: str) -> None:
    assert put(http, key, {}).status_code == 201
    target = "".join(f"%{byte:02x}" for byte in key.encode())
    assert ask(server, "GET", f"/read/{target}").json == {"key": key, "value": {}}
    assert ask(server, "DELETE", f"/delete/{target}").status == 200


@pytest.mark.parametrize(("method", "target"), [("GET", "/read%2Fk"), ("DELETE", "/%64elete/k")])
def test_only_a_key_is_decoded(server: Serving, method: str, target: str) -> None:
    assert ask(server, method, target).status == 404
    assert server.complaints == ""


@pytest.mark.parametrize(
    ("key", "value", "ttl"),
    [
        ("", {}, None), ("k" * 33, {}, None), ("k", [], None), ("k", 1, None), ("k", None, None), ("k", "text", None),
        (5, {}, None), (None, {}, None), ("k", {}, 0), ("k", {}, -1), ("k", {}, 1.5), ("k", {}, "5"), ("k", {}, True),
        ("k", {}, 1e300), ("k", {"v": "x" * (16 << 10)}, None),
    ],
    ids=lambda part: ascii(part)[:20],
)  # fmt: skip
def test_what_is_no_record(http: httpx.Client, key: Any, value: Any, ttl: Any) -> None:
    assert is_problem(put(http, key, value, ttl=ttl), 422)
    assert http.get("/read_key_range/").json()["items"] == []


def test_the_largest_value(http: httpx.Client) -> None:
    most = (16 << 10) - len('{"v":""}')
    assert put(http, "k", {"v": "x" * most}).status_code == 201
    assert http.get("/read/k").json()["value"] == {"v": "x" * most}
    assert put(http, "more", {"v": "x" * (2 << 20)}).status_code == 413


def test_ttl(http: httpx.Client) -> None:
    assert put(http, "k", {}, ttl=1).status_code == 201
    assert put(http, "whole", {}, ttl=100.0).status_code == 201
    assert http.get("/read/k").status_code == 200
    threading.Event().wait(1.1)
    assert is_problem(http.get("/read/k"), 404)
    assert is_problem(http.delete("/delete/k"), 404)
    assert put(http, "k", {}).status_code == 201


def test_range(http: httpx.Client) -> None:
    for key in ("b", "a", "ä", "ab", "c"):
        put(http, key, {"is": key})
    found = http.get("/read_key_range/", params={"start": "a", "end": "c"}).json()
    assert found == {"items": [{"key": key, "value": {"is": key}} for key in ("a", "ab", "b")], "cursor": None}
    keys, query = [], {"limit": "2"}
    while True:
        page = http.get("/read_key_range/", params=query).json()
        keys += [item["key"] for item in page["items"]]
        if page["cursor"] is None:
            break
        query["cursor"] = page["cursor"]
    assert keys == ["a", "ab", "b", "c", "ä"]
    for wrong in ("limit=0", "cursor=!", "other=1"):
        assert is_problem(http.get(f"/read_key_range/?{wrong}"), 422)


def test_the_number_of_ranges_is_capped(http: httpx.Client, server: Serving) -> None:
    for at in range(300):
        put(http, f"{at:04d}", {"v": "x" * 8_000})
    answers = []

    def read() -> None:
        with server.client() as client:
            answers.extend(client.get("/read_key_range/?limit=1000") for _ in range(6))

    threads = [threading.Thread(target=read) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}


def test_what_a_datastore_does_not_have(http: httpx.Client) -> None:
    for method, path in (
        ("GET", "/kv/k"), ("PUT", "/kv/k"), ("DELETE", "/kv/k"), ("POST", "/kv/k/incr"), ("POST", "/kv"),
        ("GET", "/kv"),
        ("POST", "/batch_put/"), ("GET", "/report"), ("GET", "/export"), ("POST", "/check"),
    ):  # fmt: skip
        assert is_problem(http.request(method, path), 501)


def test_about(http: httpx.Client, server: Serving) -> None:
    assert http.get("/healthz").json() == {"healthy": True}
    assert http.get("/readyz").json() == {"ready": True}
    assert http.get("/stats").json()["datastore"] == server.name
    assert "shmkv_request_seconds_count" in http.get("/metrics").text
    for path in ("/", "/docs", "/openapi.json"):
        assert http.get(path).status_code == 200
    paths = http.get("/openapi.json").json()["paths"]
    assert "/put/" in paths
    assert "/kv/{key}" not in paths


def test_only_one_of_many_creates(server: Serving, http: httpx.Client) -> None:
    made = []

    def create(me: int) -> None:
        with server.client() as client:
            made.extend((at, me) for at in range(50) if put(client, f"{at}", {"by": me}).status_code == 201)

    threads = [threading.Thread(target=create, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(at for at, _ in made) == list(range(50))
    for at, me in made:
        assert http.get(f"/read/{at}").json()["value"] == {"by": me}


# ---- Its process ---------------------------------------------------------------------------------


def test_it_is_for_one_process(server: Serving, http: httpx.Client) -> None:
    refused = run("serve", "--datastore", server.name, "--port", "0")
    assert refused.status != 0
    assert len(refused.err.strip().splitlines()) == 1
    assert "one process at a time" in refused.err
    assert run("serve", "--datastore", server.name, "--port", "0", "--workers", "2").status == 2
    assert http.get("/healthz").status_code == 200


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run("serve", "--datastore", str(tmp_path / "file"), "--port", "0")
    assert refused.status != 0
    assert len(refused.err.strip().splitlines()) == 1


def test_it_outlives_its_server(tmp_path: Path) -> None:
    with serving("--datastore", str(tmp_path)) as server:
        assert put(server.http, "a", {"n": 1}).status_code == 201
    with serving("--datastore", str(tmp_path), quiet=False) as server:
        assert put(server.http, "b", {"n": 2}).status_code == 201
        assert server.stop(9) == -9
    with serving("--datastore", str(tmp_path)) as server:
        assert [item["key"] for item in server.http.get("/read_key_range/").json()["items"]] == ["a", "b"]
    with DataStore(tmp_path) as data:
        assert json.loads(json.dumps(data.read("b"))) == {"n": 2}

"""POST /kv, GET /kv, /export and /report: what is about many items, a statement of docs/server.md at a time."""

from __future__ import annotations

import base64
import datetime
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from helpers import temporary_store
from serving import Serving, serving
from test_server_items import is_problem

from shmkv import Store

pytestmark = pytest.mark.slow

JSON = "application/json"
MSGPACK = "application/msgpack"
Post = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def items() -> Iterator[Store]:
    with temporary_store(size="64MiB") as store:
        yield store


@pytest.fixture(scope="module")
def server(items: Store) -> Iterator[Serving]:
    with serving("--store", items.name, "--workers", "2", "--max-body", "4") as server:
        server.wait_for_workers()
        yield server


@pytest.fixture
def http(server: Serving, items: Store) -> httpx.Client:
    items.clear()
    return server.http


def post(http: httpx.Client, **batch: Any) -> httpx.Response:
    return http.post("/kv", json=batch)


def post_packed(http: httpx.Client, kind: str = MSGPACK, **batch: Any) -> httpx.Response:
    return http.post("/kv", content=msgspec.msgpack.encode(batch), headers={"content-type": kind})


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ---- As JSON -------------------------------------------------------------------------------------


def test_one_item_under_a_condition(http: httpx.Client, items: Store) -> None:
    item = {"key": "k", "value": "text", "ttl": 50}
    assert post(http, set=[item], only="present").json() == {"stored": 0}
    assert post(http, set=[item], only="absent").json() == {"stored": 1}
    assert post(http, set=[{"key": "k", "value": 2}], only="absent").json() == {"stored": 0}
    assert (items["k"], items.ttl("k") is None) == ("text", False)
    assert post(http, set=[{"key": "k", "value": 2}], only="present").json() == {"stored": 1}
    assert post_packed(http, set=[{"key": b"k", "value": b"3"}], only="absent").status_code == 200
    assert dict(items) == {"k": 2, b"k": b"3"}
    for wrong in ({"set": [item, item], "only": "absent"}, {"get": ["k"], "only": "absent"}, {"only": "absent"}):
        assert is_problem(post(http, **wrong), 422)
    assert is_problem(post(http, set=[item], only="perhaps"), 422)


def test_set_get_delete(http: httpx.Client, items: Store) -> None:
    given = [
        {"key": "json", "value": {"a": [1, None, 0.5]}},
        {"key": "bytes", "base64": b64(b"\0\xff"), "content_type": "image/png", "ttl": 50},
        {"key_base64": b64(b"\xff"), "value": "text"},
        {"key": "plain", "base64": ""},
    ]
    assert post(http, set=given).json() == {"stored": 4}
    assert items[b"\xff"] == "text"
    assert items["bytes"] == b"\0\xff"
    assert 49 < (items.ttl("bytes") or 0) <= 50
    keys = ["json", {"key": "bytes"}, {"key_base64": "/w=="}, "missing", "plain"]
    told = {json.dumps(item.get("key", item.get("key_base64"))): item for item in post(http, get=keys).json()["items"]}
    assert len(told) == 4
    assert 49 < told['"bytes"'].pop("ttl") <= 50
    assert told['"bytes"'] == {"key": "bytes", "base64": "AP8=", "content_type": "image/png"}
    assert told['"json"'] == given[0]
    assert told['"/w=="'] == given[2]
    assert post(http, delete=keys).json() == {"deleted": 4}
    assert len(items) == 0


@pytest.mark.parametrize(
    "value",
    [(1, (2,)), {1, 2}, datetime.datetime(2026, 1, 1), float("-inf"), {1: (2,)}, 1 << 5_000, b"", [b"x"]],
    ids=repr,
)
def test_every_value_goes_out_and_in_again(http: httpx.Client, items: Store, value: Any) -> None:
    for ask in (post, post_packed):
        items["k"] = value
        answer = ask(http, get=["k"])
        decode = msgspec.json.decode if ask is post else msgspec.msgpack.decode
        forms = decode(answer.content)["items"]
        items.clear()
        assert ask(http, set=forms).status_code == 200
        assert items["k"] == value
        assert type(items["k"]) is type(value)


def test_the_last_of_equal_keys_counts(http: httpx.Client, items: Store) -> None:
    assert post(http, set=[{"key": "k", "value": 1}, {"key": "k", "value": 2}]).json() == {"stored": 1}
    assert items["k"] == 2
    assert len(post(http, get=["k", "k"]).json()["items"]) == 1
    assert post(http, delete=["k", "k"]).json() == {"deleted": 1}


def test_empty_batches(http: httpx.Client) -> None:
    assert post(http, set=[]).json() == {"stored": 0}
    assert post(http, get=[]).json() == {"items": []}
    assert post(http, delete=[]).json() == {"deleted": 0}


@pytest.mark.parametrize(
    "batch",
    [
        {}, {"set": [], "get": []}, {"get": None}, {"other": []}, [], 5, None, {"get": "k"}, {"get": [1]},
        {"get": [None]},
        {"get": [{"key": 1}]}, {"get": [{"key": "a", "key_base64": "YQ=="}]}, {"get": [{}]},
        {"get": [{"key_base64": "?"}]},
        {"delete": [["a"]]}, {"set": [1]}, {"set": [{}]}, {"set": [{"key": "k"}]}, {"set": [{"value": 1}]},
        {"set": [{"key": "k", "value": 1, "base64": ""}]}, {"set": [{"key": "k", "value": 1, "more": 1}]},
        {"set": [{"key": "k", "value": 1, "content_type": "a/b"}]}, {"set": [{"key": "k", "base64": "a"}]},
        {"set": [{"key": "k", "base64": "", "content_type": "a\nb"}]},
        {"set": [{"key": "k", "base64": "", "content_type": 5}]},
        {"set": [{"key": "k", "value": 1, "ttl": 0}]}, {"set": [{"key": "k", "value": 1, "ttl": True}]},
        {"set": [{"key": "k", "value": 1, "ttl": "1"}]}, {"set": [{"key": "k", "value": 1, "ttl": 1e300}]},
        {"set": [{"key": "k", "safe": ""}]}, {"set": [{"key": "k", "safe": "IQ=="}]},
        {"set": [{"key": "k", "safe": "////"}]},
        {"set": [{"key": "k", "codec": "pickle", "stored": "gASVCgAAAA=="}]},
        {"set": [{"key": "k" * 65_536, "value": 1}]},
        {"get": ["k"] * 65_537}, {"delete": ["k"] * 65_537},
    ],
    ids=lambda batch: ascii(batch)[:50],
)  # fmt: skip
def test_what_is_no_batch(http: httpx.Client, items: Store, batch: Any) -> None:
    items["a"] = 1
    for content, kind in ((json.dumps(batch).encode(), JSON), (msgspec.msgpack.encode(batch), MSGPACK)):
        answer = http.post("/kv", content=content, headers={"content-type": kind})
        assert is_problem(answer, 422)
    assert dict(items) == {"a": 1}


def test_a_fault_says_where_it_is(http: httpx.Client) -> None:
    """In msgspec's words, which are its own affair: that each place has its own is ours."""
    fault, good = {"key": "k"}, {"key": "k", "value": 1}
    told = [post(http, set=items).json()["detail"] for items in ([fault, good], [good, fault])]
    assert told[0] != told[1]


def test_a_batch_is_all_or_none(http: httpx.Client, items: Store) -> None:
    items["a"] = "before"
    given = [{"key": "a", "value": 1}, *({"key": f"{at}", "value": at} for at in range(500))]
    for wrong in ({"key": "k", "base64": b64(b"x"), "ttl": -1}, {"key_base64": b64(b"x" * 65_536), "value": 1}):
        assert is_problem(post(http, set=[*given, wrong]), 422)
        assert dict(items) == {"a": "before"}


def test_the_kind_of_a_body(http: httpx.Client) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/json;a=b"):
        assert http.post("/kv", content=b'{"get":[]}', headers={"content-type": kind}).json() == {"items": []}
    for kind in (MSGPACK, "application/x-msgpack", "application/vnd.msgpack"):
        answer = post_packed(http, kind, get=[])
        assert answer.headers["content-type"] == MSGPACK
        assert msgspec.msgpack.decode(answer.content) == {"items": []}
    for headers in ({"content-type": "text/plain"}, {"content-type": ""}, {}):
        answer = http.request("POST", "/kv", content=b'{"get":[]}', headers=headers)
        assert is_problem(answer, 415)


# ---- As MessagePack ------------------------------------------------------------------------------


def test_bytes_stay_bytes(http: httpx.Client, items: Store) -> None:
    given = [
        {"key": b"\xff", "value": b"\0"},
        {"key": "typed", "value": b"<p>", "content_type": "text/html", "ttl": 50},
        {"key": "text", "value": "ä"},
        {"key": "old", "base64": b64(b"as in JSON")},
    ]
    assert msgspec.msgpack.decode(post_packed(http, set=given).content) == {"stored": 4}
    assert items.get_many([b"\xff", "text", "old"]) == {b"\xff": b"\0", "text": "ä", "old": b"as in JSON"}
    assert http.get("/kv/typed").headers["content-type"] == "text/html"
    told = msgspec.msgpack.decode(post_packed(http, get=[b"\xff", "typed", "text"]).content)["items"]
    by_key = {item["key"]: item for item in told}
    assert by_key[b"\xff"] == given[0]
    assert by_key["text"] == given[2]
    assert 49 < by_key["typed"].pop("ttl") <= 50
    assert by_key["typed"] == {"key": "typed", "value": b"<p>", "content_type": "text/html"}
    assert msgspec.msgpack.decode(post_packed(http, delete=[b"\xff", "none"]).content) == {"deleted": 1}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xc1", b"\x81", b"\x81\xa3get", b"\x81\xa3get\xdd\xff\xff\xff\xff", b"\x81\xa3get\xdf\xff\xff\xff\xff",
        b"\x81\xa3set\x91\x82\xa3key\xa1k\xa5value\xdd\xff\xff\xff\xff", b"\x81\xa3get\xc6\xff\xff\xff\xff",
        b"\x81\xa3set\x91\x82\xa3key\xa1k\xa5value" + b"\x91" * 200_000, b"\x81\xa3get\x90\x00",
        b"\x81\xa3get\x91\xa1\xff",
        b"\x81\xa3set\x91\x82\xa3key\xa1k\xa5value\xc7\x03\x05abc", b"\x81\xc4\x03get\x90" + b"x",
    ],
    ids=lambda body: ascii(body)[:40],
)  # fmt: skip
def test_messagepack_that_is_none(http: httpx.Client, items: Store, body: bytes) -> None:
    assert is_problem(http.post("/kv", content=body, headers={"content-type": MSGPACK}), 422)
    assert len(items) == 0


# ---- At one instant ------------------------------------------------------------------------------


def test_a_batch_is_seen_whole(server: Serving, http: httpx.Client, items: Store) -> None:
    """Writers and readers over both workers, and a reader beside them: never a part of a batch."""
    keys = [f"{at}" for at in range(40)]
    items.update(dict.fromkeys(keys, 0))
    ended = threading.Event()

    def write(number: int) -> None:
        with server.client() as client:
            while not ended.is_set():
                number += 2
                post(client, set=[{"key": key, "value": number} for key in keys])

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(150):
            told = post(http, get=keys).json()["items"]
            assert len({item["value"] for item in told}) == 1
            assert len(told) == len(keys)
            assert len(set(items.get_many(keys).values())) == 1
    finally:
        ended.set()
        for writer in writers:
            writer.join()


# ---- Keys, a page at a time ----------------------------------------------------------------------


def pages(http: httpx.Client, **query: Any) -> Iterator[list[dict[str, Any]]]:
    while True:
        page = http.get("/kv", params=query)
        assert page.status_code == 200, page.text
        yield page.json()["keys"]
        query["cursor"] = page.json()["cursor"]
        if query["cursor"] is None:
            return


def test_keys(http: httpx.Client, items: Store) -> None:
    items.update({f"a:{at}": "v" * at for at in range(300)})
    items.update({"b": (1,), b"\xff": 1, "": b""})
    items.put("ttl", 1, ttl=50)
    found = [fact for page in pages(http, limit=50) for fact in page]
    assert len(found) == 304
    by_key = {fact.get("key", fact.get("key_base64")): fact for fact in found}
    assert by_key["a:7"] == {"key": "a:7", "type": "str", "bytes": 7}
    assert by_key["b"]["type"] == "tuple"
    assert by_key["/w=="] == {"key_base64": "/w==", "type": "int", "bytes": 8}
    assert 49 < by_key["ttl"]["ttl"] <= 50
    assert len([fact for page in pages(http, prefix="a:1") for fact in page]) == 111
    assert [page for page in pages(http, prefix="nothing") if page] == []


def test_keys_while_others_come_and_go(http: httpx.Client, items: Store) -> None:
    steady = {f"steady:{at}" for at in range(2_000)}
    items.update(dict.fromkeys(steady, 0))
    found = []
    for at, page in enumerate(pages(http, limit=100, prefix="steady:")):
        found += [fact["key"] for fact in page]
        items.update({f"other:{at}:{more}": b"x" * 500 for more in range(1_000)})
    assert len(found) == len(set(found))
    assert set(found) == steady


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=10001", "cursor=x", "cursor=00000000-0", "cursor=-1", "cursor=", "other=1", "limit=5&limit=5"],
)
def test_queries_that_are_wrong(http: httpx.Client, query: str) -> None:
    assert is_problem(http.get(f"/kv?{query}"), 422)


def test_a_cursor_beyond_the_end(http: httpx.Client, items: Store) -> None:
    assert is_problem(http.get(f"/kv?cursor={items.uuid.hex[:8]}-999999999999"), 422)


# ---- All of it -----------------------------------------------------------------------------------


def test_export_goes_in_again(http: httpx.Client, items: Store) -> None:
    given: dict[Any, Any] = {f"k{at}": at for at in range(3_000)}
    given.update({b"\xff": b"\0", "t": (1, 2), "": None, "line\n": "line\r\n"})
    items.update(given)
    answer = http.get("/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    forms = [json.loads(line) for line in answer.text.split("\n") if line]
    assert len(forms) == len(given)
    items.clear()
    assert post(http, set=forms).json() == {"stored": len(given)}
    assert dict(items) == given


def test_report(http: httpx.Client, items: Store) -> None:
    items.update({f"k{at}": b"x" * at for at in range(50)})
    items.put("soon", 1, ttl=200)
    items.put("later", 1, ttl=500)
    with serving("--store", items.name) as fresh:
        told = fresh.http.get("/report").json()
        assert told["items"] == 52
        assert [fact["bytes"] for fact in told["largest"]] == list(range(49, 29, -1))
        assert [fact["key"] for fact in told["expiring"]] == ["soon", "later"]
        items.clear()
        assert fresh.http.get("/report").json() == told, "at most every ten seconds is there a new one"


def test_stats_and_check(http: httpx.Client, items: Store, server: Serving) -> None:
    items["k"] = b"12345"
    told = http.get("/stats").json()
    assert (told["name"], told["path"], told["uuid"]) == (items.name, None, str(items.uuid))
    assert (told["items"], told["value_bytes"], told["readonly"]) == (1, 5, False)
    assert told["server"]["workers"] == 2
    assert {server.pid, *server.workers()} <= {process["pid"] for process in told["processes"]}
    checked = http.post("/check").json()
    assert (checked["ok"], checked["problems"], checked["items"]) == (True, [], 1)
    for path in ("/stats", "/report", "/export", "/metrics", "/readyz"):
        assert is_problem(http.get(f"{path}?x=1"), 422)

"""The binary routes /kv/{key} and /kv/{key}/incr, one statement of docs/server.md at a time."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from helpers import temporary_store
from serving import Serving, ask, serving
from test_server_items import LONGEST_KEY, ODD_KEYS, is_problem

from shmkv import Store

pytestmark = pytest.mark.slow

PNG = {"content-type": "image/png"}
LIMIT = 1 << 20  # of a body of this server


@pytest.fixture(scope="module")
def items() -> Iterator[Store]:
    with temporary_store(size="128MiB") as store:
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


# ---- Values --------------------------------------------------------------------------------------


def test_put_get_head_delete(http: httpx.Client) -> None:
    made = http.put("/kv/k", content=b"\0\xff", headers=PNG)
    assert (made.status_code, made.content) == (201, b"")
    got = http.get("/kv/k")
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, b"\0\xff", "image/png")
    assert got.headers["etag"] == made.headers["etag"]
    assert got.headers["shmkv-type"] == "bytes"
    assert "shmkv-ttl" not in got.headers
    head = http.head("/kv/k")
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "date": ""} == {**got.headers, "date": ""}
    replaced = http.put("/kv/k", content=b"2")
    assert (replaced.status_code, replaced.content) == (204, b"")
    assert replaced.headers["etag"] != made.headers["etag"]
    assert http.get("/kv/k").headers["content-type"] == "application/octet-stream"
    gone = http.delete("/kv/k")
    assert (gone.status_code, gone.content) == (204, b"")
    assert is_problem(http.delete("/kv/k"), 404)
    assert is_problem(http.get("/kv/k"), 404)
    assert http.head("/kv/k").status_code == 404


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_any_text_is_a_key(server: Serving, http: httpx.Client, items: Store, key: str) -> None:
    target = "/kv/" + quote(key, safe="")
    assert ask(server, "PUT", target, b"x").status == 201
    assert items[key] == b"x"
    assert ask(server, "GET", target).body == b"x"
    assert ask(server, "HEAD", target).status == 200
    assert ask(server, "DELETE", target).status == 204
    assert key not in items


def test_the_longest_key(server: Serving, http: httpx.Client, items: Store) -> None:
    for key in ("k" * LONGEST_KEY, "\n" * LONGEST_KEY, "😀" * (LONGEST_KEY // 4)):
        target = "/kv/" + quote(key, safe="")
        assert ask(server, "PUT", target, b"x").status == 201
        assert ask(server, "GET", target).body == b"x"
    assert ask(server, "PUT", "/kv/" + "k" * 65_536, b"x").status == 422
    assert ask(server, "PUT", "/kv/" + "k" * 210_000, b"x").status == 414
    assert len(items) == 3


@pytest.mark.parametrize("size", [0, 1, 100, 65_535, 65_536, 65_537, LIMIT - 1, LIMIT])
def test_values_of_any_size(http: httpx.Client, items: Store, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    assert http.put("/kv/k", content=value).status_code == 201
    assert http.get("/kv/k").content == value
    assert items["k"] == value
    assert http.get("/kv/k").headers["content-length"] == str(size)


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 50_000):
        yield b"x" * 50_000


def test_chunked_bodies(http: httpx.Client, items: Store) -> None:
    assert http.put("/kv/k", content=chunks(500_000)).status_code == 201
    assert items["k"] == b"x" * 500_000


def test_a_body_beyond_the_limit(server: Serving, http: httpx.Client, items: Store) -> None:
    assert ask(server, "PUT", "/kv/k", b"x" * (LIMIT + 1)).status == 413
    assert ask(server, "PUT", "/kv/k", b"x" * (20 * LIMIT)).status == 413
    assert ask(server, "PUT", "/kv/k", b"", Content_Length=str(1 << 60)).status == 413, "before any of it has come"
    assert http.put("/kv/k", content=chunks(2 * LIMIT)).status_code == 413
    assert is_problem(http.put("/kv/k", content=b"x" * (2 * LIMIT)), 413)
    assert len(items) == 0


def test_a_client_that_asks_first_sends_nothing_in_vain(server: Serving, items: Store, http: httpx.Client) -> None:
    head = "PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n"
    with server.connect() as bare:
        bare.sendall(head.format(3).encode())
        assert bare.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        bare.sendall(b"abc")
        assert bare.recv(1000).startswith(b"HTTP/1.1 201 ")
    with server.connect() as bare:
        bare.sendall(head.format(LIMIT + 1).encode())
        assert bare.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "content_type", ["text/html; charset=utf-8", "a/b", "x" * 255, 'weird/"quoted"; a=b', "application/json"]
)
def test_any_content_type_is_kept(http: httpx.Client, content_type: str) -> None:
    assert http.put("/kv/k", content=b"1", headers={"content-type": content_type}).status_code == 201
    assert http.get("/kv/k").headers["content-type"] == content_type


def test_content_types_that_cannot_be(server: Serving, http: httpx.Client, items: Store) -> None:
    assert ask(server, "PUT", "/kv/k", b"1", Content_Type="x" * 256).status == 422
    assert ask(server, "PUT", "/kv/k", b"1", Content_Type="text/ä").status == 422
    assert len(items) == 0
    assert ask(server, "PUT", "/kv/k", b"1", Content_Type="").status == 201
    assert http.get("/kv/k").headers["content-type"] == "application/octet-stream"


def test_a_stored_page_runs_no_script_of_this_server(http: httpx.Client) -> None:
    http.put("/kv/k", content=b"<script>alert(1)</script>", headers={"content-type": "text/html"})
    got = http.get("/kv/k")
    assert got.headers["content-security-policy"] == "sandbox"
    assert got.headers["x-content-type-options"] == "nosniff"


def test_what_python_stored(http: httpx.Client, items: Store) -> None:
    text, json = "text/plain; charset=utf-8", "application/json"
    for value, body, content_type, kind in (
        ("ä", "ä".encode(), text, "str"), ("", b"", text, "str"), (7, b"7", json, "int"), (True, b"true", json, "bool"),
        (None, b"null", json, "None"), (0.5, b"0.5", json, "float"), ([1, "a"], b'[1,"a"]', json, "list"),
        ({"a": None}, b'{"a":null}', json, "dict"),
    ):  # fmt: skip
        items["k"] = value
        got = http.get("/kv/k")
        assert (got.content, got.headers["content-type"]) == (body, content_type)
        assert got.headers["shmkv-type"] == kind


def test_what_has_no_form_is_406(http: httpx.Client, items: Store) -> None:
    day = datetime.date(2026, 1, 1)
    for value in ((1,), {1}, frozenset(), day, datetime.timedelta(1), float("nan"), {1: 2}, [day], 1 << 5_000):
        items["k"] = value
        got = http.get("/kv/k")
        assert is_problem(got, 406)
        assert got.headers["etag"], "and yet it can be replaced where it is this one"
    assert http.put("/kv/k", content=b"x", headers={"if-match": got.headers["etag"]}).status_code == 204


def test_a_pickle_is_406_and_is_not_opened(server: Serving, http: httpx.Client, items: Store) -> None:
    with Store.attach(items.name, codec="pickle") as pickling:
        pickling["k"] = complex(1, 2)
    assert is_problem(http.get("/kv/k"), 406)
    assert is_problem(http.get("/read/k"), 406)
    assert http.get("/export").json()["codec"] == "pickle"


# ---- TTL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", ["5", "5.5", "0.5", ".5", "1e2", "946728000"])
def test_ttl(http: httpx.Client, items: Store, ttl: str) -> None:
    assert http.put(f"/kv/k?ttl={ttl}", content=b"x").status_code == 201
    left = float(http.get("/kv/k").headers["shmkv-ttl"])
    assert float(ttl) - 2 < left <= float(ttl)
    http.put("/kv/k", content=b"x")
    assert "shmkv-ttl" not in http.get("/kv/k").headers


def test_an_item_expires(http: httpx.Client) -> None:
    http.put("/kv/k?ttl=0.05", content=b"x")
    threading.Event().wait(0.1)
    assert http.get("/kv/k").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["ttl=", "ttl=0", "ttl=-1", "ttl=nan", "ttl=inf", "ttl=1_000", "ttl=%205", "ttl=%2B5", "ttl=0x10", "ttl=%D9%A3",
     "ttl=946728001", "ttl=1&ttl=2", "TTL=5", "x=1", "ttl=" + "9" * 400],
    ids=lambda query: query[:20],
)  # fmt: skip
def test_queries_that_are_wrong(http: httpx.Client, items: Store, query: str) -> None:
    assert is_problem(http.put(f"/kv/k?{query}", content=b"x"), 422)
    assert len(items) == 0


def test_other_routes_of_a_key_have_no_query(http: httpx.Client, items: Store) -> None:
    items["k"] = 1
    for method, path in (("GET", "/kv/k"), ("DELETE", "/kv/k"), ("POST", "/kv/k/incr")):
        assert is_problem(http.request(method, f"{path}?x=1"), 422)
    assert items["k"] == 1


# ---- Conditions ----------------------------------------------------------------------------------


def test_etags_are_of_this_store_and_version(http: httpx.Client, items: Store) -> None:
    first = http.put("/kv/k", content=b"1").headers["etag"]
    assert first.startswith(f'"{items.uuid.hex}-')
    http.delete("/kv/k")
    second = http.put("/kv/k", content=b"1").headers["etag"]
    assert first != second, "an item that was deleted and made again is another one"


def test_if_none_match_star_creates_only(http: httpx.Client, items: Store) -> None:
    only_new = {"if-none-match": "*"}
    assert http.put("/kv/k", content=b"1", headers=only_new).status_code == 201
    assert is_problem(http.put("/kv/k", content=b"2", headers=only_new), 412)
    assert items["k"] == b"1"
    assert is_problem(http.put("/kv/k", content=b"2", headers={"if-none-match": '"a"'}), 422)
    assert is_problem(http.put("/kv/k", content=b"2", headers={"if-none-match": "*", "if-match": "*"}), 412)
    assert is_problem(http.put("/kv/new", content=b"2", headers={"if-none-match": "*", "if-match": "*"}), 412)


def test_if_match_is_compare_and_set(http: httpx.Client, items: Store) -> None:
    assert is_problem(http.put("/kv/k", content=b"0", headers={"if-match": "*"}), 412)
    tag = http.put("/kv/k", content=b"1").headers["etag"]
    newer = http.put("/kv/k", content=b"2", headers={"if-match": tag})
    assert newer.status_code == 204
    assert is_problem(http.put("/kv/k", content=b"3", headers={"if-match": tag}), 412)
    assert items["k"] == b"2"
    assert http.put("/kv/k", content=b"4", headers={"if-match": "*"}).status_code == 204
    assert is_problem(http.delete("/kv/k", headers={"if-match": newer.headers["etag"]}), 412)
    assert items["k"] == b"4"
    assert http.delete("/kv/k", headers={"if-match": http.get("/kv/k").headers["etag"]}).status_code == 204
    assert is_problem(http.delete("/kv/k", headers={"if-match": "*"}), 412)


def test_lists_of_etags(http: httpx.Client, items: Store) -> None:
    other = f'"{items.uuid.hex}-ffff"'
    for wanted in ("{other}, {tag}", '"x","y" , {tag}', "{tag},", 'W/"x", {tag}', '"a,b", {tag}'):
        tag = http.put("/kv/k", content=b"1").headers["etag"]
        tags = wanted.format(other=other, tag=tag)
        assert http.get("/kv/k", headers={"if-match": tags}).status_code == 200, tags
        assert http.get("/kv/k", headers={"if-none-match": tags}).status_code == 304, tags
        assert http.put("/kv/k", content=b"2", headers={"if-match": tags}).status_code == 204, tags


def test_etags_that_match_nothing(http: httpx.Client, items: Store) -> None:
    tag = http.put("/kv/k", content=b"1").headers["etag"]
    other = f'"{items.uuid.hex}-ffff"'
    for wanted in (
        "",
        other,
        '"x"',
        '"',
        tag.strip('"'),
        tag.upper(),
        tag.replace("-", "-0"),
        tag[:-1],
        f'"x{tag[1:]}',
    ):
        assert http.get("/kv/k", headers={"if-match": wanted}).status_code == 412, wanted
        assert http.get("/kv/k", headers={"if-none-match": wanted}).status_code == 200, wanted
        assert http.put("/kv/k", content=b"9", headers={"if-match": wanted}).status_code == 412, wanted
        assert http.delete("/kv/k", headers={"if-match": wanted}).status_code == 412, wanted
    assert items["k"] == b"1"


def test_lines_of_one_header_are_one_list(http: httpx.Client) -> None:
    tag = http.put("/kv/k", content=b"1").headers["etag"]
    assert http.get("/kv/k", headers=[("if-match", '"x"'), ("if-match", tag)]).status_code == 200
    assert http.get("/kv/k", headers=[("if-none-match", tag), ("if-none-match", '"x"')]).status_code == 304


def test_a_weak_tag_is_good_for_a_cache_and_not_for_a_change(http: httpx.Client, items: Store) -> None:
    """RFC 9110, 8.8.3.2: If-None-Match compares weakly, If-Match strongly."""
    weak = "W/" + http.put("/kv/k", content=b"1").headers["etag"]
    assert http.get("/kv/k", headers={"if-none-match": weak}).status_code == 304
    assert http.get("/kv/k", headers={"if-match": weak}).status_code == 412
    assert http.put("/kv/k", content=b"2", headers={"if-match": weak}).status_code == 412
    assert http.delete("/kv/k", headers={"if-match": weak}).status_code == 412
    assert items["k"] == b"1"


def test_conditional_reads(http: httpx.Client) -> None:
    tag = http.put("/kv/k", content=b"1").headers["etag"]
    for read in (http.get, http.head):
        same = read("/kv/k", headers={"if-none-match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert read("/kv/k", headers={"if-none-match": "*"}).status_code == 304
        assert read("/kv/k", headers={"if-match": "*"}).status_code == 200
        assert read("/kv/nothing", headers={"if-match": "*"}).status_code == 412
        assert read("/kv/nothing", headers={"if-none-match": tag}).status_code == 404


def test_an_etag_of_another_store(http: httpx.Client, items: Store) -> None:
    with temporary_store() as store, serving("--store", store.name) as other:
        strange = other.http.put("/kv/k", content=b"1").headers["etag"]
    mine = http.put("/kv/k", content=b"1").headers["etag"]
    assert strange.rpartition("-")[2] == '2"' or mine != strange
    assert http.put("/kv/k", content=b"2", headers={"if-match": strange}).status_code == 412


def test_compare_and_set_by_many_loses_nothing(server: Serving, http: httpx.Client, items: Store) -> None:
    items["n"] = b"0"

    def add() -> None:
        with server.client() as client:
            for _ in range(40):
                while True:
                    seen = client.get("/kv/n")
                    more = str(int(seen.content) + 1).encode()
                    if client.put("/kv/n", content=more, headers={"if-match": seen.headers["etag"]}).status_code == 204:
                        break

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert items["n"] == b"160"


# ---- Counting ------------------------------------------------------------------------------------


def incr(http: httpx.Client, key: str, **body: Any) -> httpx.Response:
    return http.post(f"/kv/{key}/incr", json=body) if body else http.post(f"/kv/{key}/incr")


def test_incr(http: httpx.Client, items: Store) -> None:
    assert incr(http, "n").json() == {"value": 1}
    assert incr(http, "n", delta=-5.0).json() == {"value": -4}, "as JSON does not tell 5.0 from 5"
    assert incr(http, "m", delta=2, initial=40, ttl=50).json() == {"value": 42}
    assert 49 < (items.ttl("m") or 0) <= 50
    assert items["n"] == -4
    items["digits"] = b"41"
    assert incr(http, "digits").json() == {"value": 42}
    assert items["digits"] == b"42"
    items["text"] = "-1"
    assert incr(http, "text").json() == {"value": 0}
    assert items["text"] == "0"


def test_incr_of_what_is_no_number(http: httpx.Client, items: Store) -> None:
    for value in (b"x", b"", b" 1", b"1.0", b"+1", "٣", 1.0, None, [1], True, b"9" * 21):
        items["n"] = value
        assert is_problem(incr(http, "n"), 409)
        assert items["n"] == value


def test_incr_stays_in_64_bits(http: httpx.Client, items: Store) -> None:
    for most in (2**63 - 1, str(2**63 - 1).encode()):
        items["n"] = most
        assert is_problem(incr(http, "n"), 409)
        assert items["n"] == most
    items["n"] = -(2**63)
    assert is_problem(incr(http, "n", delta=-1), 409)
    assert incr(http, "n", delta=2**63 - 1).json() == {"value": -1}
    assert incr(http, "new", delta=2**64).status_code in (409, 422)
    assert incr(http, "new", initial=2**63).status_code in (409, 422)
    assert "new" not in items


@pytest.mark.parametrize(
    "body", ["[]", "5", '{"delta":1.5}', '{"delta":"1"}', '{"by":1}', '{"ttl":-1}', "{", '{"delta":true}']
)
def test_bodies_that_are_no_increment(http: httpx.Client, items: Store, body: str) -> None:
    assert is_problem(http.post("/kv/n/incr", content=body), 422)
    assert len(items) == 0


def test_incr_is_a_part_of_keys_too(server: Serving, http: httpx.Client, items: Store) -> None:
    assert ask(server, "PUT", "/kv/a/incr", b"x").status == 201
    assert ask(server, "GET", "/kv/a/incr").body == b"x"
    assert items["a/incr"] == b"x"
    assert ask(server, "POST", "/kv/b/incr/incr").json == {"value": 1}
    assert items["b/incr"] == 1
    assert ask(server, "POST", "/kv//incr").json == {"value": 1}
    assert items[""] == 1
    for target in ("/kv/b%2Fincr", "/kv/b", "/kv/incr"):
        assert ask(server, "POST", target).status == 405, target
    assert ask(server, "POST", "/kv/").status == 415, "the batch's route, with its last slash"
    assert ask(server, "POST", "/kv/a%2Fb/incr").json == {"value": 1}
    assert items["a/b"] == 1


def test_increments_of_many_are_all_counted(server: Serving, http: httpx.Client, items: Store) -> None:
    items["digits"] = b"0"

    def add() -> None:
        with server.client() as client:
            for _ in range(50):
                incr(client, "n")
                incr(client, "digits")

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (items["n"], items["digits"]) == (200, b"200")


def test_other_methods(http: httpx.Client) -> None:
    for method in ("POST", "PATCH", "OPTIONS", "TRACE"):
        answer = http.request(method, "/kv/k")
        assert is_problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE"

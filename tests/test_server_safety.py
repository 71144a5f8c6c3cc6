"""Who may ask the server, how much, and what it says when the store cannot; each statement of docs/server.md."""

from __future__ import annotations

import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from helpers import Forked, temporary_store, wait_until
from serving import Serving, ask, exchange, serving, statuses
from shell import run
from test_locks import BATCH, stop_while_it_holds_locks, write_batches
from test_server_items import is_problem

from shmkv import Store

pytestmark = pytest.mark.slow

TOKEN = "a-token-that-nobody-else-has-1234"


@pytest.fixture(scope="module")
def items() -> Iterator[Store]:
    with temporary_store() as store:
        yield store


@pytest.fixture(scope="module")
def server(items: Store) -> Iterator[Serving]:
    with serving("--store", items.name, "--max-body", "1") as server:
        yield server


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture(scope="module")
def guarded(items: Store, token_file: Path) -> Iterator[Serving]:
    with serving("--store", items.name, "--token-file", str(token_file), "--workers", "2") as server:
        yield server


# ---- Hosts and origins ---------------------------------------------------------------------------


def test_a_strange_host_is_refused(server: Serving) -> None:
    for host in (
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost:8003:1",
        "evil@localhost",
    ):
        for method, path in (("GET", "/kv/k"), ("GET", "/"), ("PUT", "/kv/k"), ("GET", "/stats"), ("GET", "/healthz")):
            assert ask(server, method, path, Host=host).status == 400, (host, path)
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8003", "[::1]", "[::1]:80"):
        assert ask(server, "GET", "/healthz", Host=host).status == 200, host


def test_there_is_one_host(server: Serving) -> None:
    assert statuses(exchange(server, b"GET /healthz HTTP/1.1\r\n\r\n")) == [400]
    two = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"
    assert statuses(exchange(server, two)) == [400]


def test_a_host_can_be_allowed(items: Store) -> None:
    with serving("--store", items.name, "--allow-host", "kv.example") as server:
        assert ask(server, "GET", "/healthz", Host="KV.example:80").status == 200
        assert ask(server, "GET", "/healthz", Host="localhost").status == 200
        assert ask(server, "GET", "/healthz", Host="evil.example").status == 400
    with serving("--store", items.name, "--allow-host", "*") as server:
        assert ask(server, "GET", "/healthz", Host="any.example").status == 200


def test_a_page_of_another_site_changes_nothing(server: Serving, items: Store) -> None:
    items["k"] = 1
    here = server.url
    for origin in ("https://evil.example", "null", "http://localhost:1", "file://", here + ".evil.example"):
        headers = {"origin": origin}
        for method, path in (
            ("PUT", "/kv/k"),
            ("DELETE", "/kv/k"),
            ("POST", "/kv/k/incr"),
            ("POST", "/put/"),
            ("POST", "/check"),
        ):
            assert is_problem(server.http.request(method, path, headers=headers), 403)
        got = server.http.get("/kv/k", headers=headers)
        assert "access-control-allow-origin" not in got.headers
    assert items["k"] == 1
    assert server.http.put("/kv/k", content=b"2", headers={"origin": here}).status_code == 204


# ---- Tokens --------------------------------------------------------------------------------------


def test_every_route_wants_the_token(guarded: Serving) -> None:
    for method, path in (
        ("GET", "/kv/k"), ("HEAD", "/kv/k"), ("PUT", "/kv/k"), ("DELETE", "/kv/k"), ("POST", "/kv"), ("GET", "/kv"),
        ("GET", "/read/k"), ("GET", "/read_key_range/"), ("POST", "/put/"), ("POST", "/batch_put/"),
        ("DELETE", "/delete/k"),
        ("POST", "/kv/k/incr"), ("GET", "/stats"), ("GET", "/metrics"), ("GET", "/report"), ("GET", "/export"),
        ("POST", "/check"), ("GET", "/nothing"), ("GET", "/%64ocs"),
    ):  # fmt: skip
        answer = guarded.http.request(method, path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        allowed = guarded.http.request(method, path, headers={"authorization": f"Bearer {TOKEN}"})
        assert allowed.status_code != 401, path
    for path in ("/", "/docs", "/healthz", "/readyz", "/openapi.json"):
        assert guarded.http.get(path).status_code == 200


def test_wrong_tokens(guarded: Serving) -> None:
    for wrong in (
        "",
        "Bearer",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer{TOKEN}",
        "Bearer \xff",
    ):
        assert guarded.http.get("/stats", headers={"authorization": wrong.encode("latin-1")}).status_code == 401, wrong
    for right in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"):
        assert guarded.http.get("/stats", headers={"authorization": right}).status_code == 200, right


def test_a_token_behind_the_body_is_none(guarded: Serving) -> None:
    raw = (
        b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
    )
    assert statuses(exchange(guarded, raw)) == [401]


def test_the_token_is_in_no_process_list_and_no_log(guarded: Serving) -> None:
    guarded.http.get("/kv/k", headers={"authorization": f"Bearer {TOKEN}"})
    exchange(guarded, b"GET /kv/k HTTP/1.1\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\nBroken\r\n\r\n")
    guarded.wait_for_workers_by_count()
    family = [psutil.Process(guarded.pid), *psutil.Process(guarded.pid).children(recursive=True)]
    assert len(family) >= 3
    for process in family:
        assert TOKEN not in " ".join(process.cmdline())
        assert TOKEN.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
    everybody = subprocess.run(["ps", "axeww"], capture_output=True, check=False).stdout
    assert TOKEN.encode() not in everybody
    assert TOKEN not in guarded.log


@pytest.mark.parametrize("content", ["", "short", "has a space in it, which is not allowed", "ä" * 20])
def test_tokens_that_are_none(items: Store, tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    refused = run("serve", "--store", items.name, "--token-file", str(tmp_path / "token"))
    assert refused.status == 2
    assert content not in refused.err or not content
    assert run("serve", "--store", items.name, "--token-file", str(tmp_path / "none")).status == 2


# ---- Addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_beyond_this_machine_takes_a_token(items: Store, host: str) -> None:
    refused = run("serve", "--store", items.name, "--port", "0", "--host", host)
    assert refused.status == 77
    assert "--token-file" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [("--insecure",), ("--token-file", "{token}")], ids=["insecure", "token"])
def test_beyond_this_machine(items: Store, token_file: Path, words: tuple[str, ...]) -> None:
    given = [word.format(token=token_file) for word in words]
    with serving("--store", items.name, "--host", "0.0.0.0", *given) as server:
        assert server.url.startswith("http://0.0.0.0:")
        status = server.http.get("/stats").status_code
        assert status == (200 if words == ("--insecure",) else 401)


def test_by_default_it_listens_here_only(server: Serving) -> None:
    listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]


# ---- Limits --------------------------------------------------------------------------------------


def test_headers(server: Serving) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    assert statuses(exchange(server, request + b"X: y\r\n" * 98 + b"\r\n")) == [200]
    for more in (
        b"X: y\r\n" * 10_000,
        b"X: " + b"y" * 40_000 + b"\r\n",
        b"X" * 40_000 + b": y\r\n",
        b"X: " + b"y" * 10_000_000,
    ):
        answer = exchange(server, request + more + b"\r\n")
        assert statuses(answer) == [431]
        assert b"application/problem+json" in answer
    assert statuses(exchange(server, b"GET /kv/" + b"k" * 10_000_000)) == [414]
    assert statuses(exchange(server, b"GET /read_key_range/?start=" + b"k" * 300_000 + b" HTTP/1.1\r\n\r\n")) == [414]


def test_a_large_body_costs_nothing_before_it_is_refused(server: Serving) -> None:
    [worker] = server.workers()
    before = psutil.Process(worker).memory_info().rss
    open_ones = []
    for _ in range(50):
        bare = server.connect()
        bare.sendall(b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        open_ones.append(bare)
    for size in (1 << 21, 1 << 40, 1 << 62):
        assert ask(server, "PUT", "/kv/k", Content_Length=str(size)).status == 413
    assert psutil.Process(worker).memory_info().rss - before < 20 << 20
    for bare in open_ones:
        bare.close()


# ---- A store that cannot -------------------------------------------------------------------------


def test_a_full_store_is_507() -> None:
    with temporary_store(size="1MiB") as store, serving("--store", store.name) as server:
        stored = 0
        while (answer := server.http.put(f"/kv/{stored}", content=b"x" * 5_000)).status_code == 201:
            stored += 1
        assert is_problem(answer, 507)
        assert answer.json()["error"] == "StoreFullError"
        assert stored > 50
        while (other := server.http.post("/put/", json={"key": f"{stored}", "value": "x" * 5_000})).status_code == 201:
            stored += 1  # what the refusal before has tidied up may be room for one more
        assert is_problem(other, 507)
        batch = {"items": [{"key": f"b{at}", "value": "x" * 3_000} for at in range(20)]}
        assert is_problem(server.http.post("/batch_put/", json=batch), 507)
        assert len(store) == stored
        assert server.http.get("/kv/0").content == b"x" * 5_000
        for at in range(stored):
            assert server.http.delete(f"/kv/{at}").status_code == 204
        assert server.http.post("/batch_put/", json=batch).status_code == 200


def test_a_value_that_can_never_fit() -> None:
    with temporary_store(size="1MiB") as store, serving("--store", store.name) as server:
        assert server.http.put("/kv/k", content=b"x" * (2 << 20)).status_code in (422, 507)
        assert len(store) == 0


def test_a_lock_that_is_held_is_503_and_nobody_else_waits(make_store: Callable[..., Store], rng: random.Random) -> None:
    store = make_store()
    store.put_many(dict.fromkeys(BATCH, 0))
    writer = Forked(write_batches, store)
    stop_while_it_holds_locks(store, writer, rng)
    with serving("--store", store.name, "--lock-timeout", "1.5") as server:
        answers: list[httpx.Response] = []
        batch = {"items": [{"key": key, "value": -1} for key in BATCH]}

        def write() -> None:
            with server.client() as client:
                answers.append(client.post("/batch_put/", json=batch))

        threads = [threading.Thread(target=write) for _ in range(3)]
        for thread in threads:
            thread.start()
        rounds = 0  # of reads that were over while all writers waited
        while not answers:
            assert server.http.get(f"/kv/{rng.choice(BATCH)}").status_code == 200
            assert server.http.get("/healthz").status_code == 200
            assert server.http.get("/readyz").status_code == 200
            rounds += 1
        assert rounds >= 5, "reads wait for nobody"
        assert server.http.get("/metrics").status_code == 200
        for thread in threads:
            thread.join()
        for answer in answers:
            assert is_problem(answer, 503)
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"] == "LockTimeoutError"
        # The one that waits for the lock names its holder; the others wait for their turn behind it, in the server.
        assert any(str(writer.pid) in answer.json()["detail"] for answer in answers)
        statuses_of_one = {server.http.put(f"/kv/{key}", content=b"x").status_code for key in BATCH[:4]}
        assert statuses_of_one <= {204, 503}
        writer.kill()
        assert server.http.post("/batch_put/", json=batch).status_code == 200
        wait_until(lambda: set(store.get_many(BATCH).values()) == {-1})


def test_a_lock_that_is_held_for_a_moment_is_waited_for(make_store: Callable[..., Store], rng: random.Random) -> None:
    """Also by a server that has begun on an empty store, which is false as an empty dict is."""
    store = make_store()
    with serving("--store", store.name, "--lock-timeout", "10") as server:
        store.put_many(dict.fromkeys(BATCH, 0))
        writer = Forked(write_batches, store)
        stop_while_it_holds_locks(store, writer, rng)
        threading.Timer(0.5, writer.resume).start()
        answer = server.http.post("/batch_put/", json={"items": [{"key": key, "value": -1} for key in BATCH]})
        assert answer.status_code == 200, answer.text
        writer.kill()


# ---- Nothing of Python ---------------------------------------------------------------------------


def test_no_request_unpickles(server: Serving) -> None:
    """The server never loads the module by whose calls a pickle would run."""
    source = Path(__file__).resolve().parent.parent / "shmkv" / "server"
    for path in source.glob("*.py"):
        text = path.read_text()
        for word in ("pickle.", "import pickle", "marshal", "eval(", "exec(", 'codec="pickle"'):
            assert word not in text, (path.name, word)


def test_errors_tell_no_traceback(server: Serving) -> None:
    answer = exchange(server, b"\0\0\0\r\n\r\n")
    assert statuses(answer) == [400]
    assert b"Traceback" not in answer
    assert os.fspath(Path(__file__).parent.parent).encode() not in answer

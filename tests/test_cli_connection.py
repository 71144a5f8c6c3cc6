"""What a server may answer, and the exit status and sentence that it becomes: of a server that says what it is told."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from shell import Ran, run

from shmkv import errors
from shmkv.cli.connection import Connection, error_of


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        status, headers, body = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.server.hangs_up

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


class Scripted(socketserver.ThreadingTCPServer):
    """Answers what it was told to, in turn, and remembers what it was asked."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.hangs_up = False  # after each answer, without saying so before

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def will_answer(self, status: int, thing: Any = None, **headers: str) -> None:
        body = b"" if thing is None else thing if isinstance(thing, bytes) else json.dumps(thing).encode()
        self.answers.append((status, headers, body))


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    with Scripted() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # s, to see its end
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server: Scripted, *words: str) -> Ran:
    return run("get", "k", "--url", server.url, *words)


# ---- Problems ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "ends"),
    [
        (401, None, 77),
        (403, None, 77),
        (404, None, 70),
        (409, None, 1),
        (413, None, 2),
        (422, None, 2),
        (422, "KeyTooLargeError", 70),
        (422, "ValueTooLargeError", 70),
        (501, None, 70),
        (503, "LockTimeoutError", 75),
        (503, None, 75),
        (507, "StoreFullError", 73),
        (507, None, 73),
        (500, "CorruptStoreError", 69),
        (500, "NoSuchError", 70),
        (500, None, 70),
    ],
)
def test_a_problem_becomes_a_status_and_a_sentence(
    scripted: Scripted, status: int, error: str | None, ends: int
) -> None:
    problem = {"type": "about:blank", "title": "T", "status": status, "detail": "what is wrong"}
    scripted.will_answer(status, {**problem, **({"error": error} if error else {})})
    told = run("del", "k", "--url", scripted.url)
    assert (told.out, told.err, told.status) == (b"", "shmkv del: what is wrong\n", ends)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"1", b"\xff"])
@pytest.mark.parametrize("status", [301, 404, 500, 502])
def test_an_answer_without_a_problem_is_no_server_of_ours(scripted: Scripted, status: int, body: bytes) -> None:
    scripted.will_answer(status, body)
    told = get(scripted)
    assert (told.out, told.status) == (b"", 69)
    assert "is this a server of shmkv?" in told.err


@pytest.mark.parametrize("body", [b"<html>hello", b"", b"[]", b'{"items": 1}', b'{"items": [{"key": "k"}]}', b"null"])
def test_an_answer_of_another_form_is_no_server_of_ours(scripted: Scripted, body: bytes) -> None:
    scripted.will_answer(200, body)
    told = get(scripted)
    assert (told.out, told.status) == (b"", 69)
    assert "is this a server of shmkv?" in told.err


def test_every_error_of_ours_comes_back_as_itself() -> None:
    for name in errors.__all__:
        problem = json.dumps({"title": "T", "detail": "what", "status": 500, "error": name}).encode()
        assert type(error_of(500, problem)).__name__ == name


# ---- The connection -----------------------------------------------------------------------------------


def test_an_idle_connection_that_the_server_closed_is_opened_anew(scripted: Scripted) -> None:
    scripted.hangs_up = True
    connection = Connection(scripted.url)
    for number in range(3):
        scripted.will_answer(200, {"number": number})
        assert connection.ask("GET", "/stats").json() == {"number": number}
        threading.Event().wait(0.1)  # for its end to arrive
    connection.close()


def test_one_connection_serves_many_requests(scripted: Scripted) -> None:
    connection = Connection(scripted.url)
    for _ in range(3):
        scripted.will_answer(200, {})
        connection.ask("GET", "/stats")
    assert len(connection._all) == 1
    connection.close()


def test_a_server_that_hangs_up_ends_with_69(scripted: Scripted) -> None:
    scripted.will_answer(200, b"half", **{"Content-Length": "100"})
    scripted.hangs_up = True
    told = get(scripted)
    assert (told.out, told.status) == (b"", 69)
    assert told.err.startswith(f"shmkv get: cannot reach {scripted.url}: ")


def test_an_export_that_breaks_off_is_an_error(scripted: Scripted) -> None:
    scripted.will_answer(200, b'{"key":"a","value":1}\n', **{"Content-Length": "100"})
    scripted.hangs_up = True
    told = run("export", "--url", scripted.url)
    assert (told.out, told.status) == (b'{"key":"a","value":1}\n', 69)


def test_what_is_sent(scripted: Scripted, tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    scripted.will_answer(200, {"stored": True})
    words = ("--if-present", "--ttl", "1.5", "--content-type", "a/b", "--token-file", str(token))
    assert run("set", "a/b ü?", "value", "--url", f"{scripted.url}/below/", *words).status == 0
    [(method, path, headers, body)] = scripted.asked
    assert (method, path, headers["Authorization"]) == ("POST", "/below/kv", "Bearer t0ken")
    sent = json.loads(body)
    assert sent["only"] == "present"
    [item] = sent["set"]
    assert (item["key"], item["ttl"], item["content_type"]) == ("a/b ü?", 1.5, "a/b")

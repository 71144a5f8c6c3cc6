"""Whatever comes over a connection, the server goes on serving: its memory stays, its log is empty."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from helpers import PATIENCE, temporary_store, wait_until
from serving import Serving, exchange, read_all, serving, serving_with, statuses

from shmkv import Store

pytestmark = pytest.mark.slow

MIB = 1 << 20
HOST = b"Host: localhost\r\n"
GET = b"GET /kv/k HTTP/1.1\r\n" + HOST + b"\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
PUT = b"PUT /kv/k HTTP/1.1\r\n" + HOST
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
FUZZ_SECONDS = 20


@pytest.fixture(scope="module")
def items() -> Iterator[Store]:
    with temporary_store(size="256MiB") as store:
        yield store


@pytest.fixture(scope="module")
def server(items: Store) -> Iterator[Serving]:
    with serving("--store", items.name, "--max-body", "8") as server:
        for _ in range(200):  # until nothing is imported or allocated for the first time
            server.http.put("/kv/k", content=b"v")
        server.http.get("/stats")
        yield server


@pytest.fixture(autouse=True)
def still_serves(server: Serving, items: Store) -> Iterator[None]:
    items.clear()
    items["k"] = b"v"
    before = set(server.workers())
    yield
    with server.client(timeout=10 * PATIENCE) as client:
        assert client.put("/kv/after", content=b"v").status_code in (201, 204)
        assert client.get("/kv/after").content == b"v"
    assert set(server.workers()) == before, "a worker has died"
    assert server.complaints == ""


def memory(server: Serving) -> int:
    """Of the workers, without what they share: the store."""
    told = [psutil.Process(pid).memory_info() for pid in server.workers()]
    return sum(info.rss - info.shared for info in told)


@contextmanager
def costs_at_most(server: Serving, most: int) -> Iterator[None]:
    """In memory, while it goes on and afterwards."""
    before, peak, ended = memory(server), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, memory(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    assert peak - before < most, f"{(peak - before) / MIB:.1f} MiB more"


def pour(bare: socket.socket, data: bytes, seconds: float, most: int) -> int:
    """Send `data` again and again, reading nothing, until so many bytes are sent or the other side ends it."""
    sent, at, until = 0, 0, time.monotonic() + seconds
    bare.setblocking(False)
    while sent < most and time.monotonic() < until:
        try:
            at = (at + bare.send(data[at : at + 65_536])) % len(data)
            sent += 1
        except BlockingIOError:
            time.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError):
            break
    return sent


# ---- Shapes that are wrong -----------------------------------------------------------------------

BODY = b"Content-Length: 3\r\n"
WRONG = {
    "two lengths": PUT + BODY + b"Content-Length: 5\r\n\r\nabcde",
    "two lengths that are equal": PUT + BODY + BODY + b"\r\nabc",
    "length and chunks": PUT + BODY + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunks and length": PUT + b"Transfer-Encoding: chunked\r\n" + BODY + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "a negative length": PUT + b"Content-Length: -1\r\n\r\n",
    "a signed length": PUT + b"Content-Length: +3\r\n\r\nabc",
    "a length in hexadecimal": PUT + b"Content-Length: 0x3\r\n\r\nabc",
    "a list of lengths": PUT + b"Content-Length: 3, 3\r\n\r\nabc",
    "a length beyond 64 bits": PUT + b"Content-Length: 99999999999999999999\r\n\r\n",
    "no chunk size": CHUNKED + b"xyz\r\n",
    "a negative chunk": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"fffffffffffffffff\r\n",
    "a chunk that is longer than it says": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a space before the colon": PUT + b"Content-Length : 3\r\n\r\nabc",
    "a folded line": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n",
    "a NUL in a name": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X\0: a\r\n\r\n",
    "no header name": b"GET /healthz HTTP/1.1\r\n" + HOST + b": a\r\n\r\n",
    "no colon": b"GET /healthz HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "a tab in the path": b"GET /kv/a\tb HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /kv/a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /kv/k#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes beyond ASCII": "GET /kv/ä HTTP/1.1\r\n".encode() + HOST + b"\r\n",
    "no slash": b"GET kv/k HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad percent-encoding": b"GET /kv/%zz HTTP/1.1\r\n" + HOST + b"\r\n",
    "no UTF-8": b"GET /kv/%ff HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "CONNECT with a path": b"CONNECT /kv/k HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"BREW /kv/k HTTP/1.1\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/3.7": b"GET /healthz HTTP/3.7\r\n" + HOST + b"\r\n",
    "no version": b"GET /healthz\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a1030300") + bytes(150),
    "no chunk size in a read": GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "the host in a trailer": b"GET /kv/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + HOST + b"\r\n",
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("raw", WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused_once(server: Serving, items: Store, raw: bytes) -> None:
    answer = exchange(server, raw + GET)
    assert statuses(answer)[0] == 400
    assert b"application/problem+json" in answer
    assert items["k"] == b"v"


def test_transfer_encodings_that_are_not_known(server: Serving, items: Store) -> None:
    for coding in (b"gzip, chunked", b"gzip", b"identity", b"xchunked", b"chunked, chunked"):
        answer = exchange(server, PUT + b"Transfer-Encoding: " + coding + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert statuses(answer)[0] in (400, 501)
    assert items["k"] == b"v"


def test_shapes_that_are_odd_and_right(server: Serving, items: Store) -> None:
    for raw in (
        b"GET http://localhost/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n",
        b"\r\n" * 20 + HEALTH,
        b"GET /healthz HTTP/1.1\r\nhOsT:localhost  \r\nX:\r\n\r\n",
        b"GET /healthz HTTP/1.0\r\n" + HOST + b"\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + BODY + b"\r\nabc",
    ):
        assert statuses(exchange(server, raw)) == [200], raw
    answer = exchange(server, CHUNKED + b"3;name=value\r\nabc\r\n0000\r\nTrailer: x\r\n\r\n" + GET)
    assert statuses(answer) == [204, 200]
    assert answer.endswith(b"abc")


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
@pytest.mark.parametrize(
    "rest", [BODY + b"\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"], ids=["length", "chunks"]
)
def test_another_protocol_is_declined(server: Serving, items: Store, protocol: bytes, rest: bytes) -> None:
    """The request is answered as it is, its body stays a body, and what comes behind it is the next request."""
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    answer = exchange(server, PUT + wish + rest + GET)
    assert statuses(answer) == [204, 200]
    assert answer.endswith(b"abc")
    assert items["k"] == b"abc"
    assert statuses(exchange(server, b"GET /healthz HTTP/1.1\r\n" + HOST + wish + b"\r\n" + HEALTH)) == [200, 200]
    with server.connect() as bare:
        for byte in PUT + wish + rest + GET:
            bare.sendall(bytes([byte]))
        bare.shutdown(socket.SHUT_WR)
        assert statuses(read_all(bare)) == [204, 200], "in pieces too"


def test_trailers_change_nothing(server: Serving, items: Store) -> None:
    trailers = b"Content-Type: text/html\r\nIf-None-Match: *\r\nHost: evil\r\n"
    assert statuses(exchange(server, CHUNKED + b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n" + HEALTH)) == [204, 200]
    assert server.http.get("/kv/k").headers["content-type"] == "application/octet-stream"


def test_half_a_request(server: Serving) -> None:
    whole = PUT + b"Content-Type: a/b\r\n" + BODY + b"\r\nabc"
    for end in range(0, len(whole), 7):
        assert statuses(exchange(server, whole[:end])) in ([], [400])


# ---- Pipelines -----------------------------------------------------------------------------------


def test_answers_come_in_order(server: Serving, items: Store) -> None:
    requests, wanted = [], []
    for number in range(2_000):
        body = b"%d" % number
        requests.append(b"PUT /kv/p HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        requests.append(b"GET /kv/p HTTP/1.1\r\n" + HOST + b"\r\n")
        if number % 100 == 0:
            requests.append(b"GET /stats HTTP/1.1\r\n" + HOST + b"\r\n")  # in a thread
        wanted.append(body)
    answer = exchange(server, b"".join(requests))
    found = [
        part.rpartition(b"\r\n\r\n")[2]
        for part in answer.split(b"HTTP/1.1 ")
        if part.startswith(b"200") and b"etag" in part
    ]
    assert found == wanted
    assert items.delete("p")


def test_a_refusal_waits_for_the_answers_before_it(server: Serving, items: Store) -> None:
    """Or the client would take it for the answer to what was done."""
    for slow in (b"GET /stats HTTP/1.1\r\n" + HOST + b"\r\n", PUT + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000):
        for broken in (
            b"\0\r\n\r\n",
            PUT + b"Content-Length: x\r\n\r\n",
            CHUNKED + b"zz\r\n",
            PUT + b"Content-Length: 9999999999\r\n\r\n",
        ):
            answers = statuses(exchange(server, slow + HEALTH + slow + broken + HEALTH))
            assert answers[:3] in ([200, 200, 200], [204, 200, 204])
            assert answers[3:] in ([400], [413])


def test_a_broken_body_has_one_answer(server: Serving) -> None:
    strange = b"PUT /kv/k HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n"
    with server.connect() as bare:
        bare.sendall(strange)
        assert bare.recv(10_000).startswith(b"HTTP/1.1 400 ")
        bare.sendall(b"no chunk\r\n")
        assert statuses(read_all(bare)) == []


def test_a_pipeline_that_nobody_reads(server: Serving) -> None:
    with costs_at_most(server, 24 * MIB), server.connect() as bare:
        assert pour(bare, GET * 2_000, 3, 2_000) > 1
    with costs_at_most(server, 24 * MIB), server.connect() as bare:
        pour(bare, (b"GET /stats HTTP/1.1\r\n" + HOST + b"\r\n") * 2_000, 2, 2_000)


# ---- What never ends -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"", b"\r\n"), (b"", b"G"), (b"GET /", b"k"), (b"GET / HTTP/1.1\r\n",
        b"X: y\r\n"), (b"GET / HTTP/1.1\r\nX: ", b"y"),
        (b"GET / HTTP/1.1\r\n", b"y"), (CHUNKED + b"0\r\nX: ", b"y"), (CHUNKED + b"0\r\n", b"X: y\r\n"), (CHUNKED,
        b"0"),
        (CHUNKED + b"1", b";x=y"), (CHUNKED, b"1\r\nx\r\n"), (CHUNKED, b"10000\r\n" + b"x" * 65_536 + b"\r\n"),
    ],
    ids=["lines", "method", "path", "headers", "header", "name", "trailer",
         "trailers", "size", "extension", "bytes", "chunks"],
)  # fmt: skip
def test_what_never_ends_costs_a_bound(server: Serving, items: Store, head: bytes, more: bytes) -> None:
    with costs_at_most(server, 60 * MIB if b"x" * 9 in more else 12 * MIB), server.connect() as bare:
        bare.sendall(head)
        pour(bare, more * max(1, 262_144 // len(more)), 2, 1_000)
    assert items["k"] == b"v"


def test_a_thousand_idle_connections(server: Serving) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4_096), hard), hard))
    with contextlib.ExitStack() as stack, costs_at_most(server, 64 * MIB):
        idle = [stack.enter_context(server.connect()) for _ in range(1_000)]
        for at, bare in enumerate(idle):
            bare.sendall((b"", b"G", PUT, PUT + BODY + b"\r\na")[at % 4])
        started = time.monotonic()
        for _ in range(20):
            assert statuses(exchange(server, HEALTH)) == [200]
        assert time.monotonic() - started < 5 * PATIENCE


def test_a_client_that_never_reads(server: Serving, items: Store) -> None:
    items.update({f"{at}": os.urandom(20_000) for at in range(3_000)})
    with contextlib.ExitStack() as stack, costs_at_most(server, 64 * MIB):
        for _ in range(20):
            bare = stack.enter_context(server.connect())
            bare.sendall(b"GET /export HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(50):
            assert statuses(exchange(server, GET)) == [200]
        time.sleep(1)


# ---- What comes slowly ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(items: Store) -> Iterator[Serving]:
    """Its time limits are short, so that this page need not wait for those of a real one."""
    with serving_with(store=items.name, head_seconds=1.0, body_grace=1.0, write_seconds=1.5) as server:
        yield server


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"", b"\r\n"), (b"GET /healthz HTTP/1.1\r\n", b"X: y\r\n"), (b"GET /", b"k"), (b"", b""),
        (PUT + b"Content-Length: 100000\r\n\r\n", b"x"), (CHUNKED, b"1\r\nx\r\n"), (HEALTH + b"GET", b" "),
    ],
    ids=["lines", "headers", "path", "nothing", "body", "chunks", "second request"],
)  # fmt: skip
def test_what_drips_is_ended(hasty: Serving, items: Store, head: bytes, drip: bytes) -> None:
    started = time.monotonic()
    with hasty.connect() as bare:
        bare.sendall(head)
        bare.settimeout(0.1)
        answer, is_reset = b"", False
        while True:
            assert time.monotonic() - started < 8 * PATIENCE, "it still waits"
            try:
                part = bare.recv(10_000)
                answer += part
                if not part:
                    break
            except TimeoutError:
                pass
            except ConnectionResetError:  # a drip crossed the end on its way, and took the answer back
                is_reset = True
                break
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                bare.sendall(drip)
    assert is_reset or statuses(answer) == ([200, 408] if head.startswith(HEALTH) else [408])
    assert items["k"] == b"v"


def test_a_read_whose_body_is_late(hasty: Serving, items: Store) -> None:
    """It is answered, and what is missing is not waited for: also not by the time limits of all others."""
    with hasty.connect() as bare, hasty.connect() as other:
        bare.sendall(GET[:-2] + b"Content-Length: 5\r\n\r\n")
        other.sendall(b"GET /")
        assert statuses(read_all(bare)) == [200]
        assert statuses(read_all(other)) == [408]


def test_a_body_at_a_fair_rate_is_waited_for(hasty: Serving, items: Store) -> None:
    with hasty.connect() as bare:
        bare.sendall(PUT + b"Content-Length: 200000\r\n\r\n")
        for _ in range(40):
            bare.sendall(b"x" * 5_000)
            time.sleep(0.1)
        assert bare.recv(1_000).startswith(b"HTTP/1.1 204 ")


def test_an_answer_that_nobody_takes_is_dropped(hasty: Serving, items: Store) -> None:
    """Large ones and small ones: also what is less than a transport's high-water mark."""
    [worker] = hasty.workers()
    for size in (8 << 20, (4 << 20) + 1):
        items["large"] = b"x" * size
        with hasty.connect() as bare:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            bare.sendall(b"GET /kv/large HTTP/1.1\r\n" + HOST + b"\r\n")
            mine = bare.getsockname()
            assert bare.recv(1)

            def is_dropped(mine: tuple[str, int] = mine) -> bool:
                return mine not in {connection.raddr for connection in psutil.Process(worker).net_connections()}

            assert not is_dropped()
            wait_until(is_dropped, 10, "the end")


def test_an_answer_that_is_taken_at_a_fair_rate_comes_whole(hasty: Serving, items: Store) -> None:
    """Longer than `write_seconds`, at more than the least rate."""
    items["large"] = b"x" * (16 << 20)
    with hasty.connect() as bare:
        bare.sendall(b"GET /kv/large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        taken, until = 0, time.monotonic() + 4
        while part := bare.recv(65_536):
            taken += len(part)
            if time.monotonic() < until:
                time.sleep(0.02)
    assert taken > 16 << 20


# ---- Noise ---------------------------------------------------------------------------------------

SEEDS = [
    GET,
    HEALTH,
    PUT + BODY + b"\r\nabc",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    b"POST /kv HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"get":[5]}',
    b"POST /kv HTTP/1.1\r\n" + HOST + b"Content-Type: application/msgpack\r\nContent-Length: 6\r\n\r\n\x81\xa3get\x90",
    b"POST /put/ HTTP/1.1\r\n" + HOST + b"Content-Length: 23\r\n\r\n" + b'{"key":"x","value":[1]}',
    b"POST /kv/n/incr HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n",
    b"GET /read_key_range/?start=a&end=z&limit=5&cursor=YQA= HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /kv?prefix=a&limit=7 HTTP/1.1\r\n" + HOST + b"\r\n",
    b"DELETE /delete/a%2Fb HTTP/1.1\r\n" + HOST + b'If-Match: "x", *\r\n\r\n',
    PUT + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + BODY + b"\r\nabc",
]
PIECES = [b"\r\n", b"\0", b":", b" ", b"%", b"%00", b"\xff", b"Content-Length: 9\r\n",
          b"Transfer-Encoding: chunked\r\n",
          b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"ffff\r\n", b"/" * 50,
          b"[" * 90, b'"']  # fmt: skip


def mutated(rng: random.Random) -> bytes:
    raw = bytearray(b"".join(rng.choice(SEEDS) for _ in range(rng.randrange(1, 4))))
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(raw) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            raw[at:at] = rng.choice(PIECES)
        elif kind == 1:
            del raw[at : at + rng.randrange(1, 20)]
        elif kind == 2:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        else:
            raw[at:at] = raw[rng.randrange(len(raw) + 1) :][: rng.randrange(40)]
    return bytes(raw)


def test_noise(server: Serving, rng: random.Random) -> None:
    """Requests with faults, in pieces, some of them cut off: no answer of 500, and all of the above."""
    until, rounds = time.monotonic() + FUZZ_SECONDS, 0
    with costs_at_most(server, 32 * MIB):
        while rounds < 4_000 and time.monotonic() < until:
            rounds += 1
            raw = mutated(rng)
            with server.connect() as bare:
                with contextlib.suppress(OSError):
                    while raw:
                        size = rng.choice((1, 3, 50, 5_000))
                        bare.sendall(raw[:size])
                        raw = raw[size:]
                    if rng.random() < 0.1:
                        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
                        continue
                    bare.shutdown(socket.SHUT_WR)
                answer = read_all(bare)
            assert 500 not in statuses(answer), answer
    assert rounds > 300

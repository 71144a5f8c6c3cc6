"""How a server begins and ends, and what it survives: signals, kills, taken addresses, being started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from helpers import PATIENCE, store_names, temporary_store, wait_until
from serving import Serving, counts, read_all, serving, statuses, wait_until_free
from shell import run

from shmkv import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def items() -> Iterator[Store]:
    with temporary_store() as store:
        yield store


# ---- One truth -----------------------------------------------------------------------------------


def test_workers_serve_one_truth(items: Store) -> None:
    with serving("--store", items.name, "--workers", "3") as server:
        server.wait_for_workers()
        for number in range(60):
            with server.client() as one, server.client() as other:
                one.put("/kv/k", content=str(number).encode())
                assert other.get("/kv/k").content == str(number).encode()
        assert items["k"] == b"59"
        items["k"] = "from Python"
        assert {server.client().get("/read/k").json()["value"] for _ in range(10)} == {"from Python"}


def test_two_servers_on_one_store(items: Store) -> None:
    with serving("--store", items.name) as one, serving("--store", items.name, "--workers", "2") as other:
        tag = one.http.put("/kv/k", content=b"1").headers["etag"]
        assert other.http.get("/kv/k").headers["etag"] == tag
        assert other.http.put("/kv/k", content=b"2", headers={"if-match": tag}).status_code == 204
        assert one.http.get("/kv/k").content == b"2"
        assert counts(one) == counts(other)


def test_a_store_is_made_if_it_is_missing_and_stays(name: str) -> None:
    with serving("--store", name, "--size", "8MiB") as server:
        assert server.name == name
        server.http.put("/kv/k", content=b"1")
    with Store.attach(name) as store:
        assert store["k"] == b"1"
        assert store.stats().size == 8 << 20


def test_what_a_shell_says(items: Store) -> None:
    with serving(SHMKV_STORE=items.name) as server:
        assert server.name == items.name
    for words in ((), ("--store", "a", "--path", "b"), ("--store", "a", "--sync", "always"),
    ("--store", "a", "--workers", "0"),
                  ("--store", "a", "--port", "70000")):  # fmt: skip
        assert run("serve", *words).status == 2


# ---- Durable -------------------------------------------------------------------------------------


def kill_all(server: Serving) -> None:
    """As a machine's end does it: nobody has a moment for anything."""
    for pid in (server.pid, *server.workers()):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()


def test_durable_always_survives_its_end(tmp_path: Path) -> None:
    words = ("--path", str(tmp_path / "shop"), "--sync", "always", "--size", "32MiB", "--workers", "2")
    acknowledged: dict[str, int] = {}
    tried: dict[str, int] = {}
    for turn in range(2):
        with serving(*words, quiet=False) as server:
            server.wait_for_workers()
            for key, number in acknowledged.items():
                acknowledged[key] = server.http.get(f"/read/{key}").json()["value"]
                assert acknowledged[key] in (number, tried[key]), "of the one in flight too"

            def write(me: int, server: Serving = server, turn: int = turn) -> None:
                with server.client() as client:
                    for number in range(10_000):
                        key = f"{me}:{number % 20}"
                        tried[key] = number + turn
                        try:
                            answer = client.post("/put/", json={"key": key, "value": tried[key]})
                        except httpx.HTTPError:
                            return
                        assert answer.status_code in (200, 201)
                        acknowledged[key] = tried[key]

            threads = [threading.Thread(target=write, args=(me,)) for me in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(1)
            kill_all(server)
            for thread in threads:
                thread.join()
        assert len(acknowledged) >= 30
    with serving(*words) as server:
        for key, number in acknowledged.items():
            assert server.http.get(f"/read/{key}").json()["value"] in (number, tried[key])
        assert server.http.post("/check").json()["ok"]
        assert server.http.get("/stats").json()["path"] == str(tmp_path / "shop")


@pytest.mark.parametrize("mode", ["interval", "none"])
def test_durable_and_ended_in_order(tmp_path: Path, mode: str) -> None:
    words = ("--path", str(tmp_path / "shop"), "--sync", mode)
    with serving(*words) as server:
        tag = server.http.put("/kv/k", content=b"1").headers["etag"]
    with serving(*words) as server:
        assert server.http.get("/kv/k").content == b"1"
        assert server.http.put("/kv/k", content=b"2", headers={"if-match": tag}).status_code in (204, 412)


# ---- Addresses -----------------------------------------------------------------------------------


def test_a_server_that_cannot_listen_leaves_no_store_behind(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for where in (
            ("--port", str(taken.getsockname()[1])),
            ("--host", "192.0.2.1"),
            ("--host", "no.such.host.invalid"),
            ("--uds", str(tmp_path / "no" / "folder.sock")),
        ):
            words = ("--token-file", str(token_file(tmp_path)), *where)
            assert run("serve", "--store", name, *words).status == 73, where
            assert name not in store_names()
            assert run("serve", "--path", str(tmp_path / "durable"), *words).status == 73, where
            assert not (tmp_path / "durable").exists()


def test_a_server_that_finds_no_store_leaves_no_socket_behind(items: Store, tmp_path: Path) -> None:
    told = run("serve", "--store", items.name, "--size", "3MiB", "--uds", str(tmp_path / "s.sock"))
    assert told.status == 73
    assert not (tmp_path / "s.sock").exists()


def token_file(folder: Path) -> Path:
    (folder / "token").write_text("open-sesame-and-no-less\n")
    return folder / "token"


def test_a_port_that_is_taken(items: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("serve", "--store", items.name, "--port", str(port))
    assert refused.status == 73
    assert len(refused.err.strip().splitlines()) == 1
    assert f"127.0.0.1:{port}" in refused.err
    assert "in use" in refused.err


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "localhost"])
def test_other_addresses_of_this_machine(items: Store, host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        with serving("--store", items.name, "--host", host) as server:
            assert server.http.get("/readyz").status_code == 200
    except AssertionError as fault:
        if "Cannot assign" not in str(fault) and "not supported" not in str(fault):
            raise
        pytest.skip(f"this machine has no {host}")


def test_an_address_of_another_machine(items: Store) -> None:
    refused = run("serve", "--store", items.name, "--host", "192.0.2.1", "--insecure")
    assert refused.status == 73
    assert len(refused.err.strip().splitlines()) == 1


def test_a_unix_socket(items: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with serving("--store", items.name, "--uds", str(path), "--workers", "2") as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.http.put("/kv/k", content=b"1").status_code == 201
        assert server.http.get("/kv/k", headers={"host": "anything"}).content == b"1"
        taken = run("serve", "--store", items.name, "--uds", str(path))
        assert taken.status == 73
        assert len(taken.err.strip().splitlines()) == 1
        assert server.http.get("/healthz").status_code == 200, "and it goes on"
    assert not path.exists()


def test_a_socket_that_a_killed_server_left(items: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with serving("--store", items.name, "--uds", str(path), quiet=False) as server:
        kill_all(server)
    assert path.exists()
    with serving("--store", items.name, "--uds", str(path)) as server:
        assert server.http.get("/healthz").status_code == 200


def test_a_file_is_never_taken_for_a_socket(items: Store, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("precious")
    assert run("serve", "--store", items.name, "--uds", str(path)).status == 73
    assert path.read_text() == "precious"
    assert run("serve", "--store", items.name, "--uds", str(tmp_path / ("x" * 200))).status == 73


# ---- Ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_answered(items: Store, number: int) -> None:
    with serving("--store", items.name, "--workers", "2") as server, server.connect() as bare:
        bare.sendall(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12345")
        time.sleep(0.3)
        server.process.send_signal(number)
        time.sleep(1)
        bare.sendall(b"67890")
        assert statuses(read_all(bare)) == [201]
        assert server.process.wait(20) == 0
        assert items["slow"] == b"1234567890"


def test_a_call_that_waits_is_answered(items: Store) -> None:
    """An export of some megabytes goes on to its end, though SIGTERM has come."""
    items.update({f"{at}": b"x" * 1_000 for at in range(8_000)})
    with serving("--store", items.name) as server:
        with server.http.stream("GET", "/export") as answer:
            lines = answer.iter_lines()
            first = next(lines)
            server.process.terminate()
            time.sleep(0.5)
            rest = list(lines)
        assert 1 + len(rest) == 8_000
        assert json.loads(first)["base64"] == json.loads(rest[-1])["base64"]
        assert server.process.wait(20) == 0


def test_idle_connections_do_not_hold_up_the_end(items: Store) -> None:
    with serving("--store", items.name) as server:
        idle = [server.connect() for _ in range(20)]
        half = server.connect()
        half.sendall(b"GET /kv/k HT")
        time.sleep(0.2)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5 * PATIENCE
        for bare in (*idle, half):
            bare.close()


def test_it_can_be_ended_the_moment_it_says_where_it_is(items: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    for _ in range(3):
        with serving("--store", items.name, "--uds", str(path), ready=False) as server:
            assert server.stop() == 0
        assert not path.exists()


# ---- Kills ---------------------------------------------------------------------------------------


def test_a_killed_supervisor_takes_its_workers_along(items: Store) -> None:
    with serving("--store", items.name, "--workers", "2", quiet=False) as server:
        server.wait_for_workers()
        workers = server.workers()
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
        wait_until_free(server)
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers), 30, "the workers' end")
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        with serving("--store", items.name, "--host", host, "--port", port) as again:
            assert again.http.get("/healthz").status_code == 200


def test_a_killed_worker_is_replaced(items: Store) -> None:
    with serving("--store", items.name, "--workers", "2") as server:
        server.wait_for_workers()
        server.http.put("/kv/k", content=b"1")
        before = set(server.workers())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(server.workers()) == 2 and not before & set(server.workers()), 30, "new workers")
        with server.client() as client:
            assert client.get("/kv/k").content == b"1"
        server.wait_for_workers()
        told = server.http.get("/stats").json()["processes"]
        living = {process["pid"] for process in told}
        assert living == {os.getpid(), server.pid, *server.workers()}


def test_a_worker_that_hangs_is_replaced(items: Store) -> None:
    with serving("--store", items.name, "--workers", "2") as server:
        server.wait_for_workers()
        hung = server.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        time.sleep(8)
        assert hung in server.workers(), "it may only be slow"
        wait_until(lambda: hung not in server.workers() and len(server.workers()) == 2, 60, "a new worker")
        server.wait_for_workers()


def test_a_server_leaves_nothing_behind(items: Store) -> None:
    def private() -> set[str]:
        return {entry for entry in os.listdir("/dev/shm") if f".private.{server.pid}." in entry}

    with serving("--store", items.name, "--workers", "2") as server:
        server.wait_for_workers()
        assert len(private()) == 1
        workers = server.workers()
        server.stop()
        assert not private()
        assert not any(psutil.pid_exists(pid) for pid in workers)

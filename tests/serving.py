"""`shmkv serve` as a real process: started, asked, stopped, and its log read.

with serving("--store", name, "--workers", "2") as server:
    assert server.http.get("/healthz").status_code == 200
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx
import psutil
from helpers import PATIENCE, wait_until
from shell import environment

START_SECONDS = 60
STOP_SECONDS = 40  # longer than a server waits for what is in flight
_READY = re.compile(r"shmkv serve: serving (.*) at (\S+)\n")


class Serving:
    """A running `shmkv serve`; `url` is http://HOST:PORT, or unix:PATH on a unix socket."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes], count: int) -> None:
        self.process = process
        self.pid = process.pid
        self.count = count  # of workers, as asked for
        self._log = log
        wait_until(self._says_where, START_SECONDS, "the line that says where the server listens")
        found = _READY.search(self.log)
        assert found, self.log
        self.name, self.url = found[1], found[2]
        self.http = self.client()

    def _says_where(self) -> bool:
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.log}"
        return _READY.search(self.log) is not None

    # ---- What it is -------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """All that it has written to its standard streams."""
        return Path(self._log.name).read_text()

    @property
    def complaints(self) -> str:
        """The log without the line that says where it listens."""
        return _READY.sub("", self.log)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def workers(self) -> list[int]:
        """Pids of the worker processes that are there now."""
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    if child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline()):
                        found.append(child.pid)
        return found

    def answering(self) -> set[int]:
        """Pids of the workers that answer, out of a few questions."""
        pids = set()
        for _ in range(8 * self.count):
            with self.client() as client:  # a connection of its own, so that any worker may take it
                pids.add(client.get("/stats").json()["server"]["pid"])
        return pids

    def wait_for_workers(self) -> None:
        """Until as many workers answer as were asked for."""
        wait_until(lambda: len(self.answering()) == self.count, START_SECONDS, "the workers' answers")

    def wait_for_workers_by_count(self) -> None:
        """Where a token keeps `/stats` from being asked."""
        wait_until(lambda: len(self.workers()) == self.count, START_SECONDS, "the workers")

    # ---- Asking it --------------------------------------------------------------------------

    def client(self, **options: Any) -> httpx.Client:
        """An HTTP client of its own; `options` are httpx.Client's."""
        options.setdefault("timeout", 30 * PATIENCE)
        options.setdefault("verify", False)  # or each client reads this machine's certificates
        if self.url.startswith("unix:"):
            transport = httpx.HTTPTransport(uds=self.url.removeprefix("unix:"))
            return httpx.Client(transport=transport, base_url="http://localhost", **options)
        return httpx.Client(base_url=self.url, trust_env=False, **options)

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """A bare connection."""
        if self.url.startswith("unix:"):
            bare = socket.socket(socket.AF_UNIX)
            bare.settimeout(timeout * PATIENCE)
            bare.connect(self.url.removeprefix("unix:"))
            return bare
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout * PATIENCE)

    # ---- Ending it --------------------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS * PATIENCE)

    def end(self) -> None:
        """Whatever it does: make sure that it and its workers are gone."""
        self.http.close()
        pids = self.workers()
        if self.is_running:
            self.process.kill()
        self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._log.close()


@contextmanager
def serving(*words: str, quiet: bool = True, ready: bool = True, **variables: str) -> Iterator[Serving]:
    """`shmkv serve WORDS`, on a free port unless WORDS say where; ended by SIGTERM.

    Args:
        quiet: at the end: nothing was written to its log but where it listens.
        ready: wait until a worker answers.
        variables: of the environment.
    """
    command = [sys.executable, "-m", "shmkv", "serve", *words]
    if "--port" not in words and "--uds" not in words:
        command += ["--port", "0"]
    count = int(words[words.index("--workers") + 1]) if "--workers" in words else 1
    with _running(command, count, quiet, ready, variables) as server:
        yield server


_WITH_SETTINGS = """
import json, sys
from shmkv.cli.commands.serve import _say
from shmkv.server.run import serve
from shmkv.server.settings import Settings
if __name__ == "__main__":
    serve(Settings(**json.loads(sys.argv[1])), _say)
"""


@contextmanager
def serving_with(**settings: Any) -> Iterator[Serving]:
    """A server with Settings for which `shmkv serve` has no option: shorter time limits."""
    command = [sys.executable, "-c", _WITH_SETTINGS, json.dumps({"port": 0, **settings})]
    with _running(command, settings.get("workers", 1), True, True, {}) as server:
        yield server


@contextmanager
def _running(command: list[str], count: int, quiet: bool, ready: bool, variables: dict[str, str]) -> Iterator[Serving]:
    with tempfile.NamedTemporaryFile(prefix="shmkv-serve-", suffix=".log") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(**variables), cwd=tempfile.gettempdir()
        )
        try:
            server = Serving(process, log, count)  # type: ignore[arg-type]
        except BaseException:
            process.kill()
            process.wait()
            raise
        try:
            if ready:
                assert server.http.get("/healthz").status_code == 200
            yield server
            if server.is_running:
                assert server.stop() == 0, server.log
            if quiet:
                assert server.complaints == ""
        finally:
            server.end()


def metrics(server: Serving, **headers: str) -> dict[str, float]:
    """`/metrics` by the name and the labels of each sample, as in the text, but for the label that names the store."""
    text = server.http.get("/metrics", headers=headers).text
    text = re.sub(r'\{store="[^"]*"\}', "", re.sub(r'\{store="[^"]*",', "{", text))
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def counts(server: Serving) -> dict[str, float]:
    """The numbers that are exact: items, value_bytes, hits, misses, sets, deletes."""
    told = metrics(server)
    operation = "shmkv_operations_total"
    return {
        "items": told["shmkv_items"],
        "value_bytes": told["shmkv_value_bytes"],
        "hits": told[f'{operation}{{op="get",result="hit"}}'],
        "misses": told[f'{operation}{{op="get",result="miss"}}'],
        "sets": told[f'{operation}{{op="set",result="stored"}}'],
        "deletes": told[f'{operation}{{op="delete",result="deleted"}}'],
    }


# ---- Bare requests ---------------------------------------------------------------------------


def exchange(server: Serving, raw: bytes, timeout: float = 20.0) -> bytes:
    """Send bytes, say that there are no more, and read until the server ends the connection."""
    with server.connect(timeout) as bare:
        with contextlib.suppress(OSError):  # it ended the connection already
            bare.sendall(raw)
            bare.shutdown(socket.SHUT_WR)
        return read_all(bare)


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(server: Serving, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """One request, whose target is sent letter by letter (httpx would mend it); `_` in a header's name is a dash."""
    told = {"Host": "localhost", "Content-Length": str(len(body))}
    told.update({name.replace("_", "-"): value for name, value in headers.items()})
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    with server.connect() as bare:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            bare.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)
        with HTTPResponse(bare, method=method) as response:
            response.begin()
            return Answer(response.status, response.headers, response.read())


def read_all(bare: socket.socket) -> bytes:
    """Until the other side ends."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := bare.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in what came back."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


def wait_until_free(server: Serving, timeout: float = 30.0) -> None:
    """Until nobody listens where the server did."""

    def is_free() -> bool:
        try:
            server.connect(1).close()
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        return False

    deadline = time.monotonic() + timeout * PATIENCE
    while not is_free():
        assert time.monotonic() < deadline, f"somebody still listens at {server.url}"
        time.sleep(0.02)

"""`shmkv serve` under load, beside what the same HTTP server does with nothing behind it.

    python -m bench.serving [--keys N] [--rounds R] [--directory DIR]

Requests per second come from wrk (Debian's package `wrk`), one thread and 16 connections, a second at a time and in
turns; the medians of the rounds are compared.  Server and load share the machine: on two cores a second worker takes
its time from wrk, and the bare application's ratio says what is left to be had.  Latencies are of one client that waits
for each answer, on a connection that stays open.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.durable import Floor, percentile
from bench.harness import ROOT, Result, Row, arguments, ratio_row
from bench.serving_apps import THING, VALUE
from shmkv import Store

KEYS: Final = 1_000_000
STORE: Final = f"bench-serving-{os.getpid()}"
CONNECTIONS: Final = 16
PUTS: Final = 300
BATCHES: Final = 50
BATCH: Final = 1_000
RANGES: Final = 200
RANGE: Final = 100
READY_SECONDS: Final = 60


# ---- Servers -----------------------------------------------------------------------------------


@contextlib.contextmanager
def running(words: list[str]) -> Iterator[int]:
    """A server as a process; its port, once it answers."""
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        first = process.stdout.readline().decode()
        port = int(re.findall(r"\d+", first)[-1])
        wait_for(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_SECONDS)


def wait_for(port: int) -> None:
    """Until somebody answers."""
    end = time.monotonic() + READY_SECONDS
    while True:
        try:
            ask(http.client.HTTPConnection("127.0.0.1", port, timeout=READY_SECONDS), "GET", "/healthz")
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def app(which: str, workers: int) -> list[str]:
    return ["-m", "bench.serving_apps", which, "0", str(workers), STORE]


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> Any:
    """One request; its answer's body, which has to be one of success."""
    connection.request(method, path, body)
    answer = connection.getresponse()
    told = answer.read()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {told[:200]!r}")
    return told


def rate(port: int, path: str) -> float:
    """Requests per second; all of them have to succeed."""
    words = ["wrk", "-t1", f"-c{CONNECTIONS}", "-d1s", f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise RuntimeError(told)
    found = re.search(r"Requests/sec:\s+([\d.]+)", told)
    assert found is not None, told
    return float(found[1])


# ---- Requests per second -----------------------------------------------------------------------


def one_worker(result: Result, rounds: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in ("bare", "kv", "read", "fixed")}
    with running(app("bare", 1)) as bare, running(app("store", 1)) as ours:
        targets = {"bare": (bare, "/"), "kv": (ours, "/kv/bytes"), "read": (ours, "/read/thing"),
                   "fixed": (ours, "/fixed/thing")}  # fmt: skip
        for number in range(rounds + 1):
            for name, (port, path) in targets.items():
                found = rate(port, path)
                if number:  # the first round warms all of them up
                    rates[name].append(found)
    result.details["requests_per_second"] = rates
    note = ", ".join(f"{name} {median(found):,.0f}/s" for name, found in rates.items())
    result.add(
        ratio_row("GET /read/{key}, one worker / a route that returns a fixed JSON", rates["read"], rates["fixed"],
                  0.85, at_least=True, in_ns=False, note=note)
    )  # fmt: skip
    result.add(
        ratio_row("GET /kv/{key}, one worker / a bare ASGI application", rates["kv"], rates["bare"], 0.75,
                  at_least=True, in_ns=False)
    )  # fmt: skip


def two_workers(result: Result, rounds: int) -> None:
    gains: dict[str, list[float]] = {"bare": [], "kv": []}
    with contextlib.ExitStack() as stack:
        ports = {(which, count): stack.enter_context(running(app(which, count)))
                 for which in ("bare", "store") for count in (1, 2)}  # fmt: skip
        for number in range(rounds + 1):
            for name, which, path in (("bare", "bare", "/"), ("kv", "store", "/kv/bytes")):
                one, two = (rate(ports[which, count], path) for count in (1, 2))
                if number:
                    gains[name].append(two / one)
    result.details["two_workers_by_one"] = gains
    note = f"bare {median(gains['bare']):.2f}, /kv {median(gains['kv']):.2f} times one worker"
    result.add(
        ratio_row("two workers / one, against the bare application's gain", gains["kv"], gains["bare"], 0.95,
                  at_least=True, in_ns=False, note=note)
    )  # fmt: skip


# ---- Latencies ---------------------------------------------------------------------------------


def ranges(result: Result, keys: int) -> None:
    """Spans of RANGE keys at random places."""
    with running(app("store", 1)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        times = []
        for _ in range(RANGES):
            start = random.randrange(keys - RANGE)
            path = f"/read_key_range/?start=user:{start:08d}&end=user:{start + RANGE:08d}&limit={RANGE}"
            begun = time.perf_counter()
            told = ask(connection, "GET", path)
            times.append(time.perf_counter() - begun)
            assert len(json.loads(told)["items"]) == RANGE
    times.sort()
    what = f"GET /read_key_range/ of {RANGE} keys out of {keys:,}, p99"
    result.add(Row(what, percentile(times, 0.99) * 1e3, "ms", bar=50.0, note=f"p50 {median(times) * 1e3:.1f} ms"))


def durable(result: Result, folder: Path) -> None:
    """Puts and batches that are on stable storage before they are answered, and the disk by itself in turns."""
    floor = Floor(folder)
    words = ["-m", "shmkv", "serve", "--path", str(folder / "store"), "--sync", "always", "--port", "0"]
    puts, floors, batches = [], [], []
    with running(words) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for number in range(PUTS):
            floors.append(floor.run(1, 128))
            body = json.dumps({"key": f"user:{number}", "value": "v" * 16}).encode()
            puts.append(timed_ask(connection, "/put/", body))
        for number in range(BATCHES):
            items = [{"key": f"batch:{number}:{i}", "value": "v" * 16} for i in range(BATCH)]
            batches.append(timed_ask(connection, "/batch_put/", json.dumps({"items": items}).encode()))
    floor.close()
    result.add(
        Row("POST /put/, durable, above the floor of fdatasync, p50", (median(puts) - median(floors)) * 1e3, "ms",
            bar=2.0, note=f"put {median(puts) * 1e3:.2f} ms, floor {median(floors) * 1e3:.2f} ms")
    )  # fmt: skip
    result.add(Row(f"POST /batch_put/ of {BATCH:,} pairs, durable, p50", median(batches) * 1e3, "ms", bar=20.0))


def timed_ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> float:
    begun = time.perf_counter()
    ask(connection, "POST", path, body)
    return time.perf_counter() - begun


def main() -> None:
    parser = arguments(__doc__, KEYS, 15)
    parser.add_argument("--directory", type=Path, default=None, help="where durable stores are (default: temporary)")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("there is no wrk: install Debian's package wrk")
    result = Result("serving", args.keys == KEYS, args.results)
    folder = Path(tempfile.mkdtemp(prefix="shmkv-bench-", dir=args.directory))
    store = Store.create(STORE)
    try:
        store["bytes"], store["thing"] = VALUE, THING
        one_worker(result, args.rounds)
        two_workers(result, args.rounds)
        store.update({f"user:{i:08d}": VALUE for i in range(args.keys)})
        ranges(result, args.keys)
        durable(result, folder)
    finally:
        store.unlink()
        store.close()
        shutil.rmtree(folder)
    result.write()


if __name__ == "__main__":
    main()

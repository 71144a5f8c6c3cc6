"""Hit rates of a store that evicts, beside those of other policies and other caches.

    python -m bench.eviction [--requests N] [--mib N] [--results DIR]

Five traces (bench/traces.py), each of a million requests for keys of a kind; a miss puts 500 bytes.  The simulators of
bench/policies.py hold as many items as the store did at the end of the trace.  cachebox, theine and redis run here as
well, if the extra `bench` and redis-server are installed: the libraries in this process with that number of items, the
server with the memory that they take in it.  A hit rate is of all requests, the first for each key included.

Last, `get` of what is there, of a store that evicts beside one that does not, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import Any, Final, Protocol

from bench.harness import RESULTS, Result, Row, pin_to, ratio_row
from bench.policies import POLICIES, Sieve, WTinyLfu
from bench.traces import TRACES
from shmkv import Store

MIB: Final = 1 << 20
STORE_MIB: Final = 16
REQUESTS: Final = 1_000_000
VALUE: Final = b"v" * 500
FIRST_GUESS: Final = 1_660  # items of this size in a MiB
BELOW_TINYLFU: Final = 2.0  # points, on a zipf with scans
SCANS: Final = "zipf 0.9 with scans"
OURS: Final = "shmkv"

GET_ROUNDS: Final = 21
GET_KEYS: Final = 20_000
GET_BAR: Final = 1.1


class Cache(Protocol):
    """Something that is asked, and given what it did not have."""

    def hits(self, trace: Iterator[int]) -> int:
        """How many of these requests it had an answer for."""


class OneByOne:
    """A cache with a `get` that answers None and a `put`."""

    def __init__(self, get: Callable[[str], object], put: Callable[[str, bytes], object]) -> None:
        self._get, self._put = get, put

    def hits(self, trace: Iterator[int]) -> int:
        found = 0
        for number in trace:
            key = f"key:{number:07d}"
            if self._get(key) is None:
                self._put(key, VALUE)
            else:
                found += 1
        return found


def libraries(items: int) -> dict[str, Cache]:
    """Those that are installed, made for so many items."""
    found: dict[str, Cache] = {}
    with contextlib.suppress(ImportError):
        import cachebox

        for name, kind in (("cachebox LRU", cachebox.LRUCache), ("cachebox LFU", cachebox.LFUCache)):
            held: Any = kind(items)
            found[name] = OneByOne(held.get, held.insert)
    with contextlib.suppress(ImportError):
        import theine

        cache: Any = theine.Cache(items)
        found["theine"] = OneByOne(lambda key: cache.get(key)[0], cache.set)
    return found


# ---- redis -----------------------------------------------------------------------------------

AT_ONCE: Final = 64  # requests of one script: redis evicts before a script, not in it
ASK: Final = """
local found = 0
for _, key in ipairs(KEYS) do
    if redis.call('GET', key) then found = found + 1 else redis.call('SET', key, ARGV[1]) end
end
return found
"""


class Redis:
    """A server of its own, on a unix socket, with `maxmemory-policy allkeys-lru` and the memory of so many items."""

    def __init__(self, items: int, folder: Path) -> None:
        import redis

        address = str(folder / "redis.sock")
        words = ["--port", "0", "--unixsocket", address, "--save", "", "--appendonly", "no", "--dir", str(folder)]
        self._process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        self._client: Any = redis.Redis(unix_socket_path=address)
        self._wait()
        for at in range(0, items, 1000):
            self._client.mset({f"key:{i:07d}": VALUE for i in range(at, min(at + 1000, items))})
        memory = self._client.info("memory")["used_memory"]
        self._client.flushall()
        self._client.config_set("maxmemory-policy", "allkeys-lru")
        self._client.config_set("maxmemory", memory)
        self._ask = self._client.register_script(ASK)

    def _wait(self) -> None:
        import redis

        deadline = time.monotonic() + 20
        while True:
            try:
                self._client.ping()
                return
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def hits(self, trace: Iterator[int]) -> int:
        found = 0
        keys: list[str] = []
        for number in trace:
            keys.append(f"key:{number:07d}")
            if len(keys) == AT_ONCE:
                found += self._ask(keys, [VALUE])
                keys.clear()
        return found + (self._ask(keys, [VALUE]) if keys else 0)

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(timeout=20)


@contextlib.contextmanager
def redis_server(items: int) -> Iterator[dict[str, Cache]]:
    """As a dict, empty where there is no redis-server, or no client."""
    with contextlib.ExitStack() as stack:
        found: dict[str, Cache] = {}
        with contextlib.suppress(ImportError):
            if shutil.which("redis-server"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                server = Redis(items, folder)
                stack.callback(server.close)
                found["redis allkeys-lru"] = server
        yield found


# ---- Hit rates -------------------------------------------------------------------------------


def rates(store_bytes: int, requests: int, trace: Callable[[int], Iterator[int]]) -> tuple[int, dict[str, float]]:
    """How many items were held, and the hit rate of each cache and policy."""
    count = sum(1 for _ in trace(requests))
    with Store(size=store_bytes, on_full="evict") as store:
        found = {OURS: OneByOne(store.get, store.put).hits(trace(requests))}
        items = len(store)
    for kind in POLICIES:
        found[kind.name] = sum(map(kind(items).request, trace(requests)))
    for name, cache in libraries(items).items():
        found[name] = cache.hits(trace(requests))
    with redis_server(items) as servers:
        for name, cache in servers.items():
            found[name] = cache.hits(trace(requests))
    return items, {name: hits / count for name, hits in found.items()}


def add_rates(result: Result, store_bytes: int, requests: int) -> None:
    table: list[list[str]] = []
    names: list[str] = []
    guess = store_bytes // MIB * FIRST_GUESS
    for title, made in TRACES.items():
        items, rate = rates(store_bytes, requests, lambda most, made=made: made(most, guess))  # type: ignore[misc]
        names = list(rate)
        table.append([title, f"{items:,}", *(f"{rate[name]:.4f}" for name in names)])
        ours = 100 * rate[OURS]
        result.add(Row(f"{title}: hits, beside SIEVE's", ours, "%", 100 * rate[Sieve.name], at_least=True))
        if title == SCANS:
            below = 100 * rate[WTinyLfu.name] - ours
            result.add(Row(f"{title}: hits below W-TinyLFU's", below, "points", BELOW_TINYLFU))
    result.details["table of hit rates"] = {"header": ["trace", "items", *names], "rows": table}


# ---- The price of a hit -----------------------------------------------------------------------


def time_gets(get: Callable[[str], object] | None, keys: Sequence[str]) -> float:
    """Nanoseconds for each; None: of the loop alone."""
    begin = perf_counter_ns()
    if get is None:
        for _ in keys:
            pass
    else:
        for key in keys:
            get(key)
    return (perf_counter_ns() - begin) / len(keys)


def add_price(result: Result) -> None:
    rng = random.Random(5)
    times: dict[str, list[float]] = {"evict": [], "error": []}
    with Store(size="32MiB", on_full="evict") as evicts, Store(size="32MiB") as refuses:
        stores = {"evict": evicts, "error": refuses}
        for i in range(GET_KEYS):
            for store in stores.values():
                store[f"key:{i:07d}"] = VALUE
        for _ in range(GET_ROUNDS):
            numbers = [rng.randrange(GET_KEYS) for _ in range(3 * GET_KEYS)]
            for which, store in stores.items():
                keys = [f"key:{number:07d}" for number in numbers]
                times[which].append(time_gets(store.get, keys) - time_gets(None, keys))
    what = 'get of what is there, on_full="evict" beside "error"'
    result.add(ratio_row(what, times["evict"], times["error"], GET_BAR))
    result.details["gets"] = {which: median(each) for which, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"of each trace (default: {REQUESTS:,})")
    parser.add_argument("--mib", type=int, default=STORE_MIB, help=f"of the store (default: {STORE_MIB})")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: bench/results")
    args = parser.parse_args()
    os.sched_setaffinity(0, {pin_to()[0]})
    result = Result("eviction", (args.requests, args.mib) == (REQUESTS, STORE_MIB), args.results)
    add_rates(result, args.mib * MIB, args.requests)
    add_price(result)
    result.write()


if __name__ == "__main__":
    main()

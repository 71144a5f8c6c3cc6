"""What the server tells of its store: statistics, the largest and the next expiring keys, an export, a check."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from typing import Any, Final

import msgspec

import shmkv
from shmkv import Store, exposition, forms
from shmkv.filling import Prefixes, fill_of
from shmkv.server.backend import Backend

REPORT_SECONDS: Final = 10  # at most so often does anybody's report cost a scan
SHOWN: Final = 20  # keys of each kind in a report
_SCAN_SECONDS: Final = 120  # after which a scan that nobody finished is begun anew
_EXPORT_BYTES: Final = 256 << 10  # at a time


class Server:
    """What stays the same while a server runs."""

    def __init__(self, workers: int, started: float) -> None:
        self.workers = workers
        self.started = started  # seconds since the epoch

    def told(self) -> dict[str, Any]:
        return {
            "version": shmkv.__version__,
            "workers": self.workers,
            "pid": os.getpid(),  # of the worker that answers
            "started": self.started,
            "uptime_seconds": round(time.time() - self.started, 3),
        }


def stats_of(store: Store, server: Server) -> dict[str, Any]:
    """Every number of the store, its processes, and the server."""
    return {**exposition.stats_of(store), "server": server.told()}


def is_nearly_full(store: Store) -> bool:
    """Soon writes are refused."""
    return fill_of(store.stats(), store._opened().evict).is_nearly_full


def check_of(store: Store) -> dict[str, Any]:
    """What `Store.check` found."""
    report = store.check()
    return {"ok": report.ok, **asdict(report)}


# ---- The report ----------------------------------------------------------------------------


def report_of(store: Store, side: Store) -> bytes:
    """The largest and the next expiring keys, as JSON; one scan serves all workers for ten seconds.

    Who finds no fresh report makes one, unless another one is at it: then the last one is good enough.
    """
    fresh = side.get("report")
    if fresh is None and (side.add("report|making", os.getpid(), ttl=_SCAN_SECONDS) or "report|last" not in side):
        try:
            fresh = msgspec.json.encode(scan(store))
            side.put("report", fresh, ttl=REPORT_SECONDS)
            side.put("report|last", fresh)
        finally:
            side.delete("report|making")
    last: bytes = fresh if fresh is not None else side["report|last"]
    return last


def scan(store: Store) -> dict[str, Any]:
    """Look at every key once; values are not read."""
    started, now = time.monotonic(), store._now_ms()
    items = 0
    prefixes = Prefixes()
    largest: list[tuple[int, int, shmkv.store.Key, int]] = []
    expiring: list[tuple[int, int, shmkv.store.Key]] = []
    for key, kind, size, expires_ms in _facts(store):
        items += 1
        _keep(largest, (size, items, key, kind))
        prefixes.add(key, size, forms.ttl_of(expires_ms, now))
        if expires_ms:
            _keep(expiring, (-expires_ms, items, key))
    return {
        "taken_at": time.time(),
        "seconds": round(time.monotonic() - started, 6),
        "items": items,
        "largest": [
            {**forms.key_form(key), "type": forms.type_name(kind), "bytes": size}
            for size, _, key, kind in sorted(largest, reverse=True)
        ],
        "expiring": [
            {**forms.key_form(key), "ttl": max(1, -expires - now) / 1000}
            for expires, _, key in sorted(expiring, reverse=True)
        ],
        "prefixes": prefixes.told(SHOWN),
    }


def _keep(heap: list[Any], one: tuple[Any, ...]) -> None:
    """Keep the SHOWN largest; the number in second place keeps keys from being compared."""
    if len(heap) < SHOWN:
        heapq.heappush(heap, one)
    elif one[0] > heap[0][0]:
        heapq.heapreplace(heap, one)


def _facts(store: Store) -> Iterator[tuple[shmkv.store.Key, int, int, int]]:
    bucket, buckets = 0, store._opened().bucket_count
    while bucket < buckets:
        bucket, facts = store._walk_facts(bucket, None)
        yield from facts


# ---- Export --------------------------------------------------------------------------------


async def export(backend: Backend) -> AsyncIterator[bytes]:
    """A line of JSON for each item, a few buckets at a time."""
    bucket: int | None = 0
    while bucket is not None:
        lines, bucket = await backend.in_thread(_lines, backend.patient, bucket)
        yield lines


def _lines(store: Store, bucket: int) -> tuple[bytes, int | None]:
    lines = bytearray()
    buckets = store._opened().bucket_count
    while bucket < buckets and len(lines) < _EXPORT_BYTES:
        bucket, records = store._walk_records(bucket, None, None)
        now = store._now_ms()
        for key, record in records:
            lines += msgspec.json.encode(forms.exact_form_of(key, record, now)) + b"\n"
    return bytes(lines), bucket if bucket < buckets else None

"""The JSON routes over a DataStore, with its rules: POST /put/ creates, and 409 tells of a key that exists.

What a DataStore does not have (bytes, batches, statistics of a region) is answered 501, and says so.  A DataStore is
for one process, so this server has one worker.
"""

from __future__ import annotations

import asyncio
from typing import Final

from fastapi import FastAPI, Request
from fastapi.responses import Response

from shmkv import DataStore, Store
from shmkv.server import kv, metrics, openapi
from shmkv.server.about import Server
from shmkv.server.api import KEY, Put, add_metrics, cursor_behind, json_answer, new_api, range_of, refuse_if_busy
from shmkv.server.backend import InThreads
from shmkv.server.body import Receive, from_json, read_body
from shmkv.server.gate import Gate, KeyedRoute, Scope
from shmkv.server.observe import Observer
from shmkv.server.paths import query_of
from shmkv.server.problems import RefusedError, Reply
from shmkv.server.settings import Settings

_ABSENT: Final = (b"/kv", b"/history", b"/report", b"/export", b"/check", b"/batch_put/")
_MILLION: Final = 1_000_000


class Records(InThreads):
    """A DataStore for the routes: every call in a thread, as every call may read or write the disk."""

    def __init__(self, data: DataStore) -> None:
        super().__init__()
        self.data = data

    def close(self) -> None:
        """Wait for running calls, and close the DataStore."""
        super().close()
        self.data.close()


def record_app(data: DataStore, side: Store, server: Server, settings: Settings) -> Gate:
    """The application over a DataStore."""
    from shmkv.server.app import new_gate

    records = Records(data)
    observer = Observer(side)
    api = new_api("shmkv, a DataStore")
    _add_items(api, records, settings)
    _add_range(api, records, settings)
    _add_about(api, records, server)
    add_metrics(api, observer, lambda: metrics.page(None, observer, str(data.path)), records)
    openapi.describe(api, openapi.DATASTORE)

    def close() -> None:
        records.close()
        side.close()

    keyed = KeyedRoute(kv.PREFIX, "/kv/{key}", _no_bytes, _not_here)
    return new_gate(keyed, dict.fromkeys(_ABSENT, _not_here), api, observer, settings, close)


def _add_items(api: FastAPI, records: Records, settings: Settings) -> None:
    @api.get("/read/{key}")
    async def read(request: Request) -> Response:
        key = request.scope[KEY]
        return json_answer({"key": key, "value": await records.in_thread(records.data.read, key)})

    @api.post("/put/")
    async def put(request: Request) -> Response:
        given = from_json(await read_body(request.receive, min(settings.max_body, _MILLION)), Put)
        await records.in_thread(records.data.create, given.key, given.value, whole_seconds(given.ttl))
        return json_answer({"key": given.key, "created": True}, 201)

    @api.delete("/delete/{key}")
    async def delete(request: Request) -> Response:
        key = request.scope[KEY]
        await records.in_thread(records.data.delete, key)
        return json_answer({"key": key, "deleted": True})


def _add_range(api: FastAPI, records: Records, settings: Settings) -> None:
    free = asyncio.Semaphore(settings.ranges)

    @api.get("/read_key_range/")
    async def read_key_range(request: Request) -> Response:
        start, end, limit = range_of(request.scope)
        refuse_if_busy(free, settings)
        async with free:
            found = await records.in_thread(records.data.range, start, end, limit + 1)
        items = [{"key": key, "value": value} for key, value in found[:limit]]
        return json_answer({"items": items, "cursor": cursor_behind(items) if len(found) > limit else None})


def _add_about(api: FastAPI, records: Records, server: Server) -> None:
    @api.get("/stats")
    async def stats(request: Request) -> Response:
        query_of(request.scope, ())
        return json_answer({"datastore": str(records.data.path), "server": server.told()})

    @api.get("/readyz")
    async def readyz(request: Request) -> Response:
        query_of(request.scope, ())
        return json_answer({"ready": True})


def whole_seconds(ttl: float | None) -> int | None:
    """A ttl as a DataStore takes it; 5.0 is 5, as JSON does not tell them apart."""
    if ttl is not None and not float(ttl).is_integer():
        raise RefusedError(422, f"ttl is a whole number of seconds in a DataStore, not {ttl}")
    return None if ttl is None else int(ttl)


async def _not_here(scope: Scope, receive: Receive) -> Reply:
    return _no_bytes(scope)


def _no_bytes(scope: Scope) -> Reply:
    raise RefusedError(501, "a DataStore does not have this: it has /read/, /read_key_range/, /put/ and /delete/")

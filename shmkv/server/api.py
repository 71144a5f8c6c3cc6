"""The routes of FastAPI: JSON items, statistics, documentation.

The key of a path does not come from the router, whose patterns stop at line breaks: the gate has taken it off already
(scope["shmkv.key"]).  Bodies are read by body.py, the one reader of JSON here, which bounds them and says where one is
wrong; what they are is written down for /openapi.json in openapi.py.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Callable
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException

import shmkv
from shmkv import Store, errors, forms
from shmkv.exposition import label_of
from shmkv.server import about, metrics, openapi
from shmkv.server.backend import Backend, InThreads
from shmkv.server.body import from_json, read_body
from shmkv.server.history import History
from shmkv.server.observe import Observer
from shmkv.server.paths import number_of, query_of
from shmkv.server.problems import RefusedError, Reply, problem, problem_of
from shmkv.server.settings import Settings

KEY: Final = "shmkv.key"  # in the scope: the key of a path
PAGE: Final = 100
MOST_PAGE: Final = 1_000
_MISSING: Final = "there is no such key"
_LONG: Final = 100  # items from which on a batch is worth a thread
_JSON: Final = "application/json"


class Put(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /put/ takes, and each item of POST /batch_put/."""

    key: str
    value: Any
    ttl: float | None = None


class BatchPut(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /batch_put/ takes."""

    items: list[Put]


def json_answer(thing: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(thing), status, media_type=_JSON)


def new_api(title: str) -> FastAPI:
    """An app without routes, whose errors are problems, and which needs nothing from a network."""
    version = shmkv.__version__  # /openapi.json is openapi.describe's
    api = FastAPI(title=title, version=version, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    for cls in (RefusedError, errors.ShmkvError, forms.NoFormError, forms.FormError, OverflowError):
        api.add_exception_handler(cls, _told)
    api.add_exception_handler(HTTPException, _told_by_router)
    return api


async def _told(request: Request, error: Exception) -> Response:
    reply = problem_of(error)
    assert reply is not None, "only what problem_of knows is handled here"
    return _response(reply)


async def _told_by_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    detail = f"{request.method} {request.scope['path'][:200]!r}: there is no such route: /docs lists them"
    return _response(problem(error.status_code, detail, headers=headers))


def _response(reply: Reply) -> Response:
    status, headers, body = reply
    return Response(body, status, headers={name.decode(): value.decode("latin-1") for name, value in headers})


# ---- A store -------------------------------------------------------------------------------


def store_api(
    backend: Backend, observer: Observer, side: Store, server: about.Server, settings: Settings, history: History
) -> FastAPI:
    """The routes over a store."""
    api = new_api("shmkv")
    _add_items(api, backend, settings)
    _add_range(api, backend, settings)
    _add_store(api, backend, side, server)
    _add_history(api, backend, history)
    label = label_of(backend.store)
    add_metrics(api, observer, lambda: metrics.page(backend.patient, observer, label), backend)
    openapi.describe(api, openapi.STORE)
    return api


def _add_items(api: FastAPI, backend: Backend, settings: Settings) -> None:
    store = backend.store

    @api.get("/read/{key}")
    async def read(request: Request) -> Response:
        key = request.scope[KEY]
        record = store._fetch(key)
        if record is None:
            raise RefusedError(404, _MISSING)
        return Response(b'{"key":%b,"value":%b}' % (msgspec.json.encode(key), forms.json_of(record)), media_type=_JSON)

    @api.post("/put/")
    async def put(request: Request) -> Response:
        given = from_json(await read_body(request.receive, settings.max_body), Put)
        placed = await backend.write(lambda store: store._place(given.key, given.value, given.ttl, None, 0, 0))
        created = placed is not None and not placed[1]
        return json_answer({"key": given.key, "created": created}, 201 if created else 200)

    @api.post("/batch_put/")
    async def batch_put(request: Request) -> Response:
        given = from_json(await read_body(request.receive, settings.max_body), BatchPut).items
        items = [(item.key, item.value, item.ttl, None) for item in given]
        await backend.write(lambda store: store._put_items(items), long=len(items) > _LONG)
        return json_answer({"stored": len({item.key for item in given})})

    @api.delete("/delete/{key}")
    async def delete(request: Request) -> Response:
        key = request.scope[KEY]
        if not await backend.write(lambda store: store.delete(key)):
            raise RefusedError(404, _MISSING)
        return json_answer({"key": key, "deleted": True})


def _add_range(api: FastAPI, backend: Backend, settings: Settings) -> None:
    free = asyncio.Semaphore(settings.ranges)

    @api.get("/read_key_range/")
    async def read_key_range(request: Request) -> Response:
        start, end, limit = range_of(request.scope)
        refuse_if_busy(free, settings)
        async with free:
            found = await backend.in_thread(backend.patient._range_records, start, end, limit + 1)
        now = backend.store._now_ms()
        items = [forms.form_of(key, record, now) for key, record in found[:limit]]
        return json_answer({"items": items, "cursor": cursor_behind(items) if len(found) > limit else None})


def refuse_if_busy(free: asyncio.Semaphore, settings: Settings) -> None:
    """A range takes a thread and memory: so many at a time, and no queue."""
    if free.locked():
        raise RefusedError(503, f"{settings.ranges} ranges are being read: try again")


def range_of(scope: Any) -> tuple[str, str | None, int]:
    """(start, end, limit) of a range's query; a cursor is the first key that the page before could not have had."""
    query = query_of(scope, ("start", "end", "limit", "cursor"))
    start = query.get("start", "")
    if "cursor" in query:
        try:
            behind = b64decode(query["cursor"], altchars=b"-_", validate=True).decode()
            start = max(start, behind, key=str.encode)
        except (Error, ValueError) as error:
            raise RefusedError(422, "that is no cursor of this server") from error
    return start, query.get("end"), number_of(query, "limit", PAGE, MOST_PAGE)


def cursor_behind(items: list[dict[str, Any]]) -> str:
    """The next page begins behind the last of these."""
    key: str = items[-1]["key"]
    return urlsafe_b64encode(f"{key}\0".encode()).decode()


def _add_store(api: FastAPI, backend: Backend, side: Store, server: about.Server) -> None:
    @api.get("/stats")
    async def stats(request: Request) -> Response:
        query_of(request.scope, ())
        return json_answer(await backend.in_thread(about.stats_of, backend.patient, server))

    @api.get("/report")
    async def report(request: Request) -> Response:
        query_of(request.scope, ())
        return Response(await backend.in_thread(about.report_of, backend.patient, side), media_type=_JSON)

    @api.get("/export")
    async def export(request: Request) -> Response:
        query_of(request.scope, ())
        return StreamingResponse(about.export(backend), media_type="application/x-ndjson")

    @api.post("/check")
    async def check(request: Request) -> Response:
        query_of(request.scope, ())
        return json_answer(await backend.in_thread(about.check_of, backend.patient))

    @api.get("/readyz")
    async def readyz(request: Request) -> Response:
        query_of(request.scope, ())
        _ = "" in backend.store  # a lookup that is not counted
        if backend.store.stale:
            raise RefusedError(
                503, "the name of the store leads to another store by now, or to none: restart the server"
            )
        # A full store is ready: it answers, and a balancer that left it would only hide that writes are refused.
        return json_answer(
            {"ready": True, "nearly_full": await backend.in_thread(about.is_nearly_full, backend.patient)}
        )


def _add_history(api: FastAPI, backend: Backend, history: History) -> None:
    @api.get("/history")
    async def points(request: Request) -> Response:
        query_of(request.scope, ())
        return json_answer(await backend.in_thread(history.told))


def add_metrics(api: FastAPI, observer: Observer, page: Callable[[], bytes], backend: InThreads) -> None:
    """GET /metrics; `page` makes it, in a thread."""

    @api.get("/metrics")
    async def metrics_page(request: Request) -> Response:
        query_of(request.scope, ())
        observer.flush()
        return Response(await backend.in_thread(page), headers={"content-type": metrics.TYPE.decode()})

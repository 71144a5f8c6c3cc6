"""Putting it together: the application over a store or a DataStore, as an ASGI server runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shmkv import DataStore, Store
from shmkv.server import batch, kv
from shmkv.server.about import Server
from shmkv.server.api import store_api
from shmkv.server.backend import QUICK_TIMEOUT_S, Backend
from shmkv.server.body import Receive
from shmkv.server.gate import Bytes, Gate, KeyedRoute, Scope
from shmkv.server.history import History
from shmkv.server.mounting import moved_to
from shmkv.server.observe import Observer
from shmkv.server.problems import RefusedError, Reply
from shmkv.server.settings import Settings

LOOPBACK: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))
_PAGES: Final = {b"/": "status.html", b"/docs": "docs.html"}
_PAGE_HEADERS: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", b"default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                                 b"img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                                 b"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]  # fmt: skip


def create_app(
    store: Store | DataStore,
    *,
    settings: Settings | None = None,
    side: Store | None = None,
    patient: Store | None = None,
    started: float | None = None,
) -> Gate:
    """The server's application over a store, for an ASGI server of one's own, or mounted in another application.

    Args:
        store: what is served; the application closes it at its end (the ASGI lifespan's).  One that is mounted is
            told of no end: call its `close()`.
        settings: limits, token, and `hosts`, the names that Host may have besides those of this machine; what names a
            store there is not looked at.
        side: what all workers share besides (see observe.py); by default a private store of this process alone.
        patient: another handle of `store`, for calls in threads, whose `lock_timeout` may be long; by default `store`.
        started: when the server did, in seconds since the epoch.
    """
    if not isinstance(store, (Store, DataStore)):
        raise TypeError(f"create_app takes a Store or a DataStore, not {type(store).__name__}")
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings is a shmkv.server.settings.Settings, not {type(settings).__name__}")
    settings = settings or Settings()
    side = side if side is not None else Store(size="16MiB")
    server = Server(settings.workers, started if started is not None else time.time())
    if isinstance(store, DataStore):
        from shmkv.server.records import record_app

        return record_app(store, side, server, settings)
    backend = Backend(store, store if patient is None else patient, waits=store.sync_mode == "always")
    observer = Observer(side)

    def read(scope: Scope) -> Reply:
        return kv.get(backend, scope)

    async def change(scope: Scope, receive: Receive) -> Reply:
        return await kv.change(backend, scope, receive, settings.max_body)

    async def items(scope: Scope, receive: Receive) -> Reply:
        return await batch.handle(backend, scope, receive, settings)

    history = History(backend.patient, side, backend)

    def close() -> None:
        history.stop()
        backend.close()
        side.close()

    api = store_api(backend, observer, side, server, settings, history)
    keyed = KeyedRoute(kv.PREFIX, "/kv/{key}", read, change)
    return new_gate(keyed, {b"/kv": items}, api, observer, settings, close, history.start)


def new_gate(
    keyed: KeyedRoute,
    exact: dict[bytes, Bytes],
    inner: Any,
    observer: Observer,
    settings: Settings,
    close: Callable[[], None],
    start: Callable[[], None] = lambda: None,
) -> Gate:
    """A gate with what every server has: pages, health, and who may come in."""
    pages = {path: _page(name) for path, name in _PAGES.items()}
    return Gate(
        keyed,
        {**exact, **pages, b"/healthz": _healthy, b"": _page_at("/"), b"/docs/": _page_at("/docs")},
        inner,
        observer,
        hosts=known_hosts(settings),
        settings=settings,
        close=close,
        start=start,
    )


def known_hosts(settings: Settings) -> frozenset[str]:
    """Names that Host may have, in lower case; none: any.

    On a unix socket, and where a token is asked for, a page of a stranger cannot do anything under any name.
    """
    if "*" in settings.hosts or (not settings.hosts and (settings.uds or settings.token or settings.insecure)):
        return frozenset()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return LOOPBACK | {host.lower()} | {name.lower() for name in settings.hosts}


def open_app(settings: Settings, side: Store, started: float) -> Gate:
    """What a worker process serves."""
    if settings.datastore is not None:
        return create_app(DataStore(settings.datastore), settings=settings, side=side, started=started)
    return create_app(
        open_store(settings, QUICK_TIMEOUT_S),
        settings=settings,
        side=side,
        patient=open_store(settings, settings.lock_timeout),
        started=started,
    )


def open_store(settings: Settings, lock_timeout: float) -> Store:
    """A handle of the store that the settings name."""
    if settings.path is not None:
        return Store.open(settings.path, settings.sync, settings.size, lock_timeout=lock_timeout)
    return Store(settings.store, settings.size, lock_timeout=lock_timeout, foreign=settings.foreign)


# ---- Small routes --------------------------------------------------------------------------


async def _healthy(scope: Scope, receive: Receive) -> Reply:
    _only_reads(scope)
    return 200, [(b"content-type", b"application/json")], b'{"healthy":true}'


def _only_reads(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise RefusedError(405, f"{scope['method']} is not for this path", [(b"allow", b"GET, HEAD")])


def _page_at(path: str) -> Bytes:
    """For the other spelling of a page's address: the links in it are relative to this one."""

    async def moved(scope: Scope, receive: Receive) -> Reply:
        _only_reads(scope)
        return moved_to(scope, path)

    return moved


def _page(name: str) -> Bytes:
    body = (Path(__file__).parent / "pages" / name).read_bytes()

    async def page(scope: Scope, receive: Receive) -> Reply:
        _only_reads(scope)
        return 200, list(_PAGE_HEADERS), body

    return page

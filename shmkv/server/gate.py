"""The first code that sees a request: host, origin, token, time; then the binary routes, or FastAPI.

One ASGI application, so that all of it holds for every route, and a request for bytes meets no framework.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, Final

from shmkv.server.body import GoneError, Receive
from shmkv.server.observe import Observer
from shmkv.server.paths import text_of
from shmkv.server.problems import RefusedError, Reply, problem, problem_of
from shmkv.server.settings import Settings

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Bytes = Callable[[Scope, Receive], Awaitable[Reply]]

KEYED: Final = (b"/read/", b"/delete/")  # routes of FastAPI that end in a key
OPEN: Final = frozenset((b"/", b"/healthz", b"/readyz", b"/docs", b"/openapi.json"))  # need no token: they tell nothing
LABELS: Final = frozenset(
    ("/put/", "/batch_put/", "/read_key_range/", "/stats", "/metrics", "/report", "/export", "/check", "/healthz",
     "/readyz", "/docs", "/openapi.json", "/")
)  # fmt: skip
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_STATUS_BEFORE_ANSWER: Final = 499  # in the metrics: the client went away
_log = logging.getLogger("shmkv.server")


class Gate:
    """The application that the ASGI server runs.

    Args:
        bytes_routes: which function answers which path by itself: an exact path, or one that ends in "/" for all
            that begin with it.
        inner: answers everything else.
        close: called at the end.
    """

    def __init__(
        self,
        bytes_routes: dict[bytes, Bytes],
        inner: Asgi,
        observer: Observer,
        *,
        hosts: frozenset[str],
        settings: Settings,
        close: Callable[[], None],
    ) -> None:
        self._exact = {path: route for path, route in bytes_routes.items() if not _takes_all(path)}
        self._begins = [(path, route) for path, route in bytes_routes.items() if _takes_all(path)]
        self._inner = inner
        self._observer = observer
        self._hosts = hosts
        self.settings = settings
        self._token = settings.token
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise RuntimeError(f"nothing here speaks {scope['type']}")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter_ns()
        label, route = self._route_of(scope["raw_path"])
        status = _STATUS_BEFORE_ANSWER
        try:
            try:
                self._admit(scope)
                if route is not None:
                    reply = await route(scope, receive)
                else:
                    _take_key(scope)
                    status = await self._by_framework(scope, receive, send)
                    return
            except Exception as error:
                answer = self._reply_to(error, scope)
                if answer is None:
                    return
                reply = answer
            status = reply[0]
            await send_reply(reply, send)
        finally:
            self._observer.note(label, scope["method"], status, perf_counter_ns() - started)

    def _route_of(self, path: bytes) -> tuple[str, Bytes | None]:
        """(label in the metrics, function); the label is one of few, whatever clients ask for."""
        for prefix, route in self._begins:
            if path.startswith(prefix):
                return prefix.decode() + "{key}", route
        if path in self._exact:
            return path.decode(), self._exact[path]
        for prefix in KEYED:
            if path.startswith(prefix):
                return prefix.decode() + "{key}", None
        text = path.decode("latin-1")
        return text if text in LABELS else "other", None

    def _reply_to(self, error: Exception, scope: Scope) -> Reply | None:
        """None: there is nobody to answer."""
        if isinstance(error, GoneError):
            return None
        reply = problem_of(error)
        if reply is None:
            _log.error("%s %s failed", scope["method"], scope["raw_path"][:200], exc_info=error)
            reply = problem(500, "the server made a mistake; its log says more")
        return reply

    async def _by_framework(self, scope: Scope, receive: Receive, send: Send) -> int:
        status = _STATUS_BEFORE_ANSWER

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._inner(scope, receive, noting)
        except GoneError:
            pass
        except Exception:
            # FastAPI has answered 500 before it raises; only where it had not begun is there something to say.
            if status == _STATUS_BEFORE_ANSWER:
                raise
            _log.exception("%s %s failed", scope["method"], scope["raw_path"][:200])
        return status

    # ---- Who may ---------------------------------------------------------------------------

    def _admit(self, scope: Scope) -> None:
        host = origin = authorization = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise RefusedError(400, "there are two Host headers")
                host = value
            elif name == b"origin":
                origin = value
            elif name == b"authorization":
                authorization = value
        if self._hosts and not self._knows(host):
            raise RefusedError(400, "Host is not a name of this server: --allow-host adds one")
        if origin is not None and scope["method"] not in _SAFE and not _same_origin(origin, host):
            raise RefusedError(403, "a page of another site may not change anything here")
        if self._token is not None and scope["raw_path"] not in OPEN and not self._is_token(authorization):
            raise RefusedError(401, "say Authorization: Bearer TOKEN", [(b"www-authenticate", b"Bearer")])

    def _knows(self, host: bytes | None) -> bool:
        """A page of a stranger whose name leads to this address (DNS rebinding) comes with the stranger's Host."""
        return host is not None and _without_port(host.decode("latin-1")) in self._hosts

    def _is_token(self, authorization: bytes | None) -> bool:
        assert self._token is not None
        given = authorization or b""
        scheme, _, token = given.partition(b" ")
        # Compared in any case, and in constant time: the answer's delay tells nothing.
        same = hmac.compare_digest(token.strip(), self._token)
        return same and scheme.lower() == b"bearer"


async def send_reply(reply: Reply, send: Send) -> None:
    """Send an answer whose body is known."""
    status, headers, body = reply
    if status != 304 and status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _takes_all(path: bytes) -> bool:
    return len(path) > 1 and path.endswith(b"/")


def _take_key(scope: Scope) -> None:
    """Take the key off a path that ends in one, before a router sees it."""
    raw: bytes = scope["raw_path"]
    for prefix in KEYED:
        if raw.startswith(prefix):
            scope["shmkv.key"] = text_of(raw[len(prefix) :])
            scope["path"] = prefix.decode() + "key"
            return
    scope["path"] = text_of(raw)


def _without_port(host: str) -> str:
    """
    >>> _without_port("LocalHost:8003"), _without_port("[::1]:80"), _without_port("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


def _same_origin(origin: bytes, host: bytes | None) -> bool:
    return host is not None and origin.partition(b"://")[2].lower() == host.lower()

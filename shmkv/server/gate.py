"""The first code that sees a request: host, origin, token, time; then the binary routes, or FastAPI.

One ASGI application, so that all of it holds for every route, and a request for bytes meets no framework.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter_ns
from typing import Any, Final, NamedTuple

from shmkv.server import paths
from shmkv.server.body import GoneError, Receive
from shmkv.server.kv import HEADERS
from shmkv.server.mounting import unmounted
from shmkv.server.observe import Observer
from shmkv.server.paths import headers_of, text_of
from shmkv.server.problems import Headers, RefusedError, Reply, problem, problem_of
from shmkv.server.settings import Settings

Scope = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Bytes = Callable[[Scope, Receive], Awaitable[Reply]]


class KeyedRoute(NamedTuple):
    """What answers all paths that begin with a prefix, and end in a key."""

    prefix: bytes
    label: str  # in the metrics
    read: Callable[[Scope], Reply]  # GET and HEAD: never waits
    change: Bytes  # everything else


KEYED: Final = (b"/read/", b"/delete/")  # routes of FastAPI that end in a key
# They need no token: they tell nothing of what is stored.
OPEN: Final = frozenset((b"", b"/", b"/healthz", b"/readyz", b"/docs", b"/docs/", b"/openapi.json"))
LABELS: Final = frozenset(
    ("/", "/kv", "/put/", "/batch_put/", "/read_key_range/", "/stats", "/metrics", "/report", "/export", "/check",
     "/history", "/healthz", "/readyz", "/docs", "/openapi.json")
)  # fmt: skip
# Every route without a key is the same with a slash at its end and without: a redirect would lose the body of a POST.
# /docs is none of them, as a page's links are relative to where it lies; behind /kv/ is a key.
_SPELLINGS: Final = {
    (label[:-1] if label.endswith("/") else label + "/").encode(): label.encode()
    for label in LABELS - {"/", "/kv", "/docs"}
}
_READING: Final = ("GET", "HEAD")
_BODILESS: Final = (204, 304)
_MOST_HOSTS: Final = 64
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_STATUS_BEFORE_ANSWER: Final = 499  # in the metrics: the client went away
_log = logging.getLogger("shmkv.server")


class Gate:
    """The application that the ASGI server runs.

    Args:
        keyed: the routes for bytes.
        exact: which function answers which path.
        inner: answers everything else.
        hosts: names that Host may have; empty: any.
        close: called at the end.
        start: called once, in the event loop: at its beginning, or by the first request where nobody tells of that.

    It may be mounted in another application (docs/mounting.md).
    """

    def __init__(
        self,
        keyed: KeyedRoute,
        exact: dict[bytes, Bytes],
        inner: Asgi,
        observer: Observer,
        *,
        hosts: frozenset[str],
        settings: Settings,
        close: Callable[[], None],
        start: Callable[[], None],
    ) -> None:
        self._keyed = keyed
        self._exact = exact
        self._inner = inner
        self._observer = observer
        self._hosts = hosts
        self._good_hosts: set[bytes] = set()  # as they came, port and all: few, and looked at by every request
        self.settings = settings
        self._token = settings.token
        self.close = close
        self._start: Callable[[], None] | None = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            start()
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1000, "reason": "this is spoken over HTTP only"})
            return
        scope = unmounted(scope)
        if self.is_read(scope["method"], scope["raw_path"]):
            await _send(self.answer_read(scope), send)
        else:
            await self._http(scope, receive, send)

    def is_read(self, method: str, path: bytes) -> bool:
        """A request for one item's bytes: answer_read answers it."""
        return method in _READING and path.startswith(self._keyed.prefix)

    def answer_read(self, scope: Scope) -> Reply:
        """Answer such a request at once: nothing in it waits.

        The protocol calls this by itself, without the task, the events and the messages of ASGI around it, which
        would be most of the work.
        """
        started = perf_counter_ns()
        try:
            self._admit(scope)
            reply = self._keyed.read(scope)
        except Exception as error:
            reply = self._reply_to(error, scope)
        self._observer.note(self._keyed.label, scope["method"], reply[0], perf_counter_ns() - started)
        return reply

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter_ns()
        method = scope["method"]
        path = scope["raw_path"] = _spelt(method, scope["raw_path"])
        is_keyed = path.startswith(self._keyed.prefix)
        status = _STATUS_BEFORE_ANSWER
        try:
            try:
                self._admit(scope)
                if is_keyed:
                    reply = await self._keyed.change(scope, receive)
                elif path in self._exact:
                    reply = await self._exact[path](scope, receive)
                else:
                    _take_key(scope)
                    status = await self._by_framework(scope, receive, send)
                    return
            except GoneError:
                return
            except Exception as error:
                reply = self._reply_to(error, scope)
            status = reply[0]
            await _send(reply, send)
        finally:
            label = self._keyed.label if is_keyed else _label_of(path)
            self._observer.note(label, method, status, perf_counter_ns() - started)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _reply_to(self, error: Exception, scope: Scope) -> Reply:
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
        """Turn away who may not ask; leave the headers for those behind."""
        headers = scope[HEADERS] = headers_of(scope["headers"])
        host = headers.get(b"host")
        if host not in self._good_hosts and not self._knows(host):
            raise RefusedError(
                400, "Host is not a name of this server: --allow-host adds one, and Settings(hosts=...) of create_app"
            )
        if b"origin" in headers and scope["method"] not in _SAFE and not _same_origin(headers[b"origin"], host):
            raise RefusedError(403, "a page of another site may not change anything here")
        if self._token is not None and scope["raw_path"] not in OPEN and not self._is_token(headers):
            raise RefusedError(401, "say Authorization: Bearer TOKEN", [(b"www-authenticate", b"Bearer")])

    def _knows(self, host: bytes | None) -> bool:
        """A page of a stranger whose name leads to this address (DNS rebinding) comes with the stranger's Host."""
        if not self._hosts:
            return True
        if host is None or _without_port(host.decode("latin-1")) not in self._hosts:
            return False
        if len(self._good_hosts) < _MOST_HOSTS:
            self._good_hosts.add(host)
        return True

    def _is_token(self, headers: paths.Headers) -> bool:
        assert self._token is not None
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        # Compared in any case, and in constant time: the answer's delay tells nothing.
        same = hmac.compare_digest(token.strip(), self._token)
        return same and scheme.lower() == b"bearer"


def with_length(reply: Reply) -> Headers:
    """An answer's headers, with what says where its body ends."""
    status, headers, body = reply
    return headers if status in _BODILESS else [*headers, (b"content-length", b"%d" % len(body))]


async def _send(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply[0], "headers": with_length(reply)})
    await send({"type": "http.response.body", "body": reply[2]})


def _spelt(method: str, path: bytes) -> bytes:
    """A path as its route is written."""
    if method == "POST" and path == b"/kv/":
        return b"/kv"  # a batch: nothing is posted to a key, not even to the empty one
    return _SPELLINGS.get(path, path)


def _label_of(path: bytes) -> str:
    """One of few, whatever clients ask for."""
    for prefix in KEYED:
        if path.startswith(prefix):
            return prefix.decode() + "{key}"
    text = path.decode("latin-1")
    return text if text in LABELS else "other"


def _take_key(scope: Scope) -> None:
    """Take the key off a path that ends in one, before a router sees it.

    The router gets any other path as it was sent.  Decoded, /delete%2Fb would be a route for keys, without a key.
    """
    raw: bytes = scope["raw_path"]
    for prefix in KEYED:
        if raw.startswith(prefix):
            scope["shmkv.key"] = text_of(raw[len(prefix) :])
            scope["path"] = prefix.decode() + "key"
            return
    scope["path"] = raw.decode("latin-1")


def _without_port(host: str) -> str:
    """
    >>> _without_port("LocalHost:8003"), _without_port("[::1]:80"), _without_port("[::1]")
    ('localhost', '[::1]', '[::1]')
    """
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


def _same_origin(origin: bytes, host: bytes | None) -> bool:
    return host is not None and origin.partition(b"://")[2].lower() == host.lower()

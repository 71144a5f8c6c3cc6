"""HTTP/1.1 of uvicorn and httptools, with bounds: on a request's head, and on how long a client may take for anything.

A head is counted while it arrives, so that one that never ends costs no more than its limit.  Time is looked at once a
second for all connections together: a timer for each request would cost more than most requests.
"""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shmkv.server.gate import Gate
from shmkv.server.problems import problem

_MOST_HEADERS: Final = 100
_LOOK_SECONDS: Final = 1.0


class BoundedProtocol(HttpToolsProtocol):
    """A connection; its limits are those of the application that it serves."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert isinstance(self.app, Gate), "nothing wraps the application"
        self.settings = self.app.settings
        self._in_head = True
        self._unfinished = False  # a request has begun to arrive, and not ended
        self._ended_one = False  # a request has ended in what came last: empty lines alone are none
        self._since: float | None = None  # when it had begun and was not whole, on the loop's clock
        self._received = 0  # bytes of it since then
        self._blocked_since: float | None = None  # the client does not take what is sent
        self._refusal: tuple[int, str] | None = None

    # ---- Time ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        if not getattr(self.server_state, "looking", False):
            self.server_state.looking = True  # type: ignore[attr-defined]
            self.loop.call_later(_LOOK_SECONDS, _look, self.loop, self.server_state)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._received += len(data)
        self._ended_one = False
        super().data_received(data)
        if self._ended_one and not self._unfinished:
            self._since = None
        elif self._since is None:
            self._since = self.loop.time()
        if self._unfinished and self._in_head and self._received > self._most_head():
            self._refuse_now(431, f"the head of a request takes at most {self._most_head():,} bytes here")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    def look(self, now: float) -> None:
        """End what takes too long."""
        settings = self.settings
        if self._blocked_since is not None and now - self._blocked_since > settings.write_seconds:
            self.transport.abort()
        if self._since is None or self._refusal is not None:
            return
        allowed = settings.head_seconds
        if self._unfinished and not self._in_head:
            allowed += settings.body_grace + self._received / settings.body_rate
        if now - self._since <= allowed:
            return
        if self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete:
            self.transport.abort()
        else:
            self._refuse_now(408, "the request came too slowly")

    # ---- A request's head ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._unfinished = True

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._received > self.settings.max_head or len(self.headers) > _MOST_HEADERS:
            self._check_head()  # less has come than would be too much
        super().on_headers_complete()

    def _check_head(self) -> None:
        settings = self.settings
        if len(self.url) > settings.max_url:
            self._refuse(414, f"a path takes at most {settings.max_url:,} bytes here")
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > settings.max_head or len(self.headers) > _MOST_HEADERS:
            self._refuse(431, f"headers: at most {_MOST_HEADERS}, of {settings.max_head:,} bytes together")

    def on_message_complete(self) -> None:
        self._unfinished, self._ended_one, self._received = False, True, 0
        super().on_message_complete()

    def _most_head(self) -> int:
        return self.settings.max_url + self.settings.max_head

    # ---- Refusals --------------------------------------------------------------------------

    def _refuse(self, status: int, detail: str) -> None:
        """From within the parser, which then calls send_400_response."""
        self._refusal = (status, detail)
        raise ValueError(detail)

    def _refuse_now(self, status: int, detail: str) -> None:
        self._refusal = (status, detail)
        self.send_400_response(detail)

    def send_400_response(self, msg: str) -> None:
        status, detail = self._refusal or (400, "that is no HTTP/1.1 request")
        self._refusal = (status, detail)
        _, headers, body = problem(status, detail)
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        end = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        if not self.transport.is_closing():
            self.transport.write(b"".join([STATUS_LINE[status], *lines, end, body]))
            self.transport.close()


def _look(loop: Any, server_state: Any) -> None:
    """At all connections, and again in a second."""
    now = loop.time()
    for connection in list(server_state.connections):
        connection.look(now)
    loop.call_later(_LOOK_SECONDS, _look, loop, server_state)

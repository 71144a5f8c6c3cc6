"""HTTP/1.1 of uvicorn and httptools, with bounds: on a request's head, and on how long a client may take for anything.

A head is counted while it arrives, so that one that never ends costs no more than its limit.  Time is looked at once a
second for all connections together: a timer for each request would cost more than most requests.

Answers come in the order of their requests, refusals too: one of what is malformed waits for the answers before it.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from shmkv.server.gate import Gate, with_length
from shmkv.server.problems import problem

_MOST_HEADERS: Final = 100
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_LOOK_SECONDS: Final = 1.0
_SLICE: Final = 8 << 10  # bytes parsed at a time: so many requests, and no more, may wait for the answers before them
_TARGET: Final = re.compile(rb"(?:https?://[^/?#]+)?(/[^?#]*|\*)?(?:\?([^#]*))?")


class BoundedProtocol(HttpToolsProtocol):
    """A connection; its limits are those of the application that it serves."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        assert isinstance(self.app, Gate), "nothing wraps the application"
        self.settings = self.app.settings
        self._held = b""  # came while requests wait for the answers before them
        self._has_said_all = False  # the client has closed its side
        self._answered: Any = None  # the cycle of the request that is being answered: self.cycle may be a later one
        # The request that is arriving.
        self._in_head = True
        self._unfinished = False  # has begun to arrive, and not ended
        self._ended_one = False  # a request has ended in what came last: empty lines alone are none
        self._framing = b""  # the header that says where its body ends, if it has one
        self._is_standing_in = False  # what the parser tells now is of no request
        self._read: tuple[str, bytes, bytes] | None = None  # method, path, query of a read that is answered at once
        self._received = 0  # bytes of it
        self._without_body = 0  # bytes since its body had one more: head, trailers
        self._since: float | None = None  # when it had begun and was not whole, on the loop's clock
        # What the client has not taken yet.
        self._left = 0
        self._left_since: float | None = None
        self._refusal: tuple[int, str] | None = None

    # ---- Bytes -----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        if not getattr(self.server_state, "looking", False):
            self.server_state.looking = True  # type: ignore[attr-defined]
            self.loop.call_later(_LOOK_SECONDS, _look, self.loop, self.server_state)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.response_complete:
            self._answered.disconnected = True  # super() tells the latest only
            self._answered.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._held:
            self._held += data  # reading is paused: this is the last for now
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Until a request has to wait: the rest is parsed when it is answered."""
        self._ended_one = False
        at = 0
        while at < len(data) and self._refusal is None and not self.transport.is_closing():
            if self.pipeline:
                self._held = data[at:]
                break
            at += self._feed(data[at : at + _SLICE])
        if self._ended_one and not self._unfinished:
            self._since = None
        elif self._since is None:
            self._since = self.loop.time()

    def _feed(self, piece: bytes) -> int:
        """How many bytes the parser took."""
        taken = len(piece)
        self._received += taken
        self._without_body += taken
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            taken = upgrade.args[0]
            self._decline_upgrade()
        except httptools.HttpParserError:
            self._refuse_now(400, "that is no HTTP/1.1 request")
        if self._unfinished and self._without_body > self._most_head() and self._refusal is None:
            self._refuse_now(*self._too_long())
        return taken

    def _decline_upgrade(self) -> None:
        """Another protocol is declined by going on with this one.

        httptools takes a body for the other protocol's; a head without the wish lets it go on where it was.
        """
        if self._framing:
            self._is_standing_in = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % self._framing)
            self._is_standing_in = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all gets its answers: True keeps its side of the connection open."""
        self._has_said_all = True
        if not self._is_answering() or (self._unfinished and self._refusal is None):
            return False
        self._end_after_answers()
        return True

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _end_after_answers(self) -> None:
        if not self._held and self._refusal is None:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self.pipeline:
            self.flow.pause_reading()
        elif self._held:
            held, self._held = self._held, b""
            self._parse(held)
            if self._has_said_all and self._is_answering():
                self._end_after_answers()
        if self._refusal is not None:
            self._say_refusal()

    # ---- Time ------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """End what takes too long."""
        self._look_at_writing(now)
        if self._since is None or self._refusal is not None:
            return
        if self.flow.read_paused:
            self._since = now  # it waits for the server
        settings = self.settings
        allowed = settings.head_seconds
        if self._unfinished and not self._in_head:
            allowed += settings.body_grace + self._received / settings.body_rate
        if now - self._since > allowed:
            self._refuse_now(408, "the request came too slowly")

    def _look_at_writing(self, now: float) -> None:
        """A client has to take what is sent to it at a rate, as it has to send."""
        left, before = self.transport.get_write_buffer_size(), self._left
        self._left = left
        if left == 0:
            self._left_since = None
        elif self._left_since is None or left > before or before - left >= self.settings.body_rate * _LOOK_SECONDS:
            self._left_since = now
        elif now - self._left_since > self.settings.write_seconds:
            self.transport.abort()

    # ---- A request's head ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_standing_in:
            return
        super().on_message_begin()
        self._framing = b""
        self._in_head = self._unfinished = True

    def on_url(self, url: bytes) -> None:
        if not self._is_standing_in:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        if self._is_standing_in:
            return
        self._check_head()
        # uvicorn's parser of targets takes no more than 65,535 bytes, and a key alone may have three times as many.
        target = _TARGET.fullmatch(self.url)
        method = self.parser.get_method()
        if target is None or not self.url.isascii() or method == b"CONNECT":
            self._refuse(400, "that is no path")
        self._in_head = False
        if self._takes_at_once(method, target[1]):
            self._read = (method.decode(), target[1], target[2] or b"")
            return
        self.url = b"/"
        super().on_headers_complete()
        self.scope["raw_path"], self.scope["query_string"] = target[1] or b"/", target[2] or b""
        self.headers = []  # what comes now are trailers: nobody behind the head's checks is told of them

    def _check_head(self) -> None:
        settings = self.settings
        for name, value in self.headers:
            if name in _FRAMING:
                self._frame(name, value.lower())
        if self._without_body <= settings.max_head and len(self.headers) <= _MOST_HEADERS:
            return  # less has come than would be too much
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.url) > settings.max_url or size > settings.max_head or len(self.headers) > _MOST_HEADERS:
            self._refuse(*self._too_long())

    def _too_long(self) -> tuple[int, str]:
        settings = self.settings
        if len(self.url) > settings.max_url:
            return 414, f"a path takes at most {settings.max_url:,} bytes here"
        return 431, f"headers: at most {_MOST_HEADERS}, of {settings.max_head:,} bytes together"

    def _frame(self, kind: bytes, value: bytes) -> None:
        if kind == b"transfer-encoding" and value != b"chunked":
            self._refuse(501, "of transfer encodings, chunked is known here")
        if kind == b"content-length" and int(value) > self.settings.max_body:
            self._refuse(413, f"a body takes at most {self.settings.max_body:,} bytes here")
        self._framing = b"" if value == b"0" else kind + b":" + value

    def on_body(self, body: bytes) -> None:
        self._without_body = 0
        if self._read is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self._framing:
            return  # the body comes yet: see _decline_upgrade
        self._unfinished, self._ended_one, self._received, self._without_body = False, True, 0, 0
        if self._read is None:
            super().on_message_complete()
        else:
            self._answer_at_once(*self._read)
            self._read = None

    # ---- Reads of one item -----------------------------------------------------------------

    def _takes_at_once(self, method: bytes, path: bytes | None) -> bool:
        """It is a read of one item without a body, no answer is due before it, and the client takes what is sent."""
        if self._framing or path is None or not self.app.is_read(method.decode(), path):
            return False
        due = self._is_answering() or bool(self.pipeline) or self.flow.write_paused or self.transport.is_closing()
        return not (due or self.expect_100_continue or self.parser.should_upgrade())

    def _answer_at_once(self, method: str, path: bytes, query: bytes) -> None:
        scope = {"method": method, "raw_path": path, "query_string": query, "headers": self.headers}
        reply = self.app.answer_read(scope)
        is_last = self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive()
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *with_length(reply))]
        end = b"connection: close\r\n\r\n" if is_last else b"\r\n"
        self.transport.write(b"".join([STATUS_LINE[reply[0]], *lines, end, b"" if method == "HEAD" else reply[2]]))
        if is_last:
            self.transport.close()
        self.on_response_complete()

    def _most_head(self) -> int:
        return self.settings.max_url + self.settings.max_head

    # ---- Refusals --------------------------------------------------------------------------

    def _refuse(self, status: int, detail: str) -> NoReturn:
        """From within the parser, which ends with it."""
        self._refusal = (status, detail)
        raise ValueError(detail)

    def _refuse_now(self, status: int, detail: str) -> None:
        self._refusal = self._refusal or (status, detail)
        self._say_refusal()

    def _say_refusal(self) -> None:
        """Once all whole requests before it are answered."""
        if self.pipeline or self.transport.is_closing():
            return
        in_body = self._unfinished and not self._in_head
        if self._is_answering() and not in_body:
            return
        if in_body and self.cycle.response_started:
            self.transport.close()  # it was answered before it was whole: there is no second answer
            return
        assert self._refusal is not None
        _, headers, body = problem(*self._refusal)
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        end = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(b"".join([STATUS_LINE[self._refusal[0]], *lines, end, body]))
        self.transport.close()


def _look(loop: Any, server_state: Any) -> None:
    """At all connections, and again in a second."""
    loop.call_later(_LOOK_SECONDS, _look, loop, server_state)  # first: whatever a connection does, the others are seen
    now = loop.time()
    for connection in list(server_state.connections):
        connection.look(now)

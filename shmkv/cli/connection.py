"""HTTP to a server of shmkv: one connection for each thread, and its problems as the errors that a store raises here.

`http.client` and nothing else: a command asks once or twice and ends, so that what a client library needs to load
would be most of its time.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from shmkv import errors
from shmkv.cli.main import ConditionError, UsageError

TIMEOUT_S: Final = 60.0  # for each answer to begin, and for each piece of it
JSON: Final = "application/json"
_PIECE: Final = 1 << 16  # bytes
_OURS: Final = "is this a server of shmkv?"
_FORMS: Final = "a URL is http://HOST:PORT, https://HOST:PORT or unix:/PATH/TO.sock"


class NoServerError(errors.ShmkvError, ConnectionError):
    """Nobody answers there, or whoever does is no server of shmkv."""


class RefusedError(ValueError):
    """The server does not take a key, value, ttl or batch; its sentence says which."""


class Answer(NamedTuple):
    """What came back, if it was no problem."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise NoServerError(f"the answer is no JSON ({error}): {_OURS}") from error


class Connection:
    """To one server.  Any thread may use it; each gets a connection of its own, which is used again."""

    def __init__(self, url: str, token_file: str | None = None) -> None:
        self.url = url
        self._make, self._prefix = _maker_of(url)
        self._headers = {"Authorization": f"Bearer {_token_in(token_file)}"} if token_file else {}
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._all:
            connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        fine: tuple[int, ...] = (),
    ) -> Answer:
        """One request and its whole answer; a status below 300, or one that is `fine`, is no problem.

        Of a HEAD every status is: its answer has no body that could say what is wrong.

        Raises:
            NoServerError, TimeoutError: there was no answer.
            ShmkvError, PermissionError, ConditionError: what the answer says is wrong.
        """
        with _Reaching(self.url):
            answer = self._send(method, path, body, headers or {})
            got = Answer(answer.status, answer.headers, answer.read())
        if got.status >= 300 and got.status not in fine and method != "HEAD":
            raise error_of(got.status, got.body)
        return got

    def ask_json(self, method: str, path: str, thing: Any) -> Any:
        """Send a thing as JSON; the answer, read as JSON."""
        body = json.dumps(thing, ensure_ascii=False, separators=(",", ":")).encode()
        return self.ask(method, path, body, {"Content-Type": JSON}).json()

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a long answer while it comes, each without its end."""
        with _Reaching(self.url):
            answer = self._send("GET", path, None, {})
            problem = answer.read() if answer.status >= 300 else None
        if problem is not None:
            raise error_of(answer.status, problem)
        with _Reaching(self.url):
            for line in io.BufferedReader(answer, _PIECE):  # raw enough: it has readinto()
                yield line.removesuffix(b"\n")
            if answer.length:  # http.client says nothing of what was promised and did not come
                raise http.client.IncompleteRead(b"", answer.length)

    def _send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        connection = self._connection()
        if connection.sock is not None and _is_over(connection.sock):
            connection.close()  # and request() opens it anew
        connection.request(method, self._prefix + path, body, {**self._headers, **headers})
        return connection.getresponse()

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if found is None:
            found = self._own.connection = self._make()
            self._all.append(found)
        return found


class _Reaching:
    """Around what talks to the server: what the network says, as our errors."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if isinstance(error, TimeoutError):
            raise TimeoutError(f"{self._url} did not answer within {TIMEOUT_S:.0f} s") from error
        if isinstance(error, errors.ShmkvError | PermissionError):
            return
        if isinstance(error, OSError | http.client.HTTPException):
            raise NoServerError(f"cannot reach {self._url}: {_reason(error)}") from error


@contextlib.contextmanager
def understanding() -> Iterator[None]:
    """Around the reading of an answer: one of another form than ours is not from a server of ours."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise NoServerError(f"the answer is of another form: {_OURS} ({type(error).__name__}: {error})") from error


def _is_over(idle: socket.socket) -> bool:
    """The server has closed a connection that was idle for too long: there is something to read, its end."""
    return bool(select.select([idle], [], [], 0)[0])


def _reason(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


# ---- Where ---------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _maker_of(url: str) -> tuple[Any, str]:
    """(what makes a connection, what paths begin with)."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path:
            raise UsageError(f"{_FORMS}, not {url!r}")
        return lambda: _UnixConnection(path), ""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{_FORMS}, not {url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise UsageError(f"{_FORMS}, not {url!r}")
    made = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    return lambda: made(host, port, timeout=TIMEOUT_S), parts.path.rstrip("/")


def _token_in(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the token file {os.fspath(path)}: {_reason(error)}") from error
    if not token or not token.isprintable():
        raise UsageError(f"the token file {path} does not hold one line of text")
    return token


def path_of(key: str, *, behind: str = "", **query: object) -> str:
    """The path of a key's routes.

    >>> path_of("a/b c", ttl=None), path_of("n", behind="/incr"), path_of("k", ttl=1.5)
    ('/kv/a%2Fb%20c', '/kv/n/incr', '/kv/k?ttl=1.5')
    """
    return with_query(f"/kv/{quote(key, safe='')}{behind}", **query)


def with_query(path: str, **query: object) -> str:
    """A path with those parameters that are not None."""
    given = {name: str(value) for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


# ---- Problems ------------------------------------------------------------------------------------

# Where the answer names no class of shmkv.errors.
_BY_STATUS: Final[dict[int, type[Exception]]] = {
    401: PermissionError,
    403: PermissionError,
    409: ConditionError,
    412: ConditionError,
    413: RefusedError,
    414: RefusedError,
    422: RefusedError,
    408: TimeoutError,
    503: TimeoutError,
    504: TimeoutError,
    507: errors.StoreFullError,
}


def error_of(status: int, body: bytes) -> Exception:
    """The error that an `application/problem+json` speaks of.

    >>> error_of(507, b'{"detail": "no room", "error": "StoreFullError"}')
    StoreFullError('no room')
    """
    try:
        problem = json.loads(body)
        sentence = str(problem.get("detail") or problem["title"])
    except (ValueError, LookupError, AttributeError, TypeError):
        return NoServerError(f"the answer is status {status} without a problem: {_OURS}")
    name = problem.get("error")
    if name in errors.__all__:
        found: type[Exception] = getattr(errors, name)
        return found(sentence)
    return _BY_STATUS.get(status, errors.ShmkvError)(sentence)

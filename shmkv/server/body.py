"""A request's body: read up to the limit, decoded as JSON or MessagePack."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from shmkv.server.problems import RefusedError

Receive = Callable[[], Awaitable[Any]]
Decoded = TypeVar("Decoded")

JSON_TYPE: Final = b"application/json"
MSGPACK_TYPES: Final = (b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack")


class GoneError(Exception):
    """The client went away: there is nobody to answer."""


async def read_body(receive: Receive, most: int) -> bytes:
    """All of it.

    Raises:
        RefusedError: 413, it is larger than `most` bytes.
        GoneError: the client did not send all of it.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise GoneError
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(most: int) -> RefusedError:
    return RefusedError(413, f"a body takes at most {most:,} bytes here", [(b"connection", b"close")])


def from_json(body: bytes, kind: type[Decoded]) -> Decoded:
    """JSON as `kind` says; RefusedError (422) with the place where it is something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RefusedError(422, f"the body: {error}") from error


def from_msgpack(body: bytes, kind: type[Decoded]) -> Decoded:
    """As from_json."""
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RefusedError(422, f"the body: {error}") from error


def media_type(headers: dict[bytes, bytes]) -> bytes:
    """The Content-Type without its parameters, in lower case; empty if there is none."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()

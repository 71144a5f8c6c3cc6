"""The binary routes: GET, HEAD, PUT, DELETE /kv/{key} and POST /kv/{key}/incr, with no framework in between.

A value is the body, as it is.  Conditions are those of RFC 9110, sections 13 and 8.8.3: every ETag is a strong one,
made of the store's uuid and the item's version, so that `If-Match` is a compare-and-set.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shmkv import Store, counting, forms
from shmkv.server.backend import Backend
from shmkv.server.body import Receive, from_json, read_body
from shmkv.server.paths import query_of, seconds_of, text_of
from shmkv.server.problems import Headers, RefusedError, Reply

if TYPE_CHECKING:
    from shmkv._core import Record

PREFIX: Final = b"/kv/"
_INCR: Final = b"/incr"
# Conditions of Store._place.
_ANY, _ABSENT, _PRESENT, _VERSION = range(4)
HEADERS: Final = "shmkv.headers"  # in the scope: what paths.headers_of made of them
_OCTETS: Final = (b"content-type", forms.OCTETS.encode())
_ETAGS: Final = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|$)')
_VERSION_DIGITS: Final = re.compile("[1-9a-f][0-9a-f]{0,15}")
# A page that somebody stored is shown by a browser without its scripts: they would speak for this server.
_AS_DATA: Final = ((b"x-content-type-options", b"nosniff"), (b"content-security-policy", b"sandbox"))
_MISSING: Final = "there is no such key"
_LONG: Final = 64 << 10  # bytes from which on storing is worth a thread


class Increment(msgspec.Struct, forbid_unknown_fields=True):
    """What POST /kv/{key}/incr takes."""

    delta: int | float = 1
    initial: int | float = 0
    ttl: float | None = None


async def change(backend: Backend, scope: dict[str, Any], receive: Receive, max_body: int) -> Reply:
    """Answer a request whose path begins with /kv/, other than GET and HEAD."""
    method = scope["method"]
    raw = scope["raw_path"][len(PREFIX) :]
    if method == "PUT":
        return await put(backend, scope, text_of(raw), receive, max_body)
    if method == "DELETE":
        return await delete(backend, scope, text_of(raw))
    if method == "POST" and raw.endswith(_INCR):
        return await incr(backend, scope, text_of(raw[: -len(_INCR)]), receive, max_body)
    allowed = b"GET, HEAD, PUT, DELETE, POST" if raw.endswith(_INCR) else b"GET, HEAD, PUT, DELETE"
    raise RefusedError(405, f"{method} is not for a key", [(b"allow", allowed)])


# ---- Reading -------------------------------------------------------------------------------


def get(backend: Backend, scope: dict[str, Any]) -> Reply:
    """The value's bytes, or 304, 404, 406, 412."""
    if scope["query_string"]:
        query_of(scope, ())
    asked = scope[HEADERS]
    record = backend.store._fetch(text_of(scope["raw_path"][len(PREFIX) :]))
    if record is None:
        raise RefusedError(412 if b"if-match" in asked else 404, _MISSING)
    headers = [(b"etag", backend.etag(record[3]))]
    if record[4]:
        headers.append((b"shmkv-ttl", b"%.3f" % (forms.seconds_left(record, backend.store._now_ms()) or 0)))
    if b"if-match" in asked and not _holds(backend, asked[b"if-match"], record[3], weak=False):
        raise RefusedError(412, "the item has another version", headers)
    if b"if-none-match" in asked and _holds(backend, asked[b"if-none-match"], record[3], weak=True):
        return 304, headers, b""
    if record[0] == forms.BYTES:
        headers.append(_OCTETS)
        return 200, headers, record[1]
    return _shown(record, headers)


def _shown(record: Record, headers: Headers) -> Reply:
    """Anything but bytes without a content type."""
    headers.append((b"shmkv-type", forms.type_name(record[0]).encode()))
    try:
        body, content_type = forms.shown(record)
    except forms.NoFormError as error:
        raise RefusedError(406, str(error), headers) from error
    headers += [(b"content-type", content_type.encode()), *_AS_DATA]
    return 200, headers, body


def _holds(backend: Backend, tags: bytes, version: int, *, weak: bool) -> bool:
    return tags.strip() == b"*" or version in _versions(backend, tags, weak=weak)


# ---- Writing -------------------------------------------------------------------------------


async def put(backend: Backend, scope: dict[str, Any], key: str, receive: Receive, max_body: int) -> Reply:
    """Store the body: 201, 204, or 412 where its condition does not hold."""
    ttl = seconds_of(query_of(scope, ("ttl",)))
    conditions = _put_conditions(backend, scope)
    content_type = scope[HEADERS].get(b"content-type", b"").decode("latin-1") or None
    body = await read_body(receive, max_body)
    for condition, version in conditions:

        def place(store: Store, condition: int = condition, version: int = version) -> tuple[int, bool] | None:
            return store._place(key, body, ttl, content_type, condition, version)

        placed = await backend.write(place, long=len(body) >= _LONG)
        if placed is not None:
            return 204 if placed[1] else 201, [(b"etag", backend.etag(placed[0]))], b""
    raise RefusedError(412, "the condition does not hold: nothing was changed")


def _put_conditions(backend: Backend, scope: dict[str, Any]) -> list[tuple[int, int]]:
    """(condition, version) of Store._place: of several, one that holds is enough."""
    wanted, unwanted = scope[HEADERS].get(b"if-match"), scope[HEADERS].get(b"if-none-match")
    if unwanted is not None:
        if not _is_star(unwanted):
            raise RefusedError(422, "of If-None-Match, a PUT takes * only: create, or leave it")
        return [(_ABSENT, 0)] if wanted is None else []  # nothing is there and is of a version
    if wanted is None:
        return [(_ANY, 0)]
    if _is_star(wanted):
        return [(_PRESENT, 0)]
    return [(_VERSION, version) for version in _versions(backend, wanted, weak=False)]


async def delete(backend: Backend, scope: dict[str, Any], key: str) -> Reply:
    """204; 404; 412 where If-Match does not hold."""
    query_of(scope, ())
    wanted = scope[HEADERS].get(b"if-match")
    if wanted is None or _is_star(wanted):
        if await backend.write(lambda store: store.delete(key)):
            return 204, [], b""
        raise RefusedError(404 if wanted is None else 412, _MISSING)
    for version in _versions(backend, wanted, weak=False):
        if await backend.write(lambda store, version=version: store._delete_version(key, version)):  # type: ignore[misc]
            return 204, [], b""
    raise RefusedError(412, "there is no item of that version: nothing was changed")


async def incr(backend: Backend, scope: dict[str, Any], key: str, receive: Receive, max_body: int) -> Reply:
    """Add to a number; 409 where the value is none, or leaves 64 bits."""
    query_of(scope, ())
    body = await read_body(receive, max_body)
    asked = from_json(body, Increment) if body else Increment()
    value = await backend.write(lambda store: _count(store, key, asked))
    return 200, [(b"content-type", b"application/json")], b'{"value":%d}' % value


def _count(store: Store, key: str, asked: Increment) -> int:
    delta, initial = _whole(asked.delta, "delta"), _whole(asked.initial, "initial")
    try:
        return counting.incr(store, key, delta, initial, asked.ttl)
    except TypeError as error:
        raise RefusedError(409, str(error)) from error


def _whole(number: float, name: str) -> int:
    """5.0 is 5, as JSON does not tell them apart."""
    if isinstance(number, float) and not number.is_integer():
        raise RefusedError(422, f"{name} is a whole number, not {number}")
    return int(number)


# ---- Headers -------------------------------------------------------------------------------


def _is_star(value: bytes) -> bool:
    return value.strip() == b"*"


def _versions(backend: Backend, tags: bytes, *, weak: bool) -> list[int]:
    """The versions of this store's ETags in a list of them; those of others match nothing.

    Args:
        weak: take weak ones (W/"...") too, as If-None-Match does and If-Match does not (RFC 9110, 8.8.3.2).
    """
    prefix = backend.tag[1:]
    found = []
    for is_weak, tag in _ETAGS.findall(tags.decode("latin-1")):
        digits = tag.removeprefix(prefix)
        if digits != tag and (weak or not is_weak) and _VERSION_DIGITS.fullmatch(digits):
            found.append(int(digits, 16))
    return found

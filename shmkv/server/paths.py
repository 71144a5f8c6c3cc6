"""Keys and query parameters out of a request's target, strictly: what is no UTF-8 is refused, never replaced."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from shmkv.server.problems import RefusedError

_NUMBER: Final = re.compile(r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?", re.ASCII)
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


Headers = dict[bytes, bytes]


def headers_of(pairs: list[tuple[bytes, bytes]]) -> Headers:
    """A request's headers by their names in lower case; of those that come more than once, one list.

    Raises:
        RefusedError: 400, there are two Host headers.
    """
    headers = dict(pairs)
    if len(headers) == len(pairs):
        return headers
    headers = {}
    for name, value in pairs:
        if name == b"host" and name in headers:
            raise RefusedError(400, "there are two Host headers")
        headers[name] = value if name not in headers else headers[name] + b", " + value
    return headers


def text_of(raw: bytes) -> str:
    """Percent-decoded text.

    Raises:
        RefusedError: 400, it is no percent-encoded UTF-8.

    >>> text_of(b"a%2Fb"), text_of("%C3%A4".encode())
    ('a/b', 'ä')
    """
    try:
        if b"%" not in raw:
            return raw.decode()
        if not _BAD_ESCAPE.search(raw):
            return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        pass
    raise RefusedError(400, f"{raw[:60]!r} is no percent-encoded UTF-8")


def query_of(scope: MutableMapping[str, Any], known: tuple[str, ...]) -> dict[str, str]:
    """The query's parameters.

    Raises:
        RefusedError: 422 for a parameter that is unknown or given twice; 400 for what is no UTF-8.
    """
    found: dict[str, str] = {}
    query: bytes = scope["query_string"]
    for part in query.split(b"&") if query else ():
        name_raw, _, value = part.replace(b"+", b" ").partition(b"=")
        name = text_of(name_raw)
        if name not in known:
            raise RefusedError(422, f"there is no parameter {name[:60]!r} here: {', '.join(known) or 'there is none'}")
        if name in found:
            raise RefusedError(422, f"the parameter {name!r} is given twice")
        found[name] = text_of(value)
    return found


def number_of(query: dict[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most`; RefusedError (422) if it is none."""
    text = query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 12 and 1 <= int(text) <= most:
        return int(text)
    raise RefusedError(422, f"{name} is a whole number from 1 to {most:,}, not {text[:60]!r}")


def seconds_of(query: dict[str, str]) -> float | None:
    """The ttl, if there is one; RefusedError (422) if it is no number."""
    text = query.get("ttl")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise RefusedError(422, f"ttl is a number of seconds greater than 0, not {text[:60]!r}")
    return float(text)

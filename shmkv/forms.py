"""Items outside of Python: as JSON, as MessagePack, as text and bytes for a shell or an HTTP body.

What: an item's *form* is an object that says all of it, so that reading it back stores an equal value of the same
      type, whatever the type; server, exports and imports speak of items in this one way:

          {"key": "text"}  or  {"key_base64": "..."}      a str key, or a bytes key
          "value": any JSON                               str, int, finite float, bool, None, list, dict of those
          "base64": "...", "content_type": "image/png"    bytes, and their content type if they have one
          "safe": "..."                                   any other value of the safe codec: its type byte and payload
          "codec": "pickle", "stored": "..."              what a codec made: "pickle", "json" or "object"
          "python": "(1, 2)"                              beside "safe": what it is, for people; nobody reads it back
          "ttl": 12.5                                     seconds left; not there: no expiry

      In MessagePack, which has bytes, "key" and "value" hold them as they are.
How:  all of it starts from a record (_core.Record), so that nothing is decoded that can be handed on as it is, and
      what is stored again is stored byte for byte.  A pickle is carried, and never loaded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from shmkv import _core

if TYPE_CHECKING:
    from shmkv._core import Record

Key = str | bytes
Item = tuple[Key, Any, float | None, str | int | None]
"""(key, value, ttl in seconds, content_type), as `Store._put_items` takes it; in place of a content type the number of
a type says that the value is the payload that a record of that type has."""

# enum skv_type of _core/layout.h
BYTES: Final = 1
STR: Final = 2
INT: Final = 3
TYPED: Final = 17
CODEC: Final = 32
PICKLE: Final = 33
JSON: Final = 34

OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
JSON_TYPE: Final = "application/json"

_CODEC_NAMES: Final = {CODEC: "object", PICKLE: "pickle"}  # what only Python reads
_CODECS: Final = {"object": CODEC, "pickle": PICKLE, "json": JSON}
_UNREADABLE: Final = (ValueError, TypeError, RecursionError)  # what decoding raises of a damaged or a later value
_MOST_PYTHON: Final = 1 << 16  # characters of a value as Python writes it
_TYPE_NAMES: Final = {
    1: "bytes", 2: "str", 3: "int", 4: "int", 5: "float", 6: "bool", 7: "bool", 8: "None", 9: "list", 10: "tuple",
    11: "dict", 12: "set", 13: "frozenset", 14: "datetime", 15: "date", 16: "timedelta", 17: "bytes", 32: "object",
    33: "pickle", 34: "json",
}  # fmt: skip
_MAX_INT_BITS: Final = 4096  # of an int in JSON: what any reader takes without a limit of its own


class FormError(ValueError):
    """Something is no item's form; the message says what is wrong with it."""


class NoFormError(Exception):
    """The value is neither bytes, nor text, nor has JSON that would give it back equal; the message names its type."""


def type_name(kind: int) -> str:
    """The Python type of a record's value.

    >>> type_name(17), type_name(10)
    ('bytes', 'tuple')
    """
    return _TYPE_NAMES.get(kind, f"type {kind}")


# ---- From a record -------------------------------------------------------------------------


def shown(record: Record) -> tuple[bytes, str]:
    """(body, content type) as a shell or an HTTP client gets a value: bytes and text as they are, the rest as JSON.

    Raises:
        NoFormError: a tuple, a set, a datetime, an infinite float, a pickle, or something that contains one.

    >>> shown((2, b"text", None, 1, 0)), shown((17, b"<p>", "text/html", 1, 0))
    ((b'text', 'text/plain; charset=utf-8'), (b'<p>', 'text/html'))
    """
    kind, payload = record[0], record[1]
    if kind in (BYTES, TYPED):
        return payload, record[2] or OCTETS
    if kind == STR:
        return payload, TEXT
    return json_of(record), JSON_TYPE


def json_of(record: Record) -> bytes:
    """The value as JSON.

    Raises:
        NoFormError: bytes, and what `shown` refuses.

    >>> json_of((2, b"text", None, 1, 0)), json_of((3, bytes([7, 0, 0, 0, 0, 0, 0, 0]), None, 1, 0))
    (b'"text"', b'7')
    """
    kind, payload = record[0], record[1]
    if kind == INT:
        return b"%d" % int.from_bytes(payload, "little", signed=True)
    if kind == JSON:
        return payload
    if kind in (BYTES, TYPED):
        raise NoFormError("the value is bytes, which JSON has not")
    value = _json_value(record)
    from json import dumps

    return dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def form_of(key: Key, record: Record, now_ms: int) -> dict[str, Any]:
    """The form of an item, with bytes in base64.

    Args:
        now_ms: `store._now_ms()`.

    >>> form_of("key", (3, bytes([7, 0, 0, 0, 0, 0, 0, 0]), None, 1, 5_000), 3_500)
    {'key': 'key', 'value': 7, 'ttl': 1.5}
    >>> form_of("none", (10, bytes([0]), None, 1, 0), 3_500)
    {'key': 'none', 'safe': 'CgA=', 'python': '()'}
    """
    form = exact_form_of(key, record, now_ms)
    if "safe" in form:
        form["python"] = python_of(record)
    elif record[0] == JSON:
        try:
            form["value"] = _json_value(record)
            del form["codec"], form["stored"]
        except NoFormError:
            pass
    return form


def exact_form_of(key: Key, record: Record, now_ms: int) -> dict[str, Any]:
    """The form from which the very bytes are stored again: without what is for people, JSON as its codec wrote it.

    >>> exact_form_of("none", (10, bytes([0]), None, 1, 0), 3_500)
    {'key': 'none', 'safe': 'CgA='}
    """
    form: dict[str, Any] = key_form(key)
    kind, payload, content_type = record[0], record[1], record[2]
    if kind in (BYTES, TYPED):
        form["base64"] = _base64(payload)
        if kind == TYPED:
            form["content_type"] = content_type or ""
    elif kind in _CODEC_NAMES or kind == JSON:
        form["codec"], form["stored"] = _CODEC_NAMES.get(kind, "json"), _base64(payload)
    else:
        try:
            form["value"] = _json_value(record)
        except NoFormError:
            form["safe"] = _base64(bytes([kind]) + payload)
    return _with_ttl(form, record, now_ms)


def python_of(record: Record) -> str:
    """The value as Python writes it, in one line, for people: the beginning of a long one.

    No code of whoever wrote it runs: of what only Python reads, it is said what it is.

    >>> python_of((10, bytes([1, 6]), None, 1, 0)), python_of((33, b"cos", None, 1, 0))
    ('(False,)', '<pickle of 3 bytes>')
    """
    kind, payload = record[0], record[1]
    if kind in _CODEC_NAMES:
        made_by = "pickle" if kind == PICKLE else "value of a codec object"
        return f"<{made_by} of {len(payload):,} bytes>"
    try:
        text = _repr(_loaded(payload) if kind == JSON else _core.decode_safe(_plain_kind(kind), payload))
    except _UNREADABLE as error:
        return f"<{type_name(kind)} of {len(payload):,} bytes: {error}>"
    return text if len(text) <= _MOST_PYTHON else f"{text[:_MOST_PYTHON]}…"


def _plain_kind(kind: int) -> int:
    """A record's payload is without its content type."""
    return BYTES if kind == TYPED else kind


def _repr(value: Any) -> str:
    """Python's own, but for an int of more digits than Python is willing to convert."""
    try:
        return repr(value)
    except ValueError:
        if type(value) is int:
            return hex(value)
        raise


def _loaded(payload: bytes) -> Any:
    from json import loads

    return loads(payload)


def packed_form_of(key: Key, record: Record, now_ms: int) -> dict[str, Any]:
    """The form of an item for MessagePack: keys and values that are bytes stay bytes."""
    if record[0] not in (BYTES, TYPED):
        return {**form_of("", record, now_ms), "key": key}
    form: dict[str, Any] = {"key": key, "value": record[1]}
    if record[2]:
        form["content_type"] = record[2]
    return _with_ttl(form, record, now_ms)


def key_form(key: Key) -> dict[str, Any]:
    """A key by itself.

    >>> key_form("k"), key_form(b"k")
    ({'key': 'k'}, {'key_base64': 'aw=='})
    """
    return {"key": key} if isinstance(key, str) else {"key_base64": _base64(key)}


def is_of_python_alone(record: Record) -> bool:
    """Only Python, with the codec that wrote it, makes a value of it."""
    return record[0] in _CODEC_NAMES


def seconds_left(record: Record, now_ms: int) -> float | None:
    """Seconds until a record's expiry; None: it has none."""
    return ttl_of(record[4], now_ms)


def ttl_of(expires_ms: int, now_ms: int) -> float | None:
    """Seconds until a time; None for 0, which is none."""
    return max(1, expires_ms - now_ms) / 1000 if expires_ms else None


def _with_ttl(form: dict[str, Any], record: Record, now_ms: int) -> dict[str, Any]:
    ttl = seconds_left(record, now_ms)
    if ttl is not None:
        form["ttl"] = ttl
    return form


def _json_value(record: Record) -> Any:
    """The value, if JSON gives it back equal and of the same type; else NoFormError."""
    kind, payload = record[0], record[1]
    if kind in _CODEC_NAMES:
        raise NoFormError(f"the value was stored by the codec {_CODEC_NAMES[kind]!r}, which only Python reads")
    try:
        value = _loaded(payload) if kind == JSON else _core.decode_safe(kind, payload)
    except _UNREADABLE as error:  # one item must not stop a walk
        raise NoFormError(f"the value cannot be read: {error}") from error
    if kind == JSON:
        return value
    odd = _not_json(value)
    if odd is not None:
        raise NoFormError(f"the value is or contains {odd}, which JSON has not")
    return value


def _not_json(value: Any) -> str | None:
    """None, or what in `value` has no JSON; the codec bounds its depth."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return None
    if kind is int:
        return None if value.bit_length() <= _MAX_INT_BITS else f"an int of {value.bit_length()} bits"
    if kind is float:
        return None if math.isfinite(value) else f"the float {value}"
    if kind is dict:
        strange = next((key for key in value if type(key) is not str), None)
        if strange is not None:
            return f"a dict with a key of type {type(strange).__name__}"
        value = value.values()
    elif kind is not list:
        return f"a {kind.__name__}"
    return next((odd for each in value if (odd := _not_json(each)) is not None), None)


def _base64(data: bytes) -> str:
    from base64 import b64encode

    return b64encode(data).decode()


# ---- To an item ----------------------------------------------------------------------------

_KEYS: Final = ("key", "key_base64")
_VALUES: Final = ("value", "base64", "safe", "codec")
_NAMES: Final = frozenset((*_KEYS, *_VALUES, "stored", "content_type", "python", "ttl"))


def item_of(form: object) -> Item:
    """The item that a form says.

    Raises:
        FormError: it is no form of an item.

    >>> item_of({"key": "k", "base64": "AAE=", "content_type": "a/b", "ttl": 5})
    ('k', b'\\x00\\x01', 5, 'a/b')
    """
    if not isinstance(form, dict):
        raise FormError(f"an item is an object, not {_said(form)}")
    unknown = next((name for name in form if name not in _NAMES), None)
    if unknown is not None:
        raise FormError(f"an item has no {_said(unknown)}: it has {', '.join(_KEYS + _VALUES)}, content_type, ttl")
    key = key_of({name: form[name] for name in _KEYS if name in form})
    value, kind = _value_of(form)
    content_type = form.get("content_type")
    if content_type is not None and not (isinstance(content_type, str) and isinstance(value, bytes) and kind is None):
        raise FormError("content_type is a string, and only bytes have one")
    return key, value, _ttl_of(form.get("ttl")), content_type if kind is None else kind


def record_of(item: Item, expires_ms: int) -> Record:
    """An item as a store would give it back, but for its version.

    >>> record_of(("k", (1,), None, None), 0)[0], record_of(("k", b"cos", None, 33), 0)
    (10, (33, b'cos', None, 0, 0))
    """
    _, value, _, content_type = item
    if isinstance(content_type, int):
        return content_type, value, None, 0, expires_ms
    kind, payload = _core.encode_safe(value)
    return TYPED if content_type is not None else kind, payload, content_type, 0, expires_ms


def is_code(item: Item) -> bool:
    """Is it what a pickle or a codec object made: bytes that run as code where somebody reads them?

    >>> is_code(("k", b"cos", None, 33)), is_code(("k", b"cos", None, None))
    (True, False)
    """
    return item[3] in _CODEC_NAMES


def key_of(form: object) -> Key:
    """The key that a form says: a string, bytes (in MessagePack), {"key": ...} or {"key_base64": ...}.

    >>> key_of("k"), key_of({"key_base64": "aw=="})
    ('k', b'k')
    """
    if isinstance(form, (str, bytes)):
        return form
    if not isinstance(form, dict) or len(form) != 1 or next(iter(form)) not in _KEYS:
        raise FormError('a key is a string, or one of {"key": ...} and {"key_base64": ...}')
    name, key = next(iter(form.items()))
    if name == "key_base64":
        return _unbase64(key, name)
    if not isinstance(key, (str, bytes)):
        raise FormError(f"a key is a string, not {_said(key)}")
    return key


def _value_of(form: dict[str, Any]) -> tuple[Any, int | None]:
    """(value, None), or (payload, the type that it is stored under)."""
    given = [name for name in _VALUES if name in form]
    if len(given) != 1:
        raise FormError(f"an item has exactly one of {', '.join(_VALUES)}, this one {', '.join(given) or 'none'}")
    name = given[0]
    if name == "value":
        return form[name], None
    if name == "codec":
        return _stored_of(form)
    data = _unbase64(form[name], name)
    return (data, None) if name == "base64" else _safe_of(data)


def _stored_of(form: dict[str, Any]) -> tuple[bytes, int]:
    codec = form["codec"]
    if not isinstance(codec, str) or codec not in _CODECS:
        raise FormError(f"codec is one of {', '.join(_CODECS)}, not {_said(codec)}")
    payload = _unbase64(form.get("stored"), "stored")
    if codec == "json":
        try:
            _loaded(payload)
        except (ValueError, RecursionError) as error:
            raise FormError(f"stored: {error}") from error
    return payload, _CODECS[codec]


def _safe_of(data: bytes) -> tuple[bytes, int]:
    """Decoded once: what this release cannot read is refused where it arrives."""
    if not data:
        raise FormError("safe holds nothing")
    if data[0] == TYPED or data[0] in _CODECS.values():
        raise FormError(f"safe: type {data[0]} has a form of its own")
    try:
        _core.decode_safe(data[0], data[1:])
    except (ValueError, TypeError) as error:
        raise FormError(f"safe: {error}") from error
    return data[1:], data[0]


def _ttl_of(ttl: object) -> float | None:
    if ttl is None or (isinstance(ttl, (int, float)) and not isinstance(ttl, bool)):
        return ttl
    raise FormError(f"ttl is a number of seconds, not {_said(ttl)}")


def _unbase64(text: object, name: str) -> bytes:
    from base64 import b64decode
    from binascii import Error

    try:
        if isinstance(text, str):
            return b64decode(text, validate=True)
    except (Error, ValueError):
        pass
    raise FormError(f"{name} is no base64")


def _said(thing: object) -> str:
    """A short repr for messages: never more than a line of what a stranger sent."""
    said = repr(thing)
    return said if len(said) <= 60 else f"{said[:57]}..."

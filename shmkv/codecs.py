"""Codecs: how values that are not bytes, text or numbers become bytes.

What: `resolve` turns the `codec` argument of a store into what the C extension calls.
How:  `bytes`, `str`, `int`, `float`, `bool` and `None` never come here: every handle stores them natively.
      "safe" is wholly in C (`_core/binding/encode.c`, `decode.c`); "pickle" and "json" are here; a codec object is the
      user's, and what it raises reaches the user as it is.

A codec gives back what it was given, equal and of the same type, or refuses it with `CodecError`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from shmkv.errors import CodecError

__all__ = ["Codec", "ResolvedCodec", "resolve"]

# Deep enough for any document, and far from the interpreter's recursion limit of 1,000 on both sides:
# what was stored from a shallow stack must also load from a deep one.
MAX_JSON_NESTING = 200


@runtime_checkable
class Codec(Protocol):
    """What a user's codec has: `encode` makes bytes of a value, `decode` the value of the bytes."""

    def encode(self, value: Any, /) -> bytes: ...
    def decode(self, data: bytes, /) -> Any: ...


class ResolvedCodec(NamedTuple):
    """The three arguments of `_core.Handle` that say how it encodes."""

    kind: str
    encode: Callable[[Any], bytes] | None = None
    decode: Callable[[bytes], Any] | None = None


def resolve(codec: str | Codec) -> ResolvedCodec:
    """Turn "safe", "json", "pickle" or an object with `encode` and `decode` into a `ResolvedCodec`.

    Raises:
        ValueError: a string that names no codec.
        TypeError: an object without `encode` or `decode`.

    >>> resolve("safe")
    ResolvedCodec(kind='safe', encode=None, decode=None)
    >>> resolve("msgpack")
    Traceback (most recent call last):
    ValueError: codec must be 'safe', 'json', 'pickle' or an object with encode and decode, not 'msgpack'
    """
    if isinstance(codec, str):
        if codec == "safe":
            return ResolvedCodec("safe")
        if codec == "json":
            return _json_codec()
        if codec == "pickle":
            return _pickle_codec()
    elif isinstance(codec, Codec) and not isinstance(codec, type):
        return ResolvedCodec("object", codec.encode, codec.decode)
    wanted = "codec must be 'safe', 'json', 'pickle' or an object with encode and decode"
    if isinstance(codec, str):
        raise ValueError(f"{wanted}, not {codec!r}")
    raise TypeError(f"{wanted}, not {type(codec).__name__}")


@functools.cache
def _pickle_codec() -> ResolvedCodec:
    import pickle

    def encode(value: Any) -> bytes:
        try:
            return pickle.dumps(value, protocol=5)
        except Exception as error:  # a value's own __reduce__ may raise anything
            raise CodecError(f"cannot pickle a value of type {type(value).__name__}: {error}") from error

    def decode(data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:  # a damaged or foreign pickle may raise anything
            raise CodecError(f"cannot unpickle this value: {error}") from error

    return ResolvedCodec("pickle", encode, decode)


@functools.cache
def _json_codec() -> ResolvedCodec:
    try:
        import msgspec
    except ImportError as error:
        raise ImportError("codec='json' needs the package msgspec: install it, or take codec='safe'") from error

    encode_value = msgspec.json.Encoder().encode
    decode_value = msgspec.json.Decoder().decode

    def encode(value: Any) -> bytes:
        _refuse_what_json_alters(value, MAX_JSON_NESTING)
        try:
            return encode_value(value)
        except ValueError as error:  # lone surrogates; an int of more digits than this process may print
            raise CodecError(f"codec='json' cannot take this value: {error}") from error

    def decode(data: bytes) -> Any:
        try:
            return decode_value(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise CodecError(f"this value is no JSON: {error}") from error

    return ResolvedCodec("json", encode, decode)


_JSON_ATOMS = frozenset({str, int, bool, type(None)})


def _refuse_what_json_alters(value: Any, levels: int) -> None:
    """Raise `CodecError` unless `value`, walked to its leaves, comes back from JSON equal and of its types."""
    kind = type(value)
    if kind in _JSON_ATOMS:
        return
    if kind is float:
        if not math.isfinite(value):
            raise CodecError(f"codec='json' would turn {value!r} into null; codec='safe' takes it")
    elif kind is list or kind is dict:
        if levels == 0:
            raise CodecError(
                f"codec='json' takes at most {MAX_JSON_NESTING} levels of nesting (does it contain itself?)"
            )
        if kind is list:
            for item in value:
                _refuse_what_json_alters(item, levels - 1)
            return
        for key, item in value.items():
            if type(key) is not str:
                raise CodecError(f"codec='json' would alter a key of type {type(key).__name__}; {_takers(key)} it")
            _refuse_what_json_alters(item, levels - 1)
    else:
        raise CodecError(f"codec='json' would alter a value of type {kind.__name__}; {_takers(value)} it")


_SAFE_TYPES = frozenset({
    "builtins.bytes", "builtins.float", "builtins.int", "builtins.bool", "builtins.NoneType", "builtins.str",
    "builtins.tuple", "builtins.set", "builtins.frozenset",
    "datetime.datetime", "datetime.date", "datetime.timedelta",
})  # fmt: skip


def _takers(value: object) -> str:
    kind = type(value)
    safe = f"{kind.__module__}.{kind.__qualname__}" in _SAFE_TYPES
    return "codec='safe' takes" if safe else "codec='pickle' or a codec object may take"

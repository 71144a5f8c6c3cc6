"""What stands on a command line, as keys and values."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli.main import UsageError

if TYPE_CHECKING:
    from shmkv.forms import Key

MAX_TTL_S: Final = 30 * 366 * 86_400
TYPES: Final = ("bytes", "str", "int", "json")
_INT: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)


# ---- Options that several commands have -------------------------------------------------------


def add_json_argument(parser: argparse.ArgumentParser, what: str = "print JSON") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def add_quoted_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quoted", action="store_true", help='keys are given as `shmkv keys` prints them: plain, "JSON" or base64:...'
    )


def add_ttl_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--ttl", type=seconds, metavar="SECONDS", help=what)


def seconds(text: str) -> float:
    """A time to live."""
    number = float(text)
    if not 0 < number <= MAX_TTL_S:
        raise argparse.ArgumentTypeError(f"more than 0 seconds and at most 30 years, not {text}")
    return number


def integer(text: str) -> int:
    """A whole number, in decimal digits."""
    if not _INT.fullmatch(text):
        raise argparse.ArgumentTypeError(f"a whole number, not {text!r}")
    return int(text)


# ---- Keys ----------------------------------------------------------------------------------------


def key_of(word: str, *, is_quoted: bool = False) -> Key:
    """A key is text; `is_quoted` ones may also be bytes.

    Raises:
        UsageError: it is no UTF-8, or not quoted as it should be.
    """
    _check_utf8(word, "a key")
    if not is_quoted:
        return word
    from shmkv.cli.text import unquoted

    try:
        return unquoted(word)
    except ValueError as error:
        raise UsageError(f"{word!r} is no quoted key: {error}") from error


def keys_of(words: list[str], *, is_quoted: bool = False) -> list[Key]:
    """Each key once, in the order in which they were named."""
    return list(dict.fromkeys(key_of(word, is_quoted=is_quoted) for word in words))


def _check_utf8(word: str, what: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is text in UTF-8, which {os.fsencode(word)!r} is not") from None


# ---- Values --------------------------------------------------------------------------------------


class Values:
    """Turns words into values; standard input can be read once.

    Args:
        kind: one of TYPES; None: a word is text, and becomes `str`; what standard input or a file holds is `bytes`,
            whatever it looks like, so that a value's type never depends on what a file happens to contain.
        raw: every word stands for itself.
    """

    def __init__(self, kind: str | None, *, raw: bool) -> None:
        self._kind = kind
        self._raw = raw
        self._stdin_is_read = False

    def value_of(self, word: str) -> Any:
        """`-` reads standard input and `@FILE` a file, unless words are taken raw.

        Raises:
            UsageError: it cannot be read, or is nothing of the kind.
        """
        data = self._bytes_of(word)
        if self._kind is None:
            return data if self._is_reference(word) else _text_or_bytes(data)
        return _typed(data, self._kind)

    def _is_reference(self, word: str) -> bool:
        return not self._raw and (word == "-" or word.startswith("@"))

    def _bytes_of(self, word: str) -> bytes:
        if not self._is_reference(word):
            return os.fsencode(word)
        if word == "-":
            if self._stdin_is_read:
                raise UsageError("standard input can be one value only: there are two -")
            self._stdin_is_read = True
            return sys.stdin.buffer.read()
        return _read_file(word[1:])


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror} (a value that begins with @ takes --raw)") from error


def _text_or_bytes(data: bytes) -> str | bytes:
    """A word of a command line: nearly always text, but nothing keeps a shell from handing over any other bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _typed(data: bytes, kind: str) -> Any:
    if kind == "bytes":
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the value is no UTF-8: {error}") from error
    if kind == "str":
        return text
    return _int_of(text) if kind == "int" else _json_of(text)


def _int_of(text: str) -> int:
    if not _INT.fullmatch(text.strip()):
        raise UsageError(f"{text[:60]!r} is no int")
    try:
        return int(text)
    except ValueError as error:  # more digits than Python converts
        raise UsageError(str(error)) from error


def _json_of(text: str) -> Any:
    from json import loads

    def refuse(constant: str) -> None:
        raise ValueError(f"JSON has no {constant}")

    try:
        return loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the value is no JSON: {error}") from error

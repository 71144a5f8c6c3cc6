"""Rows of CSV, JSON Lines and TSV: parsed in Python, stored in batches.

TSV for a store of this machine does not come by here: the engine parses and stores it without the GIL
(_core/import.c).  For a server its lines mean the same.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shmkv import forms
from shmkv.cli.target import BATCH
from shmkv.errors import ClosedStoreError, ReadOnlyStoreError

if TYPE_CHECKING:
    from shmkv.cli.source import Source
    from shmkv.cli.target import Target
    from shmkv.forms import Item

MAX_KEY: Final = 65_535  # bytes
_MISSING: Final = object()


@dataclass
class Rows:
    """Items to be stored, and what was wrong among them.  Line numbers count from 0 at the first line here."""

    lines: list[int] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    line_count: int = 0
    size: int = 0  # bytes of the source
    stop: bool = False  # reading ended at the last of `bad`

    def add(self, line: int, item: Item) -> None:
        self.lines.append(line)
        self.items.append(item)

    def refuse(self, line: int, reason: str, *, skip: bool) -> None:
        self.bad.append((line, reason))
        self.stop = not skip


@dataclass(frozen=True)
class Fields:
    """Which fields of a row are key and value; None = not named by the user."""

    key: str | None = None
    value: str | None = None
    ttl: float | None = None  # seconds, for rows that say nothing of their own

    @property
    def named(self) -> bool:
        return self.key is not None or self.value is not None

    @property
    def names(self) -> tuple[str, str]:
        return self.key or "key", self.value or "value"


class MalformedRowError(Exception):
    """This row is no pair; the message says why."""


# ---- CSV -----------------------------------------------------------------------------------


def read_csv(source: Source, fields: Fields, *, skip: bool, field_limit: int) -> Iterator[Rows]:
    """Rows of a CSV file (RFC 4180), read by one thread, as a quoted value may hold line ends.

    Two columns, key and value, without a header; or, if `fields` are named, a first row of names.
    """
    csv.field_size_limit(field_limit)
    # Bytes that are no UTF-8 become surrogates here, so that it is a row that is malformed, not the file.
    text = io.TextIOWrapper(io.BufferedReader(source), encoding="utf-8", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    columns = (0, 1)
    rows, first, size_before, width = Rows(), 0, 0, 2
    while True:
        line = reader.line_num
        try:
            row = next(reader)
            if fields.named and line == 0:
                columns, width = _find_columns(row, fields), len(row)
            elif row:
                rows.add(line - first, (*_pick(row, columns, width), fields.ttl, None))
        except StopIteration:
            break
        except csv.Error as error:
            rows.refuse(line - first, f"not CSV: {error}", skip=skip)
        except MalformedRowError as error:
            rows.refuse(line - first, str(error), skip=skip)
        if rows.stop or len(rows.lines) + len(rows.bad) >= BATCH:
            rows.line_count, rows.size = reader.line_num - first, source.bytes_read - size_before
            yield rows
            if rows.stop:
                return
            rows, first, size_before = Rows(), reader.line_num, source.bytes_read
    rows.line_count, rows.size = reader.line_num - first, source.bytes_read - size_before
    yield rows


def _find_columns(header: list[str], fields: Fields) -> tuple[int, int]:
    missing = [name for name in fields.names if name not in header]
    if missing:
        raise MalformedRowError(f"the first row names no field {missing[0]!r}, but {', '.join(map(repr, header))}")
    key, value = fields.names
    return header.index(key), header.index(value)


def _pick(row: list[str], columns: tuple[int, int], width: int) -> tuple[str, str]:
    if len(row) != width:
        raise MalformedRowError(f"{len(row)} columns instead of {width}")
    key, value = row[columns[0]], row[columns[1]]
    for name, text in (("key", key), ("value", value)):
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise MalformedRowError(f"the {name} is not valid UTF-8") from None
    return key, value


# ---- JSON Lines ----------------------------------------------------------------------------

# A line with one of these is an item's form that only forms.py reads: one that `shmkv export` wrote.
_OF_FORMS: Final = ("key_base64", "base64", "safe", "codec")


def parse_jsonl(data: bytes, fields: Fields, *, skip: bool) -> Rows:
    """Each line an item's form, `{"key": ..., "value": ..., "ttl"?: seconds}` with whatever else, or `[key, value]`."""
    rows = Rows(size=len(data))
    decode = _json_decoder()
    for number, line in enumerate(data.split(b"\n")[:-1]):
        if not line or line.isspace():
            continue
        try:
            rows.add(number, _item_of(decode(line), fields))
        except (ValueError, MalformedRowError) as error:
            rows.refuse(number, str(error), skip=skip)
            if rows.stop:
                break
    rows.line_count = data.count(b"\n")
    return rows


def _json_decoder() -> Callable[[bytes], object]:
    """A decoder that says in our own words what is wrong; the library's change from release to release."""
    from msgspec import DecodeError
    from msgspec.json import Decoder

    decode = Decoder().decode

    def decoded(line: bytes) -> object:
        try:
            return decode(line)
        except RecursionError:
            raise MalformedRowError("nested too deep") from None
        except (DecodeError, ValueError) as error:
            _decoded(line, "line")
            raise MalformedRowError(f"not JSON: {error}") from None

    return decoded


def _item_of(line: object, fields: Fields) -> Item:
    if isinstance(line, dict):
        if not fields.named and any(name in line for name in _OF_FORMS):
            key, value, ttl, content_type = forms.item_of(line)
            return key, value, _positive(fields.ttl if ttl is None else ttl), content_type
        return _item_of_object(line, fields)
    if isinstance(line, list) and len(line) == 2:
        return _text_key(line[0]), line[1], fields.ttl, None
    raise MalformedRowError("neither an object nor an array of key and value")


def _item_of_object(line: dict[str, Any], fields: Fields) -> Item:
    key, value = (line.get(name, _MISSING) for name in fields.names)
    for name, found in zip(fields.names, (key, value), strict=True):
        if found is _MISSING:
            raise MalformedRowError(f"the object has no field {name!r}")
    return _text_key(key), value, _positive(line.get("ttl", fields.ttl)), None


def _text_key(key: object) -> str:
    if not isinstance(key, str):
        raise MalformedRowError(f"the key is no string but {key!r:.80}")
    return key


def _positive(ttl: object) -> float | None:
    if ttl is None or (isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and ttl > 0):
        return ttl
    raise MalformedRowError(f"a ttl is a number of seconds greater than 0, not {ttl!r}")


# ---- TSV -----------------------------------------------------------------------------------

_ESCAPES: Final = {b"\\t": b"\t", b"\\n": b"\n", b"\\r": b"\r", b"\\\\": b"\\"}
_BACKSLASH: Final = re.compile(rb"\\.?", re.DOTALL)


def parse_tsv(data: bytes, fields: Fields, *, skip: bool) -> Rows:
    """Each line `key TAB value`, as _core/import.c reads it, which says the same of a malformed one."""
    rows = Rows(size=len(data), line_count=data.count(b"\n"))
    for number, line in enumerate(data.split(b"\n")[:-1]):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        try:
            rows.add(number, (*_pair_of(line), fields.ttl, None))
        except MalformedRowError as error:
            rows.refuse(number, str(error), skip=skip)
            if rows.stop:
                break
    return rows


def _pair_of(line: bytes) -> tuple[str, str]:
    key, tab, value = line.partition(b"\t")
    if not tab:
        raise MalformedRowError("no TAB between key and value")
    if b"\t" in value:
        raise MalformedRowError("more than one TAB (inside a value write \\t)")
    key, value = _without_escapes(key), _without_escapes(value)
    if len(key) > MAX_KEY:
        raise MalformedRowError(f"the key is longer than {MAX_KEY:,} bytes")
    return _decoded(key, "key"), _decoded(value, "value")


def _without_escapes(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    try:
        return _BACKSLASH.sub(lambda found: _ESCAPES[found[0]], text)
    except KeyError:
        raise MalformedRowError("a backslash that starts none of \\t \\n \\r \\\\") from None


def _decoded(text: bytes, what: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise MalformedRowError(f"the {what} is not valid UTF-8") from None


# ---- Storing -------------------------------------------------------------------------------


def store_rows(target: Target, rows: Rows, *, skip: bool) -> Iterator[int]:
    """Store the items, in order; yields how many after each step, so that an error loses no count.

    An item that the store refuses (a key or value too large, nested too deep) joins `rows.bad`.
    """
    for begin in range(0, len(rows.items), BATCH):
        batch = rows.items[begin : begin + BATCH]
        try:
            target.put(batch)
        except (ClosedStoreError, ReadOnlyStoreError):
            raise
        except (TypeError, ValueError, OverflowError):
            # Nothing of the batch is stored: one by one tells which item it is.
            for index in range(begin, begin + len(batch)):
                yield _store_one(target, rows, index, skip=skip)
                if rows.stop and rows.bad[-1][0] == rows.lines[index]:
                    return
        else:
            yield len(batch)


def _store_one(target: Target, rows: Rows, index: int, *, skip: bool) -> int:
    try:
        target.put(rows.items[index : index + 1])
    except (ClosedStoreError, ReadOnlyStoreError):
        raise
    except (TypeError, ValueError, OverflowError) as error:
        rows.refuse(rows.lines[index], str(error), skip=skip)
        return 0
    return 1

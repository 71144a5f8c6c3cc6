"""Rows of CSV and JSON Lines: parsed in Python, stored in batches with `put_many`.

TSV does not come by here: the engine parses and stores it without the GIL (_core/import.c).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from shmkv.errors import ClosedStoreError, ReadOnlyStoreError

if TYPE_CHECKING:
    from shmkv import Store
    from shmkv.cli.source import Source

BATCH: Final = 1_000  # rows to a put_many
_MISSING: Final = object()


@dataclass
class Rows:
    """Pairs to be stored, and what was wrong among them.  Line numbers count from 0 at the first line here."""

    lines: list[int] = field(default_factory=list)
    pairs: list[tuple[str, Any]] = field(default_factory=list)
    ttls: list[float | None] = field(default_factory=list)  # seconds
    bad: list[tuple[int, str]] = field(default_factory=list)
    line_count: int = 0
    size: int = 0  # bytes of the source
    stop: bool = False  # reading ended at the last of `bad`

    def add(self, line: int, key: str, value: Any, ttl: float | None) -> None:
        self.lines.append(line)
        self.pairs.append((key, value))
        self.ttls.append(ttl)

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
                rows.add(line - first, *_pick(row, columns, width), fields.ttl)
        except StopIteration:
            break
        except (csv.Error, MalformedRowError) as error:
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


def parse_jsonl(data: bytes, fields: Fields, *, skip: bool) -> Rows:
    """Each line `{"key": ..., "value": ..., "ttl"?: seconds}` or `[key, value]`; other fields are not looked at."""
    from msgspec.json import Decoder

    decode = Decoder().decode
    rows = Rows(size=len(data))
    for number, line in enumerate(data.split(b"\n")[:-1]):
        if not line or line.isspace():
            continue
        try:
            rows.add(number, *_pair_of(decode(line), fields))
        except (ValueError, MalformedRowError, RecursionError) as error:
            rows.refuse(number, str(error), skip=skip)
            if rows.stop:
                break
    rows.line_count = data.count(b"\n")
    return rows


def _pair_of(item: object, fields: Fields) -> tuple[str, Any, float | None]:
    ttl = fields.ttl
    if isinstance(item, dict):
        key, value = (item.get(name, _MISSING) for name in fields.names)
        for name, found in zip(fields.names, (key, value), strict=True):
            if found is _MISSING:
                raise MalformedRowError(f"the object has no field {name!r}")
        ttl = item.get("ttl", ttl)
        if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, (int, float)) or ttl <= 0):
            raise MalformedRowError(f"a ttl is a number of seconds greater than 0, not {ttl!r}")
    elif isinstance(item, list) and len(item) == 2:
        key, value = item
    else:
        raise MalformedRowError("neither an object nor an array of key and value")
    if not isinstance(key, str):
        raise MalformedRowError(f"the key is no string but {key!r:.80}")
    return key, value, ttl


# ---- Storing -------------------------------------------------------------------------------


def store_rows(store: Store, rows: Rows, *, skip: bool) -> Iterator[int]:
    """Store the pairs, in order; yields how many after each step, so that an error loses no count.

    A pair that the store refuses (a key or value too large, nested too deep) joins `rows.bad`.
    """
    for begin, end in _runs(rows.ttls):
        try:
            store.put_many(rows.pairs[begin:end], rows.ttls[begin])
        except (ClosedStoreError, ReadOnlyStoreError):
            raise
        except (TypeError, ValueError, OverflowError):
            # Nothing of the batch is stored: one by one tells which pair it is.
            for index in range(begin, end):
                yield _store_one(store, rows, index, skip=skip)
                if rows.stop and rows.bad[-1][0] == rows.lines[index]:
                    return
        else:
            yield end - begin


def _store_one(store: Store, rows: Rows, index: int, *, skip: bool) -> int:
    key, value = rows.pairs[index]
    try:
        store.put(key, value, rows.ttls[index])
    except (ClosedStoreError, ReadOnlyStoreError):
        raise
    except (TypeError, ValueError, OverflowError) as error:
        rows.refuse(rows.lines[index], str(error), skip=skip)
        return 0
    return 1


def _runs(ttls: list[float | None]) -> Iterator[tuple[int, int]]:
    """Spans of at most BATCH rows with one ttl.

    >>> list(_runs([None, None, 5.0]))
    [(0, 2), (2, 3)]
    """
    at = 0
    for _, group in groupby(ttls):
        run_end = at + sum(1 for _ in group)
        for begin in range(at, run_end, BATCH):
            yield begin, min(begin + BATCH, run_end)
        at = run_end

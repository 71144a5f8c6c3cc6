"""Where `shmkv import` reads from: a file or standard input, as chunks of whole lines.

Streaming, not mapped: a file that is cut off while it is mapped kills the reader with SIGBUS, and
copying costs a hundredth of what storing costs.  Never more than a few chunks are in memory, whatever
the file's size.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK: Final = 1 << 20  # bytes: some 40,000 lines, 20 ms of storing for one thread
_PEEK: Final = 1 << 16
_BOM: Final = b"\xef\xbb\xbf"
_SUFFIXES: Final = {".tsv": "tsv", ".tab": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS: Final = ("tsv", "csv", "jsonl")


class Chunk(NamedTuple):
    """Whole lines, the last one ended by LF even where the file's is not."""

    data: bytes
    too_long: bool = False  # one line beyond the limit; `data` is empty


class Source(io.RawIOBase):
    """A descriptor read from its start to its end, with a look ahead.

    It is a raw stream, so that `io.BufferedReader` and a text layer (csv) can stand on it.
    """

    def __init__(self, fd: int, name: str) -> None:
        super().__init__()
        self._fd = fd
        self.name = name
        found = os.fstat(fd)
        self.size = found.st_size if stat.S_ISREG(found.st_mode) else None  # bytes, None of a pipe
        self.bytes_read = 0
        self._head = self._read_head()

    @classmethod
    def open(cls, path: str) -> Source:
        """Open `path`, or take standard input for `-`.

        Raises:
            OSError: as `open` does.
        """
        if path == "-":
            return cls(os.dup(0), "standard input")
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        if not self.closed:
            os.close(self._fd)
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_some(len(view))
        view[: len(data)] = data
        return len(data)

    def read_some(self, most: int) -> bytes:
        """Between 1 and `most` bytes, whatever comes first; nothing at the end."""
        if self._head:
            data, self._head = self._head[:most], self._head[most:]
        else:
            data = os.read(self._fd, most)
        self.bytes_read += len(data)
        return data

    def give_back(self, data: bytes) -> None:
        """The end of what `read_some` gave comes again."""
        self._head = data + self._head
        self.bytes_read -= len(data)

    def first_line(self) -> bytes:
        """What is known of the first line that is not empty, without consuming it."""
        return self._head.lstrip(b"\r\n").partition(b"\n")[0]

    def _read_head(self) -> bytes:
        """The first line or 64 KiB of it, without a byte order mark."""
        head = b""
        while len(head) < _PEEK and b"\n" not in head.lstrip(b"\r\n"):
            more = os.read(self._fd, _PEEK)
            if not more:
                break
            head += more
        return head.removeprefix(_BOM)


def guess_format(source: Source) -> str | None:
    """The format by the name's suffix, else by the first line; None if neither tells."""
    by_name = _SUFFIXES.get(os.path.splitext(source.name)[1].lower())
    if by_name:
        return by_name
    line = source.first_line()
    if line.lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    if b"\t" in line:
        return "tsv"
    return "csv" if b"," in line else None


def read_chunks(source: Source, line_limit: int, size: int = CHUNK) -> Iterator[Chunk]:
    """All of `source` in order, cut behind line ends.

    A line longer than `line_limit` bytes comes as a chunk that says so, without its bytes: it is more
    than the store could take, and is not collected.
    """
    parts: list[bytes] = []  # of a line whose end has not come yet
    held = 0
    while data := source.read_some(size):
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Chunk(b"".join([*parts, data[:cut]]))
            parts, held, data = [], 0, data[cut:]
        if data:
            parts.append(data)
            held += len(data)
        if held > line_limit:
            yield Chunk(b"", too_long=True)
            _skip_line(source, size)
            parts, held = [], 0
    if parts:
        yield Chunk(b"".join([*parts, b"\n"]))


def _skip_line(source: Source, size: int) -> None:
    """Drop what is left of this line."""
    while data := source.read_some(size):
        end = data.find(b"\n") + 1
        if end:
            source.give_back(data[end:])
            return

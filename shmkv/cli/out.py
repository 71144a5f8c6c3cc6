"""Writing to standard output: bytes as they are, text as UTF-8 whatever the locale says."""

from __future__ import annotations

import sys
from typing import Any


def write(data: bytes) -> None:
    """Bytes, and nothing else."""
    if sys.stdout is not None:  # closed by who started us: he wants none of it
        sys.stdout.buffer.write(data)


def line(text: str) -> None:
    """A line of text."""
    write(text.encode() + b"\n")


def json_line(thing: Any) -> None:
    """A line of JSON."""
    from json import dumps

    line(dumps(thing, ensure_ascii=False, separators=(",", ":")))


def flush() -> None:
    """What was written is for whoever waits for it now."""
    if sys.stdout is not None:
        sys.stdout.flush()


def complain(command: str, sentence: str) -> None:
    """A sentence on standard error; the exit status says how grave it is."""
    print(f"shmkv {command}: {sentence}", file=sys.stderr)

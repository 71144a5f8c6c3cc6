"""Progress of a long command on standard error: rich where it is installed and a person looks on."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from shmkv.cli import render

if TYPE_CHECKING:
    from typing_extensions import Self

_TTY_EVERY_S: Final = 0.2
_LINE_EVERY_S: Final = 10.0


class Progress(Protocol):
    """Called with what has been done so far; a context manager that cleans the line up."""

    def __call__(self, done_bytes: int, pairs: int) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def progress(total: int | None, *, wanted: bool) -> Progress:
    """The best display that this terminal, and what is installed, allow; `total` bytes, None = unknown."""
    if not wanted:
        return Silent()
    if sys.stderr.isatty():
        try:
            return RichBar(total)
        except ImportError:
            return Lines(total, end="\r", every_s=_TTY_EVERY_S)
    return Lines(total, end="\n", every_s=_LINE_EVERY_S)


class Silent:
    """Shows nothing."""

    def __call__(self, done_bytes: int, pairs: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Lines(Silent):
    """A line of text now and then, or on a terminal one that is overwritten."""

    def __init__(self, total: int | None, end: str, every_s: float) -> None:
        self._total = total
        self._end = end
        self._every_s = every_s
        self._started = self._shown = time.monotonic()

    def __call__(self, done_bytes: int, pairs: int) -> None:
        now = time.monotonic()
        if now - self._shown >= self._every_s:
            self._shown = now
            line = render.format_progress(done_bytes, self._total, pairs, now - self._started)
            print(f"{line:<78}" if self._end == "\r" else line, end=self._end, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._end == "\r" and self._shown > self._started:
            print(" " * 78, end="\r", file=sys.stderr, flush=True)


class RichBar:
    """A bar with bytes, rate and time left."""

    def __init__(self, total: int | None) -> None:
        from rich import progress as widgets
        from rich.console import Console

        self._bar = widgets.Progress(
            widgets.BarColumn(),
            widgets.TaskProgressColumn(),
            widgets.DownloadColumn(),
            widgets.TransferSpeedColumn(),
            widgets.TextColumn("{task.fields[pairs]}"),
            widgets.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: Any = self._bar.add_task("import", total=total, pairs="")
        self._started = time.monotonic()

    def __call__(self, done_bytes: int, pairs: int) -> None:
        seconds = time.monotonic() - self._started
        self._bar.update(self._task, completed=done_bytes, pairs=render.format_rate(pairs, seconds, "pairs"))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

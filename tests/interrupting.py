"""An exception in the so manieth line of the package that runs: of a signal handler, a time limit, a tracer."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import shmkv

PACKAGE = str(Path(shmkv.__file__).parent)


class Interrupted(BaseException):
    """What a signal handler raises: a time limit, a second Ctrl-C."""


@contextmanager
def interrupted_at(moment: int) -> Iterator[Callable[[], int]]:
    """Raises in that line (not while something is destroyed); gives how many ran."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE) or _destroys(frame):
            return None
        if event == "line":
            lines += 1
            if lines == moment:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: lines
    finally:
        sys.settrace(before)


def _destroys(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_name != "__del__" and frame.f_code.co_filename != weakref.__file__:
        frame = frame.f_back
    return frame is not None

"""What a constructor that fails leaves behind: nothing, although its exception lives on.

How:  a traceback keeps the frames that the exception came through, and a frame its local variables: descriptors, locks
      and mapped memory would live as long as somebody holds the exception, as every `except` does.  What belongs to
      this package is taken out of them; other frames, a user's codec say, stay as they were.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["leaves_nothing"]

MOST_ERRORS = 100  # of a chain, which may hold itself


def leaves_nothing(constructor: Callable[P, R]) -> Callable[P, R]:
    """Where the constructor raises, nothing that it held outlives it."""

    @functools.wraps(constructor)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return constructor(*args, **kwargs)
        except BaseException as error:
            del args, kwargs  # the object that was to be made
            _empty_frames(error)
            raise

    return wrapped


def _empty_frames(error: BaseException) -> None:
    errors: list[BaseException | None] = [error]
    for each in errors:
        if each is None or len(errors) > MOST_ERRORS:
            continue
        errors += [each.__cause__, each.__context__]
        step = each.__traceback__
        while step is not None:
            if str(step.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == "shmkv":
                with contextlib.suppress(RuntimeError):  # it still runs: `wrapped`, and who called it
                    step.tb_frame.clear()
            step = step.tb_next

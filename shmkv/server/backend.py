"""What the server serves: a store behind two handles, so that no request makes the others of its worker wait.

How:  by the quick and the patient handle of `shmkv.aio`; what a store says of a wrong argument is a refusal here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shmkv import Store, aio
from shmkv.aio import QUICK_TIMEOUT_S
from shmkv.errors import ShmkvError
from shmkv.forms import FormError
from shmkv.server.problems import RefusedError

__all__ = ["QUICK_TIMEOUT_S", "Backend", "InThreads", "judged"]

Answer = TypeVar("Answer")


class InThreads(aio.InThreads):
    """Makes calls in threads of its own."""

    def made(self, call: Callable[..., Answer], *args: Any) -> Answer:
        return judged(call, *args)


class Backend(aio.QuickAndPatient, InThreads):
    """A store for the routes."""

    def __init__(self, quick: Store, patient: Store, *, waits: bool) -> None:
        super().__init__(quick, patient, waits=waits)
        self.tag = f'"{quick.uuid.hex}-'  # what every ETag of this store begins with
        self._tag = self.tag.encode() + b'%x"'

    def etag(self, version: int) -> bytes:
        """The entity tag of an item: it changes with every change, also after delete and re-create."""
        return self._tag % version


def judged(call: Callable[..., Answer], *args: Any) -> Answer:
    """The call; what a store says of a wrong argument is a refusal, as the argument is the client's.

    Raises:
        RefusedError: 422, in place of `ValueError` and `TypeError`.
    """
    try:
        return call(*args)
    except (ShmkvError, FormError):
        raise
    except (ValueError, TypeError) as error:
        raise RefusedError(422, str(error)) from error

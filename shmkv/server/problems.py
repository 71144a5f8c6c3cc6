"""Errors as answers: application/problem+json (RFC 9457), and which status an error of shmkv is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from shmkv import errors
from shmkv.forms import FormError, NoFormError

Headers = list[tuple[bytes, bytes]]
Reply = tuple[int, Headers, bytes]
"""(status, headers, body)."""

PROBLEM_TYPE: Final = "application/problem+json"

# The first class of an error's method resolution order that is listed counts.
_STATUS_OF: Final[dict[type[BaseException], int]] = {
    errors.DuplicateKeyError: 409,
    errors.MissingKeyError: 404,
    errors.StoreFullError: 507,
    errors.LockTimeoutError: 503,
    errors.TooManyProcessesError: 503,
    errors.ClosedStoreError: 503,
    errors.LimitError: 503,
    errors.ReadOnlyStoreError: 403,
    errors.ShmkvError: 500,
    NoFormError: 406,
    FormError: 422,
    OverflowError: 409,
}
_LISTED_AS_WRONG_INPUT: Final = (
    errors.KeyTooLargeError,
    errors.ValueTooLargeError,
    errors.BatchTooLargeError,
    errors.CodecError,
    errors.InvalidKeyError,
    errors.InvalidValueError,
    errors.InvalidTTLError,
)
_STATUS_OF.update(dict.fromkeys(_LISTED_AS_WRONG_INPUT, 422))
_TRY_AGAIN_SECONDS: Final = b"1"


class RefusedError(Exception):
    """A request that is answered with this status; the message is the detail."""

    def __init__(self, status: int, detail: str, headers: Headers | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or []


def problem(status: int, detail: str, error: str | None = None, headers: Headers | None = None) -> Reply:
    """A problem as it is sent."""
    told = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if error is not None:
        told["error"] = error
    extra = list(headers or [])
    if status == 503:
        extra.append((b"retry-after", _TRY_AGAIN_SECONDS))
    return status, [(b"content-type", PROBLEM_TYPE.encode()), *extra], msgspec.json.encode(told)


def problem_of(error: BaseException) -> Reply | None:
    """The answer to an error that a request caused; None for a mistake of the server itself."""
    if isinstance(error, RefusedError):
        return problem(error.status, str(error), headers=error.headers)
    for cls in type(error).__mro__:
        if cls in _STATUS_OF:
            name = type(error).__name__ if isinstance(error, errors.ShmkvError) else None
            return problem(_STATUS_OF[cls], _sentence(error), name)
    return None


def _sentence(error: BaseException) -> str:
    """The message; of a KeyError not its repr."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)

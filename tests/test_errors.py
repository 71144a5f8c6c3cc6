"""Errors: each is a `ShmkvError`, and what a user of dict, files or sockets would catch."""

from __future__ import annotations

import pickle

import pytest

import shmkv
from shmkv import errors

BASES: dict[str, type[Exception]] = {
    "StoreFullError": MemoryError,
    "StoreNotFoundError": FileNotFoundError,
    "StoreExistsError": FileExistsError,
    "CorruptStoreError": Exception,
    "LayoutVersionError": Exception,
    "ClosedStoreError": ValueError,
    "KeyTooLargeError": ValueError,
    "CodecError": TypeError,
    "LockTimeoutError": TimeoutError,
    "ReadOnlyStoreError": TypeError,
    "ValueTooLargeError": ValueError,
    "BatchTooLargeError": ValueError,
    "ForeignStoreError": PermissionError,
    "StaleStoreError": Exception,
    "TooManyProcessesError": Exception,
    "ForkedError": RuntimeError,
    "LogFailedError": OSError,
    "StoreLockedError": Exception,
    "SurroundingsError": OSError,
    "NoSharedMemoryError": OSError,
    "NoProcError": OSError,
    "LimitError": OSError,
    "ClockError": OSError,
    "DuplicateKeyError": ValueError,
    "MissingKeyError": KeyError,
    "InvalidKeyError": ValueError,
    "InvalidValueError": ValueError,
    "InvalidTTLError": ValueError,
}


@pytest.mark.parametrize("name", BASES)
def test_root_and_base(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.ShmkvError)
    assert issubclass(error, BASES[name])
    assert getattr(shmkv, name) is error
    assert error.__doc__
    assert error.__module__ == "shmkv.errors"


@pytest.mark.parametrize("name", BASES)
def test_it_says_its_sentence_and_pickles(name: str) -> None:
    error = getattr(errors, name)("a sentence that helps")
    # A KeyError shows its key, as it would be written.
    assert str(error) == ("'a sentence that helps'" if name == "MissingKeyError" else "a sentence that helps")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)


def test_root() -> None:
    assert issubclass(errors.ShmkvError, Exception)
    assert not issubclass(errors.ShmkvError, (OSError, ValueError, KeyError))


def test_all_is_all() -> None:
    assert set(errors.__all__) == {*BASES, "ShmkvError"}

"""shmkv: a key-value store in shared memory, for every thread and process of a machine.

>>> from shmkv import Store
>>> with Store() as store:
...     store["answer"] = 42
...     store["answer"]
42

Names are imported when they are first used (PEP 562): `shmkv --help` does not wait for the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmkv._core import Versioned
    from shmkv.datastore import DataStore
    from shmkv.durable import RepairReport, Snapshot
    from shmkv.errors import (
        BatchTooLargeError,
        ClockError,
        ClosedStoreError,
        CodecError,
        CorruptStoreError,
        DuplicateKeyError,
        ForeignStoreError,
        ForkedError,
        InvalidKeyError,
        InvalidTTLError,
        InvalidValueError,
        KeyTooLargeError,
        LayoutVersionError,
        LimitError,
        LockTimeoutError,
        LogFailedError,
        MissingKeyError,
        NoProcError,
        NoSharedMemoryError,
        ReadOnlyStoreError,
        ShmkvError,
        StaleStoreError,
        StoreExistsError,
        StoreFullError,
        StoreLockedError,
        StoreNotFoundError,
        SurroundingsError,
        TooManyProcessesError,
        ValueTooLargeError,
    )
    from shmkv.keyvalue import KeyValueStore
    from shmkv.reports import CheckReport, CompactReport, ProcessInfo, StoreInfo, StoreStats
    from shmkv.store import Store, list_stores

__version__ = "0.1.0"

_HOME = {
    "DataStore": "shmkv.datastore",
    "KeyValueStore": "shmkv.keyvalue",
    "RepairReport": "shmkv.durable",
    "Snapshot": "shmkv.durable",
    "Versioned": "shmkv._core",
    **dict.fromkeys(("Store", "list_stores"), "shmkv.store"),
    **dict.fromkeys(("CheckReport", "CompactReport", "ProcessInfo", "StoreInfo", "StoreStats"), "shmkv.reports"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_HOME.get(name, "shmkv.errors")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "BatchTooLargeError",
    "CheckReport",
    "ClockError",
    "ClosedStoreError",
    "CodecError",
    "CompactReport",
    "CorruptStoreError",
    "DataStore",
    "DuplicateKeyError",
    "ForeignStoreError",
    "ForkedError",
    "InvalidKeyError",
    "InvalidTTLError",
    "InvalidValueError",
    "KeyTooLargeError",
    "KeyValueStore",
    "LayoutVersionError",
    "LimitError",
    "LockTimeoutError",
    "LogFailedError",
    "MissingKeyError",
    "NoProcError",
    "NoSharedMemoryError",
    "ProcessInfo",
    "ReadOnlyStoreError",
    "RepairReport",
    "ShmkvError",
    "Snapshot",
    "StaleStoreError",
    "Store",
    "StoreExistsError",
    "StoreFullError",
    "StoreInfo",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreStats",
    "SurroundingsError",
    "TooManyProcessesError",
    "ValueTooLargeError",
    "Versioned",
    "__version__",
    "list_stores",
]

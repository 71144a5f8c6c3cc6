"""shmkv: a key-value store in shared memory, for every thread and process of a machine.

>>> from shmkv import Store
>>> with Store() as store:
...     store["answer"] = 42
...     store["answer"]
42
"""

from shmkv._core import Versioned
from shmkv.errors import (
    BatchTooLargeError,
    ClosedStoreError,
    CodecError,
    CorruptStoreError,
    ForeignStoreError,
    ForkedError,
    KeyTooLargeError,
    LayoutVersionError,
    LockTimeoutError,
    LogFailedError,
    ReadOnlyStoreError,
    ShmkvError,
    StaleStoreError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    TooManyProcessesError,
    ValueTooLargeError,
)
from shmkv.store import (
    CheckReport,
    CompactReport,
    ProcessInfo,
    Store,
    StoreInfo,
    StoreStats,
    list_stores,
)

__version__ = "0.1.0"

__all__ = [
    "BatchTooLargeError",
    "CheckReport",
    "ClosedStoreError",
    "CodecError",
    "CompactReport",
    "CorruptStoreError",
    "ForeignStoreError",
    "ForkedError",
    "KeyTooLargeError",
    "LayoutVersionError",
    "LockTimeoutError",
    "LogFailedError",
    "ProcessInfo",
    "ReadOnlyStoreError",
    "ShmkvError",
    "StaleStoreError",
    "Store",
    "StoreExistsError",
    "StoreFullError",
    "StoreInfo",
    "StoreLockedError",
    "StoreNotFoundError",
    "StoreStats",
    "TooManyProcessesError",
    "ValueTooLargeError",
    "Versioned",
    "__version__",
    "list_stores",
]

"""Every error of shmkv, and when it is raised.

All derive from `ShmkvError`, and from the built-in class that a user of `dict`, files or sockets would
catch.  A missing key is a plain `KeyError`, as in a dict; a wrong argument is a plain `TypeError` or
`ValueError`.  Unless an entry says otherwise, nothing has changed in the store when an error is raised.
"""

__all__ = [
    "BatchTooLargeError",
    "ClockError",
    "ClosedStoreError",
    "CodecError",
    "CorruptStoreError",
    "DuplicateKeyError",
    "ForeignStoreError",
    "ForkedError",
    "InvalidKeyError",
    "InvalidTTLError",
    "InvalidValueError",
    "KeyTooLargeError",
    "LayoutVersionError",
    "LimitError",
    "LockTimeoutError",
    "LogFailedError",
    "MissingKeyError",
    "NoProcError",
    "NoSharedMemoryError",
    "ReadOnlyStoreError",
    "ShmkvError",
    "StaleStoreError",
    "StoreExistsError",
    "StoreFullError",
    "StoreLockedError",
    "StoreNotFoundError",
    "SurroundingsError",
    "TooManyProcessesError",
    "ValueTooLargeError",
]


class ShmkvError(Exception):
    """The root of all errors of this package; also raised itself where no class below fits."""


# ---- Finding a store -----------------------------------------------------------------------


class StoreNotFoundError(ShmkvError, FileNotFoundError):
    """No store has this name: raised by `attach`, `unlink`, `unlink_name`, and when a pickled handle is
    loaded after its store was removed or replaced by another one of the same name."""


class StoreExistsError(ShmkvError, FileExistsError):
    """`Store.create` met an existing store, or `Store(name, size=...)` one with another size, mode or
    on_full than was asked for, and `existing` did not say what to do with it."""


class ForeignStoreError(ShmkvError, PermissionError):
    """The region belongs to another user, and either `foreign=True` was not said, or its mode gives
    nobody else access."""


class CorruptStoreError(ShmkvError):
    """What lies under the name is no store, or a damaged one: its magic, checksum, sizes or offsets do
    not fit.  Raised when attaching; by an operation only if the region was damaged meanwhile."""


class LayoutVersionError(ShmkvError):
    """The store was laid out by another version of shmkv, or on a machine of another byte order."""


class StaleStoreError(ShmkvError):
    """The region is left over from before a reboot, or belongs to another time namespace, so that its
    clocks mean nothing here."""


class StoreLockedError(ShmkvError):
    """A store that only one process may use at a time is in use by another one."""


class TooManyProcessesError(ShmkvError):
    """All 1,023 places of the store's process table are taken by live processes."""


# ---- What the machine lacks ----------------------------------------------------------------


class SurroundingsError(ShmkvError, OSError):
    """The machine, or the limits of this process, lack something that every store needs; `errno` tells what the system
    said.  Raised as one of the following, which say what to do."""


class NoSharedMemoryError(SurroundingsError):
    """/dev/shm is missing, read-only, forbidden to this user, or on a file system that cannot hold stores."""


class NoProcError(SurroundingsError):
    """/proc is not mounted, so that no process can be told from another one."""


class LimitError(SurroundingsError):
    """A limit of this process is reached: descriptors (ulimit -n), address space (-v), length of files (-f), threads
    and processes of its user (-u)."""


class ClockError(SurroundingsError):
    """The clock that expiry goes by (CLOCK_BOOTTIME) is another one in this process than in the others, because a
    library fakes it."""


# ---- Using a store -------------------------------------------------------------------------


class ClosedStoreError(ShmkvError, ValueError):
    """The handle was used after `close()`."""


class ReadOnlyStoreError(ShmkvError, TypeError):
    """A write through a handle that was opened with `readonly=True`."""


class StoreFullError(ShmkvError, MemoryError):
    """No room: the store's size is used up, /dev/shm is full, or the memory limit of the container is
    nearly reached.  The message says which, and how to get more."""


class KeyTooLargeError(ShmkvError, ValueError):
    """A key to be stored is longer than 65,535 bytes as UTF-8."""


class ValueTooLargeError(ShmkvError, ValueError):
    """A value takes more than a quarter of the store's size, or more than 4 GiB - 1."""


class BatchTooLargeError(ShmkvError, ValueError):
    """A batch has more than 65,536 keys, or takes more than a quarter of the store's size."""


class CodecError(ShmkvError, TypeError):
    """The handle's codec cannot give this value back equal (on writing), or cannot read what another
    handle stored with another codec (on reading; the item stays where it is)."""


class LockTimeoutError(ShmkvError, TimeoutError):
    """A process that is alive, but perhaps stopped, held a lock for longer than `lock_timeout`; the
    message names it.  A dead process never causes this.  Also: `change` was overtaken for as long."""


class ForkedError(ShmkvError, RuntimeError):
    """This process was forked while it used the store, and could not register as a process of its own."""


class LogFailedError(ShmkvError, OSError):
    """A write or a sync of a log failed, so that nobody knows what is on the disk.  Everything that had been
    acknowledged before is there; close, see to the disk, and open it again."""


# ---- DataStore -----------------------------------------------------------------------------


class DuplicateKeyError(ShmkvError, ValueError):
    """`DataStore.create` met a key that exists; nothing was changed."""


class MissingKeyError(ShmkvError, KeyError):
    """`DataStore.read` or `delete`: there is no such key, or its time is over."""


class InvalidKeyError(ShmkvError, ValueError):
    """A `DataStore` key is no str of 1 to 32 characters."""


class InvalidValueError(ShmkvError, ValueError):
    """A `DataStore` value is no JSON object, or takes more than 16,384 bytes."""


class InvalidTTLError(ShmkvError, ValueError):
    """A `DataStore` ttl is no whole number of seconds, 1 or more."""

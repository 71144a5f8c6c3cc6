"""The same runs with a fault in what is run, by name: the judge has to find each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from shmkv import datastore as datastore_module
from shmkv import durable as durable_module

from . import datastore, durable


def acknowledge_too_early() -> None:
    datastore_module.DataStore._wait = lambda self, position: None  # type: ignore[method-assign]


def remove_before_the_sync() -> None:
    """What was moved out of a segment is not on stable storage when that is removed."""
    remove = datastore_module.DataStore._remove

    def faulty(self: Any, number: int) -> None:
        self._make_stable = lambda position: None
        try:
            remove(self, number)
        finally:
            del self._make_stable

    datastore_module.DataStore._remove = faulty  # type: ignore[method-assign]


def write_settings_in_place() -> None:
    def faulty(folder: int, name: str, content: bytes) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
        os.write(fd, content)
        os.close(fd)

    durable_module.replace_file = faulty


FAULTS: dict[str, tuple[Callable[[], None], Callable[..., None]]] = {
    "acknowledge_too_early": (acknowledge_too_early, datastore.main),
    "remove_before_the_sync": (remove_before_the_sync, datastore.main),
    "write_settings_in_place": (write_settings_in_place, durable.main),
}

if __name__ == "__main__":
    make, run = FAULTS[os.environ["SHMKV_TEST_FAULT"]]
    make()
    run(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))

"""A limit on the memory of a control group."""

from __future__ import annotations

import subprocess
import sys

from campaigns.campaign import Figures
from helpers import MIB, python_environment, temporary_store

from .groups import memory_group
from .scene import Scene

# ---- Of a control group --------------------------------------------------------------------------

HOG = """
import os, sys
from shmkv import Store
store, me, hog = Store.attach(sys.argv[1]), sys.argv[2], []
try:
    for number in range(100_000):
        store.put_many({f"{me} {number} {at}": b"x" * 400 for at in range(500)})
        store[f"acknowledged by {me}"] = number
        hog.append(os.urandom(1 << 20))
except MemoryError:
    pass
while True:
    hog.append(os.urandom(1 << 20))
"""


def out_of_memory(kills: int) -> Figures:
    """The kernel kills what is over the limit of its group, in the middle of batches; who is not in it goes on."""
    with temporary_store(size=512 * MIB) as store, memory_group(64 * MIB) as join:
        batches = 0
        for me in range(kills):
            command = ["sh", "-c", f'{join} && exec "$@"', "sh", sys.executable, "-c", HOG, store.name, str(me)]
            done = subprocess.run(command, env=python_environment(), timeout=240, check=False, capture_output=True)
            assert done.returncode in (-9, 137), f"it was not killed: {done.returncode} {done.stderr.decode()}"
            last = store.get(f"acknowledged by {me}", -1)
            for number in range(last + 2):
                whole = len(store.get_many([f"{me} {number} {at}" for at in range(500)]))
                assert whole == 500 or (whole == 0 and number > last), f"{whole} of a batch of 500"
            batches += last + 1
            store["beside"] = me
            store.clear()
    return {"kills": kills, "calls": batches}


def group_missing() -> str:
    with memory_group(64 * MIB) as join:
        return "" if join else "no memory control group can be made here (it needs root and a writable file system)"


SCENES = [
    Scene(
        "a memory control group at its limit",
        "the kernel kills in the middle of batches: those are whole, and others go on",
        lambda scratch, calls: out_of_memory(2 if calls < 100 else 8),
        (group_missing,),
    ),
]

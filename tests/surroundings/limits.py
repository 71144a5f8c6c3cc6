"""Limits of a process: descriptors, address space, sizes of files; and of a control group's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from campaigns.campaign import Figures
from helpers import MIB, python_environment, run_python, temporary_store

from .groups import memory_group
from .scene import Scene, judge, stage

# ---- Of a process --------------------------------------------------------------------------------

# Each try lowers a limit to what is in use now and a little more, and does one thing.
LIMITED = """
import os, resource, shutil, sys
from surroundings.scene import call, start
from shmkv import ShmkvError, Store
import shmkv.durable, shmkv.keeper, shmkv.reports

name, folder, kind, steps = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
limit = getattr(resource, "RLIMIT_" + kind)
first = Store.attach(name)
call(first, 0)

def in_use():
    if kind == "NOFILE":
        return len(os.listdir("/proc/self/fd")) - 1
    if kind == "AS":
        return int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
    return 0

def attach():
    with Store.attach(name) as store:
        call(store, 1)

def read():
    with Store.attach(name, readonly=True) as store:
        store.get("page 1"), len(store), store.stats()

def private():
    with Store(size="8MiB") as store:
        start(store)
        for number in range(200):
            store[f"large {number}"] = b"x" * 30_000
        call(store, 2)

def large():
    first["large"] = b"x" * 2_000_000
    assert first.pop("large") == b"x" * 2_000_000

def durable():
    path = f"{folder}/{os.urandom(4).hex()}"
    try:
        with Store.open(path, size="4MiB") as store:
            for number in range(100):
                store[f"logged {number}"] = b"x" * 10_000
    finally:
        shutil.rmtree(path, ignore_errors=True)

tries = refused = 0
faults = []
UNIT = {"NOFILE": 1, "AS": 2 << 20, "FSIZE": 1 << 17}[kind]
soft, hard = resource.getrlimit(limit)
again = lambda: call(first, 3)
for what in (attach, read, private, large, durable, again):
    what()  # all modules are loaded while they can be
    for step in range(steps):
        resource.setrlimit(limit, (in_use() + step * UNIT, hard))
        try:
            what()
        except (ShmkvError, MemoryError) as error:  # Python's own MemoryError has no words
            refused += 1
            said = str(error)
        except Exception as error:
            said = ""
            faults.append(f"{getattr(what, '__name__', 'call')} with {step} more: {error!r}")
        finally:
            resource.setrlimit(limit, (soft, hard))
        tries += 1
assert not faults, "\\n".join([f"{len(faults)} errors that are not shmkv's", *faults[:12]])
attach(), read(), private(), large(), durable(), call(first, 4)
assert first.check().ok
print(tries, refused)
"""


def limited(kind: str, steps: int, scratch: Path) -> Figures:
    """Whatever is refused is refused by an error of its own, and all is well once the limit is gone."""
    with stage() as store:
        out = run_python(LIMITED, store.name, str(scratch), kind, str(steps), timeout=240)
        tries, refused = map(int, out.split())
        assert refused, "the limit was never met"
        judge(store, 5, more=tries)
    return {"calls": tries, "calls_refused_at_a_limit": refused}


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
    *(
        Scene(
            f"ulimit of {words}",
            "what is refused has an error of its own, and changes nothing",
            lambda scratch, calls, kind=kind, most=most: limited(kind, min(calls, most), scratch),
        )
        for kind, words, most in (
            ("NOFILE", "open files (-n)", 14),
            ("AS", "address space (-v)", 24),
            ("FSIZE", "file sizes (-f)", 40),
        )
    ),
    Scene(
        "a memory control group at its limit",
        "the kernel kills in the middle of batches: those are whole, and others go on",
        lambda scratch, calls: out_of_memory(2 if calls < 100 else 8),
        (group_missing,),
    ),
]

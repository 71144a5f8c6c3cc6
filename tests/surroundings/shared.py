"""A /dev/shm that is small, read-only, forbidden, missing, or no tmpfs."""

from __future__ import annotations

from pathlib import Path

from campaigns.campaign import Figures
from helpers import run_python

from .namespaces import in_mounts
from .scene import Scene, allowed

# Every way to a store is tried: it works, or says what is wrong with /dev/shm.
WAYS = """
import os, sys
from shmkv import ShmkvError, Store, list_stores
from surroundings.scene import call, start

def private():
    with Store(size="8MiB") as store:
        start(store)
        for number in range(200):
            store[f"large {number}"] = b"x" * 30_000
        call(store, 1)
        assert store.check().ok

def named():
    with Store("of-a-scene", size="8MiB") as store:
        start(store)
        call(store, 1)
        store.unlink()

def cache():
    with Store.create("of-a-scene", size="64MiB", on_full="evict") as store:
        for number in range(1_000):
            store[f"page {number}"] = b"x" * 30_000
        assert store.get("page 999"), "the newest page is not there"
        store.unlink()

def durable():
    with Store.open(sys.argv[1] + "/store", size="4MiB") as store:
        store["k"] = 1

def attach():
    try:
        Store.attach("nowhere-at-all")
    except FileNotFoundError as error:
        if not isinstance(error, ShmkvError):
            raise

def listed():
    list_stores()

faults, said, worked = [], set(), 0
for way in (private, named, cache, durable, attach, listed):
    try:
        way()
        worked += 1
    except ShmkvError as error:
        said.add(str(error))
        if "/dev/shm" not in str(error):
            faults.append(f"{way.__name__}: it does not name /dev/shm: {error!r}")
    except Exception as error:
        faults.append(f"{way.__name__}: {error!r}")
assert not faults, "\\n".join(faults)
print(worked, len(said))
print(*said, sep="\\n")
"""

# name -> (how it is made, ways that work: at least, at most)
KINDS = {
    "small": ("mount -t tmpfs -o size=4m tmpfs /dev/shm", 4, 5),
    "of 64 MiB, as containers have": ("mount -t tmpfs -o size=64m tmpfs /dev/shm", 6, 6),
    "that may not run programs": ("mount -t tmpfs -o noexec,nosuid,nodev tmpfs /dev/shm", 6, 6),
    "read-only": ("mount -t tmpfs -o ro tmpfs /dev/shm", 1, 2),
    "that is a ramfs": ("mount -t ramfs ramfs /dev/shm", 1, 2),
    "that is missing": (
        "mkdir {scratch}/dev && mount -t tmpfs tmpfs {scratch}/dev && touch {scratch}/dev/null {scratch}/dev/urandom "
        "&& mount --bind /dev/null {scratch}/dev/null && mount --bind /dev/urandom {scratch}/dev/urandom "
        "&& mount --move {scratch}/dev /dev",
        0,
        2,
    ),
}


def tried(name: str, scratch: Path) -> Figures:
    how, least, most = KINDS[name]
    out = run_python(WAYS, str(scratch), before=in_mounts(how.format(scratch=scratch)), timeout=120)
    worked = int(out.split()[0])
    assert least <= worked <= most, out
    return {"calls": 6}


SCENES = [
    Scene(
        f"a /dev/shm {name}",
        "what works works; whatever is refused names /dev/shm and says what to do",
        lambda scratch, calls, name=name: tried(name, scratch),
        (allowed(*in_mounts("mount -t tmpfs tmpfs /mnt")),),
    )
    for name in KINDS
]

"""Disks that are full, read-only, or fail, below durable stores; and a /dev/shm that is small, read-only or missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from campaigns.campaign import Figures
from helpers import python_environment, run_python

from shmkv import Store

from .namespaces import in_mounts
from .scene import Scene, allowed, command, root

# ---- A disk that fills up ------------------------------------------------------------------------

# Writes until it is refused, makes room, goes on; what was acknowledged is there, also when the memory is lost.
FULL = """
import os, sys
from pathlib import Path
from shmkv import ShmkvError, Store, StoreFullError
from helpers import lose_memory

folder, sync, kept = Path(sys.argv[1]), sys.argv[2], {}
path = folder / "store"

def write(store, prefix, most):
    for number in range(most):
        key = f"{prefix} {number}"
        try:
            store[key] = b"%d " % number * 3_000
        except ShmkvError as error:
            return error
        kept[key] = b"%d " % number * 3_000
    return None

filler = folder / "filler"
store = Store.open(path, sync=sync, size="64MiB")
assert write(store, "before", 20) is None
with filler.open("wb") as file:
    try:
        while True:
            file.write(b"f" * 65_536)
    except OSError:
        pass
error = write(store, "into", 10_000)
assert isinstance(error, ShmkvError), "the disk was never full"
said = f"{type(error).__name__}: {error}"
assert dict(store) == kept, "memory and what was acknowledged differ"
filler.unlink()
try:
    refused = write(store, "after", 20)
except ShmkvError as error:
    refused = error
try:
    store.close()
except ShmkvError as error:
    assert refused is not None, error
for lost in (False, True):
    if lost:
        try:
            lose_memory(path)
        except ShmkvError:
            pass
    with Store.open(path) as store:
        missing = [key for key, value in kept.items() if store.get(key) != value]
        assert not missing, f"{len(missing)} of {len(kept)} that were acknowledged are gone, such as {missing[0]}"
        assert store.check().ok
        store["again"] = 1
        kept["again"] = 1
print(said)
print(len(kept), refused)
"""


def full(prefix: tuple[str, ...], folder: Path, sync: str) -> Figures:
    folder.mkdir()
    out = run_python(FULL, str(folder), sync, before=prefix, timeout=240)
    said, kept = out.splitlines()[:2]
    assert "StoreFullError" in said or "LogFailedError" in said, said
    return {"calls": int(kept.split()[0])}


def on_tmpfs(scratch: Path) -> tuple[str, ...]:
    return in_mounts(f"mount -t tmpfs -o size=8m tmpfs {scratch}/disk")


def on_ext4(scratch: Path) -> tuple[str, ...]:
    image = scratch / "image"
    subprocess.run(["truncate", "--size", "16M", str(image)], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    return in_mounts(f"mount -o loop {image} {scratch}/disk")


# ---- A disk that fails ---------------------------------------------------------------------------

# Says what was acknowledged and synced, until the disk fails.
FAILING = """
import os, sys
from shmkv import LogFailedError, ShmkvError, Store

store = Store.open(sys.argv[1] + "/store", sync="always", size="64MiB")
try:
    for number in range(20_000):
        store[str(number)] = os.urandom(20_000)
        print(number, flush=True)
except ShmkvError as error:
    print(type(error).__name__, error, flush=True)
    try:
        store["later"] = 1
        print("went on")
    except ShmkvError as again:
        print("refused", type(again).__name__)
os._exit(0)
"""

AFTERWARDS = """
import sys
from shmkv import CorruptStoreError, Store
path = sys.argv[1] + "/store"
try:
    store = Store.open(path)
except CorruptStoreError:
    store = Store.open(path, repair=True)
print("kept", sum(str(number) in store for number in range(int(sys.argv[2]))), store.check().ok)
store.close()
"""

# The second program finds neither the memory nor the cache of the first.
REPAIRED = """
"$1" -c "$2" "$4" | tee "$5"
umount "$4"
mount -o remount,size=200m "$6" && mount -t tmpfs tmpfs /dev/shm && mount -o loop "$6/image" "$4" || exit 9
"$1" -c "$3" "$4" "$(grep -c '^[0-9]' "$5")"
status=$?
umount "$4"
exit $status
"""


def failing(scratch: Path) -> Figures:
    """A loop device whose file has no room on its own disk: the kernel takes what is written, and the sync fails."""
    below, disk = scratch / "below", scratch / "disk"
    below.mkdir()
    disk.mkdir()
    prefix = in_mounts(
        "mount -t tmpfs tmpfs /dev/shm",
        f"mount -t tmpfs -o size=12m tmpfs {below}",
        f"truncate --size 64M {below}/image",
        f"mkfs.ext4 -q -m 0 -E nodiscard {below}/image",
        f"mount -o loop {below}/image {disk}",
    )
    words = [sys.executable, FAILING, AFTERWARDS, str(disk), str(scratch / "said"), str(below)]
    done = subprocess.run(
        [*prefix, "sh", "-c", REPAIRED, "sh", *words],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    acknowledged = [line for line in done.stdout.splitlines() if line.isdigit()]
    said = [line for line in done.stdout.splitlines() if not line.isdigit()]
    assert [line.split()[0] for line in said[:2]] == ["LogFailedError", "refused"], said
    assert said[2] == f"kept {len(acknowledged)} True", f"{len(acknowledged)} were acknowledged, and then: {said}"
    return {"calls": len(acknowledged)}


# ---- A disk that is read-only --------------------------------------------------------------------

READ_ONLY = """
import sys
from shmkv import ShmkvError, Store
for path in (sys.argv[1] + "/made", sys.argv[1] + "/new"):
    try:
        Store.open(path, size="4MiB")
        raise SystemExit(f"{path} was opened")
    except (ShmkvError, OSError) as error:
        print(type(error).__name__, isinstance(error, ShmkvError), error)
"""


def read_only(scratch: Path) -> Figures:
    disk = scratch / "disk"
    disk.mkdir()
    with Store.open(disk / "made", size="4MiB") as store:
        store["kept"] = 1
    before = {path.name: path.read_bytes() for path in (disk / "made").iterdir()}
    prefix = in_mounts(f"mount --bind {disk} {disk}", f"mount -o remount,bind,ro {disk}")
    told = run_python(READ_ONLY, str(disk), before=prefix).splitlines()
    assert len(told) == 2
    for line in told:
        assert "ead-only" in line, f"it does not say that the disk is read-only: {line}"
        assert str(disk) in line, f"it does not say which disk: {line}"
    assert {path.name: path.read_bytes() for path in (disk / "made").iterdir()} == before
    with Store.open(disk / "made") as store:
        assert dict(store) == {"kept": 1}
    return {"calls": 2}


EXT4 = (root, command("mkfs.ext4", "e2fsprogs"), allowed(*in_mounts("true")))

SCENES = [
    *(
        Scene(
            f"a full disk ({words}) below a durable store, sync={sync!r}",
            "what is refused says so; what was acknowledged is there, in memory and on the disk",
            lambda scratch, calls, prefix=prefix, sync=sync: full(prefix(scratch), scratch / "disk", sync),
            needs,
        )
        for words, prefix, needs in (
            ("tmpfs", on_tmpfs, (allowed(*in_mounts("mount -t tmpfs tmpfs /mnt")),)),
            ("ext4", on_ext4, EXT4),
        )
        for sync in ("always", "interval")
    ),
    Scene("a disk that fails below a durable store", "nothing is acknowledged any more", lambda s, c: failing(s), EXT4),
    Scene("a read-only disk", "it is called so, and the files stay as they are", lambda s, c: read_only(s), EXT4),
]

"""Walls around a process: namespaces of pids, users and mounts, another root, other rights."""

from __future__ import annotations

import signal
from pathlib import Path

from campaigns.campaign import Figures
from helpers import MIB, finish, run_python, start_python, store_names

from shmkv import Store

from .scene import Scene, allowed, call, command, judge, root, stage

UNSHARE = (command("unshare", "util-linux"),)
FORKING = ("sh", "-c", '"$@"; exit $?', "sh")  # so that the program is not process 1 of its namespace


def in_mounts(*commands: str) -> tuple[str, ...]:
    """A prefix that runs something with mounts of its own, after these commands."""
    return ("unshare", "--mount", "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh")


# ---- Guests of one store -------------------------------------------------------------------------

GUEST = """
import os, signal, sys
from surroundings.scene import call
from shmkv import Store, list_stores

store = Store.attach(sys.argv[1])
for number in range(int(sys.argv[2])):
    call(store, number)
private = Store(size="1MiB")
private["here"] = 1
if os.fork() == 0:
    Store(size="1MiB").close()  # removes private stores of the dead
    os._exit(0)
os.wait()
assert private.name in {info.name for info in list_stores()}, "taken from a living process, inside"
print(private.name, flush=True)
if sys.argv[3] == "stay":
    input()
    private["here"] += 1
elif sys.argv[3] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def guest(prefix: tuple[str, ...], calls: int) -> Figures:
    """Inside, one that ends, one that dies and one that stays while others come and go outside."""
    with stage() as store:
        run_python(GUEST, store.name, str(calls), "end", before=prefix, timeout=120)
        _, _, status = finish(start_python(GUEST, store.name, str(calls), "die", before=prefix), 120)
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL)
        staying = start_python(GUEST, store.name, str(calls), "stay", before=prefix)
        assert staying.stdout
        name = staying.stdout.readline().strip()
        Store(size="1MiB").close()  # removes private stores of the dead
        assert name in store_names(), "taken from a living process, outside"
        call(store, 0)
        _, err, status = finish(staying, 60)
        assert status in (0, 1), err  # 1: its input ended
        judge(store, 3 * calls + 1)
    return {"calls": 3 * calls, "processes": 3}


GUESTS = {
    "a pid namespace with its own /proc": ("unshare", "--pid", "--fork", "--mount-proc", *FORKING),
    "a user namespace": ("unshare", "--user", "--map-root-user"),
    "namespaces of users, pids and mounts": ("unshare", "-r", "--pid", "--fork", "--mount-proc", *FORKING),
    "namespaces of IPC, names and network": ("unshare", "--ipc", "--uts", "--net"),
    "a pid namespace that sees the outer /proc": ("unshare", "--pid", "--fork", *FORKING),
}


# ---- Containers ----------------------------------------------------------------------------------

TENANT = """
import sys
from shmkv import Store, StoreLockedError, StoreNotFoundError

try:
    Store.attach(sys.argv[1])
    raise SystemExit("the store of the other container is here")
except StoreNotFoundError:
    pass
with Store(sys.argv[1], size="2MiB") as mine:
    mine["inside"] = 1
    assert dict(mine) == {"inside": 1} and mine.check().ok
try:
    with Store.open(sys.argv[2], size="4MiB") as volume:
        volume.incr("opened")
        print("opened", volume["from outside"])
except StoreLockedError as error:
    print("locked", error)
"""


def containers(scratch: Path, calls: int) -> Figures:
    """Each has its /dev/shm; both have one volume, whose store is refused while it is open over there."""
    prefix = in_mounts("mount -t tmpfs -o size=64m tmpfs /dev/shm")
    volume = str(scratch / "volume")
    with stage() as store:
        with Store.open(volume, size=4 * MIB) as outside:
            outside["from outside"] = 1
            assert run_python(TENANT, store.name, volume, before=prefix).startswith("locked ")
            outside["from outside"] = 2
        assert run_python(TENANT, store.name, volume, before=prefix) == "opened 2\n"
        with Store.open(volume) as outside:
            assert dict(outside) == {"from outside": 2, "opened": 1}
        call(store, 1)
        judge(store, 1)
    return {"calls": 1, "processes": 2}


# ---- Without /proc -------------------------------------------------------------------------------

UNKNOWN = """
import sys
from shmkv import NoProcError, Store

name, volume = sys.argv[1:]
ways = (lambda: Store.attach(name), lambda: Store.create(name + "-new"), lambda: Store(name))
for way in (*ways, Store, lambda: Store.open(volume, size="4MiB")):
    try:
        way()
        raise SystemExit("a store was opened by a process that nobody can know")
    except NoProcError as error:
        assert "/proc" in str(error) and "mount" in str(error), error
"""


def without_proc(scratch: Path) -> Figures:
    with stage() as store:
        run_python(UNKNOWN, store.name, str(scratch / "volume"), before=in_mounts("mount -t tmpfs tmpfs /proc"))
        call(store, 1)
        judge(store, 1)
    return {"calls": 5}


# ---- Rights that are given up --------------------------------------------------------------------

DROPS = """
import os, signal, sys
import shmkv.reports  # while it can be found
from surroundings.scene import call
from shmkv import ForkedError, Store

def forked_dies():
    child = os.fork()
    if child == 0:
        try:
            call(store, 0)
        except ForkedError as error:  # says what to do instead, and is allowed to
            os._exit(7 if "fork first" in str(error) else 8)
        os.kill(os.getpid(), signal.SIGKILL)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended in (-signal.SIGKILL, 7), f"a child ended with {ended}"
    return ended != 7

store, calls = Store.attach(sys.argv[1]), int(sys.argv[2])
made = forked_dies()
FIRST
made += forked_dies()
for number in range(calls):
    call(store, number)
made += forked_dies()
assert store.check().ok
store.close()
print(int(made))
"""

DROPPED = {
    "setuid after the store was opened": "os.setgid(65534); os.setuid(65534)",
    "setuid after the first call": "call(store, 0); os.setgid(65534); os.setuid(65534)",
    "chroot into an empty folder": "call(store, 0); os.mkdir(sys.argv[3]); os.chroot(sys.argv[3])",
    "chroot and setuid": "os.mkdir(sys.argv[3]); os.chroot(sys.argv[3]); os.setgid(65534); os.setuid(65534)",
}


def dropped(first: str, scratch: Path, calls: int) -> Figures:
    """A process goes on with what it opened when it had the right; its children too, or they are told why not."""
    with stage() as store:
        made = run_python(DROPS.replace("FIRST", first), store.name, str(calls), str(scratch / "empty"))
        judge(store, calls + int(made) + first.count("call("))
    return {"calls": calls}


# ---- Another user --------------------------------------------------------------------------------

STRANGER = """
import os, sys
from surroundings.scene import call
from shmkv import ForeignStoreError, Store, StoreNotFoundError

Store(size="1MiB").close()  # all modules are loaded while they can be read
os.setgid(65534); os.setuid(65534)

try:
    Store.attach(sys.argv[1])
    raise SystemExit("another user's store was taken without a word")
except (ForeignStoreError, StoreNotFoundError):
    pass
store = Store.attach(sys.argv[1], foreign=True)
for number in range(int(sys.argv[2])):
    call(store, number)
"""


def stranger(calls: int) -> Figures:
    """Another user, whom the store's mode lets in."""
    with stage(mode=0o666) as store:
        run_python(STRANGER, store.name, str(calls))
        judge(store, calls)
    return {"calls": calls}


SCENES = [
    *(
        Scene(
            name,
            "every call counts on both sides of the wall; a private store is its maker's for as long as that one lives",
            lambda scratch, calls, prefix=prefix: guest(prefix, calls),
            (allowed(*prefix),),
        )
        for name, prefix in GUESTS.items()
    ),
    Scene(
        "two containers, one volume",
        "a durable store is open in one of them at a time",
        containers,
        (allowed(*in_mounts("mount -t tmpfs tmpfs /dev/shm")),),
    ),
    Scene(
        "no /proc",
        "a store is refused, by an error that says so",
        lambda scratch, calls: without_proc(scratch),
        (allowed(*in_mounts("mount -t tmpfs tmpfs /proc")),),
    ),
    *(
        Scene(
            name,
            "calls go on, also past a process that died",
            lambda scratch, calls, first=first: dropped(first, scratch, calls),
            (root,),
        )
        for name, first in DROPPED.items()
    ),
    Scene("another user, let in by the mode", "every call is counted", lambda scratch, calls: stranger(calls), (root,)),
]

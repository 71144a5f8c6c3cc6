"""Clocks that differ: a time namespace, and a time of day that is set while programs run."""

from __future__ import annotations

import shutil
from pathlib import Path

from building import PROGRAMS, WARNINGS, compile_c
from campaigns.campaign import Figures
from helpers import finish, run_python, start_python, store_names

from shmkv import StaleStoreError, Store

from .scene import Scene, allowed, call, command, judge, stage

HOURS = 3_600
APART = ("unshare", "--time", "--boottime", "1000000", "--monotonic", "1000000")

# ---- A time namespace ----------------------------------------------------------------------------

INSIDE = """
import sys, time
from shmkv import StaleStoreError, Store

for use in (Store.attach, Store, lambda name: Store.create(name, exist_ok=True)):
    try:
        use(sys.argv[1])
        raise SystemExit("a store with other clocks was taken")
    except StaleStoreError:
        pass
with Store(sys.argv[2], size="2MiB") as mine, Store(size="1MiB") as private:
    mine.put("short", 1, ttl=0.2)
    mine.put("long", 1, ttl=3_600)
    assert 3_590 < mine.ttl("long") <= 3_600
    time.sleep(0.3)
    assert dict(mine) == {"long": 1} and mine.check().ok
    with Store.open(sys.argv[3]) as volume:
        assert 3_500 < volume.ttl("kept") <= 3_600, volume.ttl("kept")
        volume.put("inside", 1, ttl=3_600)
    print(private.name, flush=True)
    input()
    private["k"] = 1
"""


def time_namespace(scratch: Path) -> Figures:
    """Neither side takes what the other's clocks made; what is on a disk goes by the time of day, and is shared."""
    volume = scratch / "volume"
    with stage() as store:
        with Store.open(volume, size="4MiB") as outside:
            outside.put("kept", 1, ttl=HOURS)
        name = store.name + "-inside"
        inside = start_python(INSIDE, store.name, name, str(volume), before=APART)
        try:
            assert inside.stdout
            private = inside.stdout.readline().strip()
            assert private, finish(inside)
            for use in (Store.attach, Store):
                try:
                    use(name)
                    raise AssertionError("a store with other clocks was taken")
                except StaleStoreError:
                    pass
            Store(size="1MiB").close()
            assert private in store_names(), "a private store was taken from a living process"
            assert inside.stdin
            inside.stdin.write("\n")
            _, err, status = finish(inside)
            assert status == 0, err
        finally:
            Store.unlink_name(name)
        with Store.open(volume) as outside:
            assert set(outside) == {"kept", "inside"}
            assert HOURS - 100 < outside.ttl("inside") <= HOURS
        call(store, 1)
        judge(store, 1)
    return {"calls": 1, "processes": 1}


# ---- The time of day is set ----------------------------------------------------------------------

JUMPING = """
import ctypes, sys, time
from shmkv import Store

jump = ctypes.CDLL(sys.argv[2]).jump
jump.argtypes = [ctypes.c_longlong]
with Store.open(sys.argv[1], size="4MiB", sync="interval") as store:
    store.put("hour", 1, ttl=3_600)
    store.put("day", 1, ttl=86_400)
    store["always"] = 1
    for hours in (2, -2, 24 * 365 * 30, -24 * 365 * 40, 0):
        jump(hours * 3_600)
        assert set(store) == {"hour", "day", "always"}, f"clock moved by {hours} hours: {set(store)}"
        assert 3_500 < store.ttl("hour") <= 3_600, f"clock moved by {hours} hours: {store.ttl('hour')}"
        store.incr(f"after {hours}")
        store.put("short", 1, ttl=0.05)
        time.sleep(0.06)
        assert "short" not in store
        assert store.delete(f"after {hours}")
        store.sync()
    assert store.check().ok
"""

LATER = """
import ctypes, sys
jump = ctypes.CDLL(sys.argv[2]).jump
jump.argtypes = [ctypes.c_longlong]
jump(int(sys.argv[3]))
from shmkv import Store
with Store.open(sys.argv[1]) as store:
    print(*sorted(store))
    assert store.check().ok
"""


def time_of_day(scratch: Path) -> Figures:
    """It is set forwards and backwards, under a store that is open and between two lives of it."""
    library = scratch / "jump.so"
    compile_c([*WARNINGS, "-O2", "-shared", "-fPIC", str(PROGRAMS / "jump.c"), "-o", str(library)])
    preload = ("env", f"LD_PRELOAD={library}")
    path = scratch / "store"
    run_python(JUMPING, str(path), str(library), before=preload)
    for moved, expected in ((-2 * HOURS, "always day hour"), (2 * HOURS, "always day"), (48 * HOURS, "always")):
        copy = scratch / f"copy {moved}"
        shutil.copytree(path, copy)
        said = run_python(LATER, str(copy), str(library), str(moved), before=preload)
        assert said.strip() == expected, f"clock moved by {moved} s: {said}"
    return {"calls": 30, "processes": 4}


SCENES = [
    Scene(
        "a time namespace",
        "a store with other clocks is refused; a durable one goes by the time of day",
        lambda scratch, calls: time_namespace(scratch),
        (allowed(*APART),),
    ),
    Scene(
        "a time of day that is set",
        "while a store is in memory nothing changes; when it is filled from disk, what has expired is left out",
        lambda scratch, calls: time_of_day(scratch),
        (command("cc", "gcc"),),
    ),
]

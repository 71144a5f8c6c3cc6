"""Who calls: threads, an event loop, greenlets, tracers, signal handlers; and a first start of many."""

from __future__ import annotations

from pathlib import Path

from campaigns.campaign import Figures
from helpers import finish, run_python, start_python, unique_name

from shmkv import Store

from .scene import Scene, judge, module, stage

PRELUDE = """
import asyncio, gc, os, random, signal, sys, threading, time
from surroundings.scene import call
from shmkv import Store
store, calls = Store.attach(sys.argv[1]), int(sys.argv[2])
"""

# name -> (program, calls that it makes for each that it is asked for)
PROGRAMS = {
    "64 threads": (
        """
sys.setswitchinterval(1e-5)
faults = []
def work(me):
    try:
        for number in range(calls):
            call(store, number)
    except BaseException as fault:
        faults.append(fault)
threads = [threading.Thread(target=work, args=(me,)) for me in range(64)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not faults, faults[0]
""",
        64,
    ),
    "asyncio with threads of its own": (
        """
async def main():
    for start in range(0, 4 * calls, 40):
        tasks = [asyncio.to_thread(call, store, number) for number in range(start, min(start + 40, 4 * calls))]
        await asyncio.gather(*tasks)
asyncio.run(main())
""",
        4,
    ),
    "a tracer and a profiler": (
        """
seen = []
sys.settrace(lambda frame, event, argument: seen.append(event) or sys.gettrace())
sys.setprofile(lambda frame, event, argument: gc.get_count())
for number in range(calls):
    call(store, number)
sys.settrace(None), sys.setprofile(None)
assert "call" in seen
""",
        1,
    ),
    "a garbage collector that is always at work": (
        """
class Knot:
    def __init__(self):
        self.me, self.store = self, Store.attach(sys.argv[1])
    def __del__(self):
        self.store.get("batch 1")
        self.store.close()
gc.set_threshold(1)
for number in range(calls):
    Knot()
    call(store, number)
""",
        1,
    ),
}

INTERRUPTED = """
class Now(Exception):
    pass

def raise_now(number, frame):
    raise Now

rng = random.Random(calls)
signal.signal(signal.SIGALRM, raise_now)
answered = interrupted = 0
while answered < calls or interrupted < calls // 2:
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
        call(store, answered)
        answered += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Now:
        interrupted += 1
    if interrupted % 10 == 9:
        store.delete_many([key for key in store if str(key).startswith("of ")])
signal.setitimer(signal.ITIMER_REAL, 0)
store.delete_many([key for key in store if str(key).startswith("of ")])
print(answered, interrupted)
"""

GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, os, sys
from surroundings.scene import BATCH, unseal
from helpers import sealed
from shmkv import Store

store, calls = Store.attach(sys.argv[1]), int(sys.argv[2])

def work(me):
    for number in range(calls):
        store.incr("calls")
        key = f"{me}"
        store[key] = sealed(key, number, 500)
        gevent.sleep(0)
        assert unseal(key, store[key]) == number
        store.put_many(dict.fromkeys(BATCH, me))
        assert len(set(store.get_many(BATCH).values())) == 1
    del store[key]

jobs = [gevent.spawn(work, me) for me in range(8)]
gevent.joinall(jobs, raise_error=True)
"""


def program(name: str, calls: int) -> Figures:
    code, each = PROGRAMS[name]
    with stage() as store:
        run_python(PRELUDE + code, store.name, str(calls), timeout=240)
        judge(store, each * calls)
    return {"calls": each * calls}


def interrupted(calls: int) -> Figures:
    """An exception comes out of whatever call the signal meets: that one is done or not, and nothing else changes."""
    with stage() as store:
        out = run_python(PRELUDE + INTERRUPTED, store.name, str(calls), timeout=240)
        answered, cut = map(int, out.split())
        judge(store, answered, more=cut)
    return {"calls": answered, "calls_interrupted": cut}


def greenlets(calls: int) -> Figures:
    with stage() as store:
        run_python(GREENLETS, store.name, str(calls), timeout=240)
        judge(store, 8 * calls)
    return {"calls": 8 * calls}


# ---- A first start -------------------------------------------------------------------------------

WORKERS = 8
FIRST = """
import sys
from surroundings.scene import call
from shmkv import Store

sys.stdout.write("here\\n"); sys.stdout.flush()
sys.stdin.readline()  # all begin at once
if sys.argv[1] == "durable":
    store = Store.open(sys.argv[2], size="16MiB")
else:
    store = Store(sys.argv[2], size="16MiB", on_full=sys.argv[1])
made = store.add("made by", 1)
for number in range(int(sys.argv[3])):
    store.incr("calls")
    store[f"{made} {number}"] = number
print(int(made), store.uuid.hex)
store.close()
"""


def first_start(kind: str, scratch: Path, calls: int) -> Figures:
    """Eight processes open at once what is not there yet: one store, one that was first."""
    where = str(scratch / "store") if kind == "durable" else unique_name()
    workers = [start_python(FIRST, kind, where, str(calls)) for _ in range(WORKERS)]
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        assert worker.stdin
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = []
    for worker in workers:
        out, err, status = finish(worker, 120)
        assert status == 0, err
        said.append(out.split())
    assert sorted(made for made, _ in said) == ["0"] * (WORKERS - 1) + ["1"]
    with Store.open(where) if kind == "durable" else Store.attach(where) as store:
        assert store["calls"] == WORKERS * calls
        assert len(store) == 2 + 2 * calls
        assert store.check().ok
        if kind != "durable":
            assert len({uuid for _, uuid in said}) == 1, "there were two stores"
            store.unlink()
    return {"calls": WORKERS * calls, "processes": WORKERS}


SCENES = [
    *(
        Scene(name, "every call is counted", lambda scratch, calls, name=name: program(name, calls))
        for name in PROGRAMS
    ),
    Scene(
        "a signal handler that raises",
        "the call that it meets is done or not, and nothing else changes",
        lambda scratch, calls: interrupted(calls),
    ),
    Scene(
        "gevent, with everything patched",
        "every call is counted",
        lambda scratch, calls: greenlets(calls),
        (module("gevent"),),
    ),
    *(
        Scene(
            f"a first start by {WORKERS} processes at once, {words}",
            "all have one store, and one of them was first",
            lambda scratch, calls, kind=kind: first_start(kind, scratch, calls),
        )
        for kind, words in (("error", "a store"), ("evict", "a cache"), ("durable", "a durable store"))
    ),
]

"""How a process ends while threads of it are inside calls, and what is left of it."""

from __future__ import annotations

import signal

from campaigns.campaign import Figures
from helpers import finish, start_python, store_names

from shmkv import Store

from .scene import Scene, judge, stage

# Threads that never leave the store, a private store beside it, a handle that its owner closes when it is collected.
PROGRAM = """
import atexit, os, resource, signal, sys, threading, time
from surroundings.scene import call
from shmkv import Store

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
store, private = Store(sys.argv[1]), Store(size="1MiB")

def work(number=0):
    while True:
        number += 1
        call(store, number)
        private.incr("calls")

class Kept:
    def __init__(self, name):
        self.me, self.store = self, Store.attach(name)
    def __del__(self):
        self.store.put("last", 1)
        self.store.close()

def main():
    for _ in range(4):
        threading.Thread(target=work, daemon=True).start()
    goal = store["calls"] + int(sys.argv[2])
    while store["calls"] < goal:
        time.sleep(0.005)
    print(private.name, flush=True)
    END

main()
"""

# name -> (how it ends, its status)
ENDS = {
    "the end of the program": ("return", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise RuntimeError('the end')", 1),
    "os._exit": ("os._exit(4)", 4),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
    "SIGINT": ("os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    "abort": ("os.abort()", -signal.SIGABRT),
    "exec of another program": ("os.execv('/bin/true', ['true'])", 0),
    "functions of atexit that use the store": (
        "atexit.register(lambda: (store.put('last', 1), private.incr('calls'), store.close(), private.close()))",
        0,
    ),
    "handles that are closed by __del__, in a cycle and in sys": (
        "sys.kept = Kept(sys.argv[1]); Kept(sys.argv[1]); return",
        0,
    ),
    "sys.exit in a thread that forked": ("os.fork() or sys.exit(0); os.wait(); sys.exit(5)", 5),
}
KEEPS_ITS_PRIVATE_STORE = (
    "os._exit",
    "SIGTERM",
    "SIGKILL",
    "abort",
    "exec of another program",
)  # until the next Store()


def end(name: str, calls: int) -> Figures:
    """So many calls, and the end."""
    how, expected = ENDS[name]
    with stage() as store:
        out, err, status = finish(start_python(PROGRAM.replace("END", how), store.name, str(calls)), 120)
        assert status == expected, f"ended with {status}: {err}"
        assert "Fatal" not in err or name == "abort", err
        if name in KEEPS_ITS_PRIVATE_STORE:
            Store(size="1MiB").close()
        assert out.strip() not in store_names(), "its private store is left"
        assert "last" in store or "atexit" not in name
        judge(store, calls, more=store["calls"])
    return {"calls": calls, "processes": 1}


SCENES = [
    Scene(
        f"{name}, with threads inside calls",
        "it ends, with its own status; its private store goes, and the other is whole",
        lambda scratch, calls, name=name: end(name, calls),
    )
    for name in ENDS
]

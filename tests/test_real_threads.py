"""Threads that run whatever has been put in the place of Python's: by gevent or eventlet, before and after shmkv is
imported."""

from __future__ import annotations

import threading
import time

import pytest
from helpers import run_python, wait_until

from shmkv.realthread import Bell, RealThread

# Nothing here yields to other greenlets: a busy loop, as of a request that computes.
STORES = """
import sys, tempfile, time
{first}
{second}
from shmkv import DataStore, Store, _core

with tempfile.TemporaryDirectory() as folder:
    store = Store.open(folder + "/store", size="16MiB")
    data = DataStore(folder + "/data")
    store["a"] = "b" * 1000
    data.create("a", {{"b": "c" * 1000}})
    ends = _core.durable_state(store._opened())["end"], data._log.end
    until = time.perf_counter() + 20
    while time.perf_counter() < until:
        if _core.durable_state(store._opened())["synced"] >= ends[0] and data._log.synced >= ends[1]:
            print("synced")
            break
    store.close()
    data.close()
    print("closed")
"""
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
SHMKV = "import shmkv, shmkv.durable, shmkv.datastore"


@pytest.fixture(params=PATCHES)
def patch(request: pytest.FixtureRequest) -> str:
    """A line that puts greenlets in the place of threads."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed: pip install {request.param}")
    return PATCHES[request.param]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_syncs_is_a_real_thread(patch: str, when: str) -> None:
    first, second = (patch, SHMKV) if when == "before" else (SHMKV, patch)
    assert run_python(STORES.format(first=first, second=second)).split() == ["synced", "closed"]


def test_what_syncs_where_nothing_is_patched() -> None:
    assert run_python(STORES.format(first="", second=SHMKV)).split() == ["synced", "closed"]


CHILDREN = """
import os, tempfile, time
{patch}
from shmkv import Store, _core

with tempfile.TemporaryDirectory() as folder:
    store = Store.open(folder, size="16MiB")
    pid = os.fork()
    if pid == 0:
        store["a"] = 1
        end, until = _core.durable_state(store._opened())["end"], time.perf_counter() + 20
        while _core.durable_state(store._opened())["synced"] < end and time.perf_counter() < until:
            pass
        os._exit(0 if _core.durable_state(store._opened())["synced"] >= end else 1)
    print(os.waitpid(pid, 0)[1])
    store.close()
"""


def test_in_a_forked_child_too(patch: str) -> None:
    assert run_python(CHILDREN.format(patch=patch)).split() == ["0"]


def test_a_bell() -> None:
    bell = Bell()
    assert not bell.wait(0.01)
    bell.ring()
    bell.ring()
    assert bell.wait(0.01)
    assert not bell.wait(0.01)


def test_a_thread_of_its_own() -> None:
    seen: list[int] = []
    threads = [RealThread(lambda n: (time.sleep(0.01), seen.append(n)), (n,)) for n in range(5)]
    for thread in threads:
        thread.join()  # not begun: nothing to wait for
        thread.start()
    for thread in threads * 2:
        thread.join()
    assert sorted(seen) == list(range(5))
    joined = threading.Event()

    def join_itself() -> None:
        wait_until(lambda: bool(own))
        own[0].join()
        joined.set()

    own: list[RealThread] = []
    own.append(RealThread(join_itself))
    own[0].start()
    assert joined.wait(20)

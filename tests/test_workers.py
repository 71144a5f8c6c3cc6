"""Workers that come and go: what each keeps for its next write is not lost to the store when there is none."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext

import pytest
from helpers import MIB, check, in_fork, run_python

from shmkv import Store, _core

pytestmark = pytest.mark.slow

VALUE = b"v" * 8_000  # of the largest size whose blocks are leased and kept
PAGE = 1 << 16


def overwrite(store: Store) -> None:
    store["value"] = VALUE


def put_and_delete(store: Store) -> None:
    store["for a moment"] = b"v" * 3_000
    store.delete("for a moment")  # which another worker may have done before


MANY = """
import os, signal, sys
from shmkv import Store
store = Store.attach(sys.argv[1])
store["value"] = b"v" * 8_000
before = store.stats().used
for _ in range(int(sys.argv[3])):
    pid = os.fork()
    if pid == 0:
        store["value"] = b"v" * 8_000
        if sys.argv[2] == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    os.waitpid(pid, 0)
print(store.stats().used - before)
"""


@pytest.mark.parametrize(
    ("ending", "workers"),
    [("os._exit", 1_100), ("SIGKILL", 100)],  # the first are more than there are places in the process table
)
def test_workers_that_end_without_closing(store: Store, ending: str, workers: int) -> None:
    assert int(run_python(MANY, store.name, ending, str(workers), timeout=200)) <= 4 * PAGE
    assert store.check().blocks_leaked == 0
    check(store)


@pytest.fixture
def before(store: Store) -> int:
    """What a store takes that has been used, and of which nobody keeps anything."""
    put_and_delete(store)
    _core.give_back()
    return store.stats().used


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_give_back_at_their_end(store: Store, before: int, method: str) -> None:
    """At once, and not when the next one comes."""
    context: BaseContext = multiprocessing.get_context(method)
    child = context.Process(target=put_and_delete, args=(store,))  # type: ignore[attr-defined]
    child.start()
    child.join()
    assert child.exitcode == 0
    assert store.stats().used == before


def test_a_pool_of_workers_that_are_replaced(store: Store) -> None:
    overwrite(store)
    before = store.stats().used
    with multiprocessing.get_context("fork").Pool(4, maxtasksperchild=1) as pool:
        pool.map(overwrite, [store] * 60, chunksize=1)
    assert store.stats().used <= before + 8 * PAGE
    check(store)


def test_a_process_pool_gives_back(store: Store, before: int) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        list(pool.map(put_and_delete, [store] * 8))
    assert store.stats().used == before


def test_multiprocessing_that_is_loaded_after_the_store() -> None:
    run_python(
        "from shmkv import Store, _core\n"
        "store = Store(size='8MiB')\n"
        "def work():\n"
        "    store['k'] = b'v' * 3_000\n"
        "    del store['k']\n"
        "work()\n"
        "_core.give_back()\n"
        "before = store.stats().used\n"
        "import multiprocessing\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start(); child.join()\n"
        "assert store.stats().used == before, (store.stats().used, before)\n"
    )


def test_a_child_may_go_on_writing_after_it_gave_back(store: Store) -> None:
    def child() -> None:
        for size in (100, 3_000, 8_000) * 3:
            store["value"] = b"v" * size
            store["value"] = b"w" * size
            _core.give_back()

    in_fork(child)
    assert store["value"] == b"w" * 8_000
    assert store.check().blocks_leaked == 0
    check(store)


def test_before_the_region_grows_the_dead_give_back(make_store: Callable[..., Store]) -> None:
    """Also where nobody registers after their deaths: all were there before."""
    store = make_store(size=64 * MIB)
    put_and_delete(store)
    go, ready = os.pipe(), os.pipe()
    pids = []
    for _ in range(12):
        pid = os.fork()
        if pid == 0:
            store.delete("nothing")  # registers
            os.write(ready[1], b".")
            os.read(go[0], 1)
            put_and_delete(store)
            os._exit(0)
        pids.append(pid)
    for _ in pids:
        os.read(ready[0], 1)
    os.write(go[1], b"." * len(pids))
    for pid in pids:
        os.waitpid(pid, 0)
    stats = store.stats()
    free_pages = (stats.committed - stats.used) // PAGE
    for i in range((free_pages + 10) * 20):  # of 21 that fit a page
        store[f"{i}"] = b"v" * 3_000
    assert store.stats().committed == stats.committed
    check(store)

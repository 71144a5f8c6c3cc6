"""Pools of processes: of multiprocessing, of concurrent.futures, of joblib; workers that are recycled."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from campaigns.campaign import Figures
from helpers import Forked

from shmkv import Store

from .scene import Scene, call, judge, module, stage

METHODS = ("fork", "forkserver", "spawn")
SECONDS = 300
_mine: Store | None = None  # of a worker


def open_mine(name: str) -> None:
    global _mine
    _mine = Store(name)


def call_mine(number: int) -> int:
    assert _mine is not None
    return call(_mine, number)


def call_given(given: tuple[Store, int]) -> int:
    return call(*given)


def call_and_die(store: Store) -> None:
    call(store, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def pool_by_name(method: str, per_child: int | None, calls: int) -> Figures:
    """Each worker opens the store by its name, and none closes it: the pool ends them by SIGTERM."""
    context = multiprocessing.get_context(method)
    with stage() as store:
        with context.Pool(3, open_mine, (store.name,), maxtasksperchild=per_child) as pool:
            counted = pool.map_async(call_mine, range(calls), chunksize=1).get(SECONDS)
        pool.join()
        assert sorted(counted) == list(range(1, calls + 1))
        judge(store, calls)
    return {"calls": calls}


def pool_by_handle(method: str, per_child: int | None, calls: int) -> Figures:
    """The handle is an argument of each task; the pool is closed in order."""
    context = multiprocessing.get_context(method)
    with stage() as store:
        pool = context.Pool(3, maxtasksperchild=per_child)
        counted = pool.map_async(call_given, [(store, number) for number in range(calls)], chunksize=2).get(SECONDS)
        pool.close()
        pool.join()
        assert sorted(counted) == list(range(1, calls + 1))
        judge(store, calls)
    return {"calls": calls}


def executor(method: str, calls: int) -> Figures:
    """A worker is killed in the middle, which breaks the pool: another one goes on."""
    context = multiprocessing.get_context(method)
    options: dict[str, Any] = {"max_workers": 3, "mp_context": context}
    if method != "fork" and sys.version_info >= (3, 11):
        # With more, executors of 3.11 to 3.14 may leave workers unreplaced (CPython gh-115634).
        options["max_tasks_per_child"] = 1
        calls = min(calls, 24)
    with stage() as store:
        with concurrent.futures.ProcessPoolExecutor(**options) as workers:
            list(workers.map(call_given, [(store, number) for number in range(calls)], timeout=SECONDS))
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as workers:
            broken = workers.submit(call_and_die, store)
            assert isinstance(broken.exception(SECONDS), BrokenProcessPool)
        with concurrent.futures.ProcessPoolExecutor(
            2, mp_context=context, initializer=open_mine, initargs=(store.name,)
        ) as workers:
            list(workers.map(call_mine, range(calls), timeout=SECONDS))
        judge(store, 2 * calls + 1)
    return {"calls": 2 * calls}


def with_joblib(backend: str, calls: int) -> Figures:
    import joblib

    with stage() as store:
        tasks = [joblib.delayed(call)(store, number) for number in range(calls)]
        counted = joblib.Parallel(n_jobs=3, backend=backend, timeout=SECONDS)(tasks)
        if backend == "loky":
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)
        assert sorted(counted) == list(range(1, calls + 1))
        judge(store, calls)
    return {"calls": calls}


def recycled(calls: int) -> Figures:
    """So many short workers, one after the other, that end by os._exit without closing anything."""
    with stage() as store:
        for number in range(calls):
            assert Forked(call, store, number).wait(60) == 0
        judge(store, calls)
    return {"calls": calls, "processes": calls}


def _calls(method: str, calls: int) -> int:
    return calls if method == "fork" else max(calls // 4, 6)


SCENES = [
    *(
        Scene(
            f"multiprocessing.Pool, {method}, {f'maxtasksperchild={per_child}' if per_child else 'workers that stay'}",
            "every task is counted once; nothing is kept",
            lambda scratch, calls, play=play, method=method, per_child=per_child: play(
                method, per_child, _calls(method, calls)
            ),
            slow=method != "fork",
        )
        for method in METHODS
        for play, per_child in ((pool_by_name, None), (pool_by_handle, 3))
    ),
    *(
        Scene(
            f"concurrent.futures, {method}, a worker killed",
            "every task is counted once; the next pool goes on",
            lambda scratch, calls, method=method: executor(method, _calls(method, calls)),
            slow=method != "fork",
        )
        for method in METHODS
    ),
    *(
        Scene(
            f"joblib, {backend}",
            "every task is counted once; nothing is kept",
            lambda scratch, calls, backend=backend: with_joblib(backend, calls),
            (module("joblib"),),
            slow=backend == "loky",
        )
        for backend in ("loky", "multiprocessing", "threading")
    ),
    Scene(
        "workers that are recycled by os._exit",
        "the store holds no more after all of them than before",
        lambda scratch, calls: recycled(calls),
    ),
]

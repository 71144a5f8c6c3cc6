"""A process that is stopped inside its calls, goes on, and is killed there."""

from __future__ import annotations

import os
import signal
import time

from campaigns.campaign import Figures
from helpers import Forked, SharedInts, wait_until

from shmkv import LockTimeoutError, Store

from .scene import BATCH, Scene, call, judge, stage


def call_for_ever(store: Store, done: SharedInts) -> None:
    while True:
        call(store, done[0])
        done[0] += 1


def stopped(calls: int) -> Figures:
    """It is stopped so often, at any instruction: readers go on, writers too or they are told who is in the way."""
    refused = 0
    with stage() as store:
        done = SharedInts(1)
        writer = Forked(call_for_ever, store, done)
        with Store.attach(store.name, lock_timeout=0.05) as beside:
            for number in range(calls):
                before = done[0]
                wait_until(lambda before=before: done[0] > before, 60, "a call of the writer")
                time.sleep(number % 7 * 0.0003)
                writer.stop()
                assert len(set(store.get_many(BATCH).values())) == 1, "a batch is torn"
                try:
                    beside.put_many(dict.fromkeys(BATCH, -number))
                except LockTimeoutError as error:
                    named = f"process {writer.pid} " in str(error) and "stopped" in str(error)
                    assert named, f"which process is stopped? {error}"  # noqa: PT017
                    refused += 1
                writer.resume()
        writer.stop()
        writer.signal(signal.SIGKILL)
        assert writer.wait() == -signal.SIGKILL
        call(store, 0)
        judge(store, done[0] + 1, more=1)
    return {"stops": calls, "calls": calls, "calls_refused_beside_a_stopped_writer": refused}


def killed(calls: int) -> Figures:
    """One after the other is killed inside its calls."""
    with stage() as store:
        answered = 0
        kills = max(calls // 4, 5)
        for number in range(kills):
            done = SharedInts(1)
            writer = Forked(call_for_ever, store, done)
            wait_until(lambda done=done, number=number: done[0] > number % 5, 60, "a call of the writer")
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
            answered += done[0]
            call(store, number)
        judge(store, answered + kills, more=kills)
        store.delete_many([key for key in store if str(key).startswith("of ")])  # of those that did not come to it
        store.compact()
        assert store.check().dead_slots == 0, "a place of a dead process was not given back"
    return {"kills": kills, "calls": answered}


SCENES = [
    Scene(
        "SIGSTOP inside calls",
        "readers go on; a writer that has to wait is told which process is stopped",
        lambda scratch, calls: stopped(calls),
    ),
    Scene(
        "SIGKILL inside calls",
        "the next call goes on; compact() finds all that they left",
        lambda scratch, calls: killed(calls),
    ),
]

"""An application of Celery whose broker and results are files, for a worker without any server beside it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from celery import Celery

from shmkv import Store
from surroundings.scene import call

folder = Path(os.environ["QUEUE"])
app = Celery("tasks_of_celery", broker="filesystem://", backend=f"file://{folder / 'results'}")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "queue"),
    "data_folder_out": str(folder / "queue"),
    "control_folder": str(folder / "control"),
}
app.conf.worker_hijack_root_logger = False
store = Store(os.environ["STORE"])  # before the workers are forked


@app.task
def one(number: int) -> int:
    return call(store, number)


@app.task(time_limit=1)
def too_long(number: int) -> None:
    """Past its limit the worker is killed, in the middle of whatever it does."""
    store.incr("long")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        store.put_many(dict.fromkeys([f"batch {at}" for at in range(24)], number))


@app.task
def dies(number: int) -> None:
    store.incr("died")
    os.kill(os.getpid(), signal.SIGKILL)

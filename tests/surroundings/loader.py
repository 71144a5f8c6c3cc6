"""A loader of batches as PyTorch has one: an index queue for each worker, one queue for what they made, a thread that
takes it over, workers that watch their parent; and a data set that reads from a store.

The protocol is that of torch.utils.data.DataLoader; torch itself is not needed.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

from campaigns.campaign import Figures
from helpers import sealed, unseal

from shmkv import Store

from .scene import Scene, call, judge, stage

WORKERS = 8
AHEAD = 2  # batches for each worker
LOOK_S = 5.0  # at whether the parent, or a worker, still lives
PATIENCE_S = 300.0


@dataclass
class DataSet:
    """Samples lie in the store; each is counted when it is read, and what is made of it is kept there."""

    store: Store
    length: int

    def __getitem__(self, index: int) -> bytes:
        sample = self.store[f"sample {index}"]
        assert unseal(f"sample {index}", sample) == index
        self.store.setdefault(f"made of {index}", sample[::-1])
        call(self.store, index)
        return bytes(sample)


def work(data: DataSet, indices: Any, made: Any, ended: Any) -> None:
    """A worker's life: batches of indices come, samples go, until None."""
    parent = os.getppid()
    while True:
        try:
            wanted = indices.get(timeout=LOOK_S)
        except queue.Empty:
            if os.getppid() != parent:
                return
            continue
        if wanted is None:
            assert ended.is_set()
            made.close()
            made.join_thread()
            return
        number, batch = wanted
        made.put((number, [data[index] for index in batch]))


class Loader:
    """Batches in order, made by workers that live for one epoch, or for all."""

    def __init__(self, data: DataSet, batch: int, context: BaseContext) -> None:
        self.ended = context.Event()
        self.made: Any = context.Queue()
        self.indices: list[Any] = [context.Queue() for _ in range(WORKERS)]
        self.workers = [
            context.Process(target=work, args=(data, indices, self.made, self.ended), daemon=True)  # type: ignore[attr-defined]
            for indices in self.indices
        ]
        self.batches = [range(at, min(at + batch, data.length)) for at in range(0, data.length, batch)]
        self.taken: queue.Queue[Any] = queue.Queue()
        self.over = threading.Event()
        for worker in self.workers:
            worker.start()
        self.thread = threading.Thread(target=self.take_over, daemon=True)
        self.thread.start()

    def take_over(self) -> None:
        """As the thread that pins memory."""
        while not self.over.is_set():
            try:
                self.taken.put(self.made.get(timeout=0.1))
            except queue.Empty:
                continue

    def __iter__(self) -> Iterator[list[bytes]]:
        ahead = iter(enumerate(self.batches))

        def ask() -> None:
            number, batch = next(ahead, (None, None))
            if number is not None:
                self.indices[number % WORKERS].put((number, list(batch or ())))

        for _ in range(WORKERS * AHEAD):
            ask()
        early: dict[int, list[bytes]] = {}
        for number in range(len(self.batches)):
            while number not in early:
                at, samples = self.next_made()
                early[at] = samples
            ask()
            yield early.pop(number)

    def next_made(self) -> tuple[int, list[bytes]]:
        waited = 0.0
        while waited < PATIENCE_S:
            try:
                return self.taken.get(timeout=LOOK_S)  # type: ignore[no-any-return]
            except queue.Empty:
                waited += LOOK_S
                dead = [worker.exitcode for worker in self.workers if not worker.is_alive()]
                assert not dead, f"workers ended with {dead}"
        raise AssertionError(f"no batch within {PATIENCE_S} s")

    def close(self) -> None:
        self.ended.set()
        for indices in self.indices:
            indices.put(None)
        for worker in self.workers:
            worker.join(PATIENCE_S)
        self.over.set()
        self.thread.join()
        for each in (self.made, *self.indices):
            each.cancel_join_thread()
            each.close()


def fill(store: Store, length: int) -> DataSet:
    store.update(
        (f"sample {index}", sealed(f"sample {index}", index, 200 + index * 131 % 9_000)) for index in range(length)
    )
    store.update((f"made of {index}", b"") for index in range(length))
    return DataSet(store, length)


def epochs(method: str, persistent: bool, samples: int) -> Figures:
    """Two epochs, by workers that stay or by new ones; every sample of every epoch is right, and counted once."""
    context = multiprocessing.get_context(method)
    with stage() as store:
        data = fill(store, samples)
        store.compact()
        loader = Loader(data, 4, context) if persistent else None
        for _ in range(2):
            current = loader or Loader(data, 4, context)
            read = [sample for batch in current for sample in batch]
            assert [unseal(f"sample {index}", sample) for index, sample in enumerate(read)] == list(range(samples))
            if loader is None:
                current.close()
        if loader:
            assert all(worker.is_alive() for worker in loader.workers)
            loader.close()
            assert [worker.exitcode for worker in loader.workers] == [0] * WORKERS
        judge(store, 2 * samples)
        store.delete_many([key for key in store if str(key).startswith(("sample", "made"))])
    return {"calls": 2 * samples}


def killed_in_the_middle(method: str, samples: int) -> Figures:
    """One worker of an epoch is killed, the loop over the batches ends; the next loader goes on."""
    context = multiprocessing.get_context(method)
    with stage() as store:
        data = fill(store, samples)
        loader = Loader(data, 2, context)
        batches = iter(loader)
        next(batches)
        victim = loader.workers[3]
        assert victim.pid
        os.kill(victim.pid, signal.SIGKILL)
        loader.close()
        assert victim.exitcode in (0, -signal.SIGKILL)  # 0: it had done all
        before = store["calls"]
        again = Loader(data, 4, context)
        assert sum(len(batch) for batch in again) == samples
        again.close()
        judge(store, before + samples)
        store.delete_many([key for key in store if str(key).startswith(("sample", "made"))])
    return {"calls": 2 * samples}


SCENES = [
    *(
        Scene(
            f"a loader as PyTorch's, {method}, {WORKERS} workers {'that stay' if persistent else 'for each epoch'}",
            "every sample of two epochs is right, and counted once",
            lambda scratch, calls, method=method, persistent=persistent: epochs(method, persistent, calls),
            slow=method == "spawn",
        )
        for method, persistent in (("fork", False), ("fork", True), ("spawn", False), ("spawn", True))
    ),
    Scene(
        "a loader as PyTorch's, a worker killed",
        "the next loader goes on with the same store",
        lambda scratch, calls: killed_in_the_middle("fork", calls),
    ),
]

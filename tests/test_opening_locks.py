"""The locks of an opening end with the process that opens, whatever its children have inherited."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import Forked, SharedInts, durable_folder, wait_until

from shmkv import Store, _core, durable
from shmkv.folder import ByteLock


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


@pytest.mark.parametrize("moment", ["before", "in recovery"])
def test_a_child_that_was_forked_in_an_opening_keeps_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    with Store.open(path, size="16MiB") as store:
        store["kept"] = "here"
    shared = SharedInts(2)

    def opener() -> None:
        """Forks an idle child in another thread, while this one is inside, and waits to be killed."""

        def fork() -> None:
            pid = os.fork()
            if pid == 0:
                shared[0] = os.getpid()
                time.sleep(300)
                os._exit(0)

        def stay(*_: object) -> None:
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            shared[1] = 1
            signal.pause()

        if moment == "before":
            durable._attach_or_rebuild = stay  # type: ignore[assignment]
        else:
            durable._fill = stay
        Store.open(path)

    killed = Forked(opener)
    wait_until(lambda: shared[0] and shared[1])
    killed.kill()
    try:
        os.kill(shared[0], 0)  # the child lives
        opened: list[str] = []

        def open_it() -> None:
            with Store.open(path) as store:
                opened.append(store["kept"])

        thread = threading.Thread(target=open_it, daemon=True)
        thread.start()
        thread.join(60)
        assert opened == ["here"]
    finally:
        os.kill(shared[0], signal.SIGKILL)


def test_a_child_has_the_presence_of_a_store_that_was_open_before_the_fork(path: Path) -> None:
    store = Store.open(path, size="16MiB")
    ready = SharedInts(1)

    def child() -> None:
        store["child"] = 1
        ready[0] = 1
        time.sleep(300)

    idle = Forked(child)
    wait_until(lambda: ready[0])
    store.close()
    folder = os.open(path, os.O_RDONLY)
    lock = ByteLock(folder, durable.PRESENCE)
    assert lock.others()
    idle.kill()
    assert not lock.others()
    lock.close()
    os.close(folder)


def test_a_private_descriptor_is_closed_in_a_child_and_in_no_other_way(tmp_path: Path) -> None:
    one = _core.Descriptor.open_private(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    two = _core.Descriptor.open_private(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    two.share()

    def child() -> tuple[int, bool]:
        number = one.fileno()
        os.fstat(two.fileno())
        return number, one.fileno() == -1

    assert Forked(child).result() == (-1, True)
    os.fstat(one.fileno())
    one.close()
    two.close()

"""AsyncStore: an event loop goes on, whoever holds a lock."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import Forked, durable_folder

from shmkv import CodecError, LimitError, LockTimeoutError, Store
from shmkv.aio import LONG_BYTES, AsyncStore

KEYS = [f"k{i}" for i in range(3000)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def write_batches(store: Store) -> None:
    number = 0
    while True:
        number += 1
        store.put_many(dict.fromkeys(KEYS, number))


def stopped_with_locks(store: Store, writer: Forked) -> str:
    """A key whose lock the stopped writer holds."""
    with Store.attach(store.name, lock_timeout=0.02) as probe:
        for _ in range(500):
            writer.stop()
            for key in KEYS[::50]:
                try:
                    probe.touch(key, 1000)
                except LockTimeoutError:
                    return key
            writer.resume()
            time.sleep(0.002)  # or it would be stopped where it was before
    raise AssertionError("the writer was never stopped with a lock in its hand")


def test_each_call(store: Store) -> None:
    async def main() -> list[Any]:
        async with AsyncStore(store) as cache:
            await cache.put("a", [1], ttl=60)
            return [
                await cache.get("a"), await cache.get("b", 5), await cache.add("a", 1), await cache.incr("n", 3),
                await cache.delete("a"), await cache.get("a"), await cache.call(len),
                await cache.put("l", b"x" * 100_000),
                await cache.call(lambda patient: patient.change("n", lambda n: n + 1)),
            ]  # fmt: skip

    assert asyncio.run(main()) == [[1], 5, False, 3, True, None, 1, None, 4]
    assert not store.closed
    assert store["l"] == b"x" * 100_000


def test_an_error_is_the_store_s_own(store: Store) -> None:
    async def main() -> None:
        async with AsyncStore(store) as cache:
            await cache.put("s", "text")
            with pytest.raises(TypeError):
                await cache.incr("s")
            with pytest.raises(TypeError):
                await cache.put("s", 1j)
            store.put("p", 1)
            with Store.attach(store.name, codec="pickle") as pickler:
                pickler["p"] = 1j
            with pytest.raises(CodecError):
                await cache.get("p")

    asyncio.run(main())


def test_the_loop_goes_on_behind_a_stopped_writer(store: Store) -> None:
    """The writes wait beside the loop until the writer goes on: the loop sends it the signal."""
    store.put_many(dict.fromkeys(KEYS, 0))
    writer = Forked(write_batches, store)
    key = stopped_with_locks(store, writer)

    async def main() -> tuple[Any, Any]:
        async with AsyncStore(store) as cache:
            waiting = [asyncio.create_task(cache.put(key, 1)), asyncio.create_task(cache.incr(f"{key}", 1))]
            for _ in range(20):
                await asyncio.sleep(0.001)
                await cache.get(key)
            is_waiting = not any(task.done() for task in waiting)
            os.kill(writer.pid, signal.SIGKILL)
            return is_waiting, await asyncio.gather(*waiting)

    is_waiting, answers = asyncio.run(main())
    writer.wait()
    assert is_waiting
    assert answers[0] is None
    assert type(answers[1]) is int


@pytest.mark.parametrize("sync", ["always", "interval"])
def test_a_durable_store(folder: Path, sync: str) -> None:
    async def main(store: Store) -> None:
        async with AsyncStore(store) as cache:
            await asyncio.gather(*(cache.incr("n") for _ in range(50)))

    with Store.open(folder, sync, size="16MiB") as store:
        asyncio.run(main(store))
        assert store["n"] == 50


# ---- No more threads -----------------------------------------------------------------------------------------


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let only so many more threads be started, as the system does at its limit."""
    left: list[int] = []
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if left:
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    return lambda more: left.__setitem__(slice(None), [more])


def test_a_call_that_no_thread_was_found_for_is_never_made(store: Store, limit: Callable[[int], None]) -> None:
    async def main() -> None:
        cache = AsyncStore(store)
        limit(0)
        await cache.put("short", 1)
        for call in (cache.put("long", b"x" * LONG_BYTES), cache.call(len)):
            with pytest.raises(LimitError, match=r"no more threads.*ulimit -u"):
                await call
        limit(1)
        assert await cache.call(len) == 1, "the same thread has met the call that was refused"
        limit(0)
        await cache.aclose()
        with pytest.raises(RuntimeError):
            await cache.call(len)

    asyncio.run(main())
    assert dict(store) == {"short": 1}


def test_at_the_limit_calls_wait_for_the_threads_that_there_are(store: Store, limit: Callable[[int], None]) -> None:
    async def main() -> list[int]:
        cache = AsyncStore(store)
        limit(1)
        calls = [asyncio.ensure_future(cache.call(lambda patient: patient.incr("n"))) for _ in range(20)]
        await asyncio.sleep(0)
        await cache.aclose()  # waits for them without a thread of its own
        return [await call for call in calls]

    assert sorted(asyncio.run(main())) == list(range(1, 21))


def test_an_error_comes_through_a_thread(store: Store) -> None:
    async def main() -> None:
        async with AsyncStore(store) as cache:
            with pytest.raises(ZeroDivisionError):
                await cache.call(lambda _: 1 // 0)

    asyncio.run(main())

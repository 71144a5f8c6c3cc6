"""Processes that wrote a little of everything and then sleep cannot make a store full."""

from __future__ import annotations

import time
from typing import Any

import pytest
from helpers import MIB, Forked, SharedInts, check, fill, wait_until

SIZES = [round(8 * 1.24**i) for i in range(30)]  # 8 bytes to 4 KiB: 64 of each are 2 % of the store


@pytest.mark.slow
def test_64_sleepers_leave_the_room_to_others(make_store: Any) -> None:
    undisturbed = make_store(size=64 * MIB)
    most = fill(undisturbed, 100)
    undisturbed.unlink()
    undisturbed.close()

    store = make_store(size=64 * MIB)
    ready = SharedInts(64)

    def write_a_little_and_sleep(me: int) -> None:
        for size in SIZES:
            store[f"sleeper:{me}:{size}"] = bytes([me]) * size
        ready[me] = 1
        time.sleep(300)

    sleepers = [Forked(write_a_little_and_sleep, me) for me in range(64)]
    wait_until(lambda: all(ready), 60)
    assert store.stats().processes == 65
    count = fill(store, 100)
    stats = store.stats()
    assert count >= 0.8 * most, f"{count} values beside 64 sleepers, {most} alone"
    assert stats.used >= 0.8 * stats.size
    for me in range(64):
        for size in SIZES:
            assert store[f"sleeper:{me}:{size}"] == bytes([me]) * size
    check(store)
    for sleeper in sleepers:
        sleeper.kill()
    store.compact()
    assert store.stats().processes == 1


def test_sleepers_that_wake_up_go_on(make_store: Any) -> None:
    """What was taken from a sleeper it does not need: it writes on, beside the others."""
    store = make_store(size=8 * MIB)
    go = SharedInts(17)

    def sleep_then_write(me: int) -> None:
        for size in SIZES[:20]:
            store[f"{me}:{size}"] = bytes([me]) * size
        go[me] = 1
        while not go[16]:
            time.sleep(0.001)
        for turn in range(20):
            for size in SIZES[:20]:
                store[f"{me}:{size}"] = bytes([me + turn]) * size

    children = [Forked(sleep_then_write, me) for me in range(16)]
    wait_until(lambda: sum(go) == 16, 60)
    count = fill(store, 100)
    store.delete_many([f"fill:{i:08d}" for i in range(0, count, 2)])
    go[16] = 1
    for child in children:
        child.result()
    for me in range(16):
        for size in SIZES[:20]:
            assert store[f"{me}:{size}"] == bytes([me + 19]) * size
    assert all(store[f"fill:{i:08d}"] == b"v" * 100 for i in range(1, count, 2))

"""Several processes at once, some of them killed at any instant.

Each worker runs operations that follow from its seed alone, on keys of its own, and counts in shared
memory those that have returned.  So after a kill at count n its keys must show exactly the state after n
operations, or after n + 1: nothing acknowledged is lost, no batch is half there.  Beside that all workers
write shared keys, whose values carry an equation.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from helpers import MIB, Forked, SharedInts, check, sealed, unseal

from shmkv import LockTimeoutError, Store, StoreFullError

pytestmark = pytest.mark.slow

SHARED = [f"shared:{i}" for i in range(40)]
Items = dict[str, bytes]


class Script:
    """An endless list of operations of one worker, each of which changes only keys of its own."""

    def __init__(self, me: int, generation: int, base: str) -> None:
        self.me = me
        self.rng = random.Random(f"{base}:{me}:{generation}")

    def next(self) -> tuple[str, Items]:
        """(operation, the items that it writes, or whose keys it removes)."""
        rng = self.rng
        number = rng.getrandbits(60)

        def item(size: int) -> tuple[str, bytes]:
            key = f"{self.me}:{rng.randrange(300)}"
            return key, sealed(key, number, size)

        kind = rng.random()
        size = rng.choice([20, 60, 200, 1500, 9000, 40_000, 90_000] if kind < 0.1 else [20, 60, 200, 1500])
        if kind < 0.45:
            return "put", dict([item(size)])
        if kind < 0.6:
            return "delete", dict([item(20)])
        if kind < 0.85:
            return "put_many", dict(item(rng.choice([20, 100, 700])) for _ in range(rng.choice([2, 3, 5, 60])))
        return "delete_many", dict(item(20) for _ in range(rng.choice([2, 5, 40])))


def on_model(model: Items, operation: str, items: Items) -> None:
    if operation.startswith("put"):
        model.update(items)
    else:
        for key in items:
            model.pop(key, None)


def work(store: Store, script: Script, done: SharedInts) -> None:
    me = script.me
    while True:
        operation, items = script.next()
        match operation:
            case "put":
                ((key, value),) = items.items()
                store[key] = value
            case "delete":
                (key,) = items
                store.delete(key)
            case "put_many":
                store.put_many(items)
            case _:
                store.delete_many(list(items))
        done[me] += 1
        number = done[me]
        if number % 3 == 0:
            store.put_many(dict.fromkeys(SHARED, me * 10**9 + number))
            got = store.get_many(SHARED)
            assert len(got) == len(SHARED), "a torn batch"
            assert len(set(got.values())) == 1, "a torn batch"
        if number % 5 == 0:
            store.incr("counter")
            key = f"{(me + 1) % 3}:{number % 300}"
            value = store.get(key)
            if value is not None:
                unseal(key, value)
        if number % 400 == 0:
            store.compact()


def still_running(worker: Forked) -> None:
    if worker.poll() is not None:
        worker.result()  # raises what it died of
        raise AssertionError("a worker that should run for ever has ended")


def own_items(store: Store, me: int) -> Items:
    return {str(key): value for key, value in store.range(f"{me}:", f"{me};")}


def test_nothing_acknowledged_is_lost(make_store: Callable[..., Store], rng: random.Random) -> None:
    """Each round: three workers start, are killed one by one at random, and what they left is compared."""
    store = make_store(size=96 * MIB)
    store.put_many(dict.fromkeys(SHARED, 0))
    count, base = 3, str(rng.random())
    models: list[Items] = [{} for _ in range(count)]
    until = time.monotonic() + 12
    rounds = 0
    while time.monotonic() < until:
        done = SharedInts(count)
        workers = [Forked(work, store, Script(me, rounds, base), done) for me in range(count)]
        for me in rng.sample(range(count), count):
            time.sleep(rng.random() * 0.02)
            still_running(workers[me])
            if rng.random() < 0.2:
                workers[me].stop()
                whole_shared_batch(store)
            workers[me].kill()
            assert workers[me].exit == -signal.SIGKILL
            whole_shared_batch(store)
        for me in range(count):
            script, model = Script(me, rounds, base), models[me]
            for _ in range(done[me]):
                on_model(model, *script.next())
            found = own_items(store, me)
            if found != model:
                acknowledged = dict(model)
                on_model(model, *script.next())
                assert found == model, describe_loss(found, acknowledged, model)
        if rounds % 5 == 0:
            check(store)
        rounds += 1
    store.compact()
    report = store.check()
    assert report.ok, report.problems
    assert report.dead_slots == 0
    assert report.blocks_leaked == 0
    assert rounds > 5


def whole_shared_batch(store: Store) -> None:
    shared = store.get_many(SHARED)
    assert len(shared) == len(SHARED), "half a batch"
    assert len(set(shared.values())) == 1, "two batches mixed"


def describe_loss(found: Items, before: Items, after: Items) -> str:
    lines = []
    for key in sorted(found.keys() | before.keys() | after.keys()):
        values = [unseal(key, items[key]) if key in items else None for items in (found, before, after)]
        if values[0] not in values[1:] or values[1] != values[2]:
            lines.append(f"{key}: found {values[0]}, acknowledged {values[1]}, with the last operation {values[2]}")
    return "\n".join(lines[:50])


def test_workers_that_are_never_killed_end_exactly(make_store: Callable[..., Store], rng: random.Random) -> None:
    store = make_store(size=96 * MIB)
    base = str(rng.random())
    steps = 700

    def run(me: int) -> None:
        script = Script(me, 0, base)
        model: Items = {}
        for number in range(steps):
            operation, items = script.next()
            if operation.startswith("put"):
                store.put_many(items) if len(items) > 1 else store.update(items)
            else:
                there = sum(key in model for key in items)
                assert store.delete_many(iter(items)) == there
            on_model(model, operation, items)
            store.incr("counter")
            if number % 20 == 0:
                assert store.get_many([f"{me}:{i}" for i in range(300)]) == model
        assert own_items(store, me) == model

    children = [Forked(run, me) for me in range(4)]
    for child in children:
        child.result()
    assert store["counter"] == 4 * steps


@pytest.mark.parametrize("on_full", ["error", "evict"])
def test_a_small_store_under_kills(make_store: Callable[..., Store], rng: random.Random, on_full: str) -> None:
    """It grows, fills, evicts and evacuates all the time; what is there is whole, and never goes back."""
    store = make_store(size=4 * MIB, on_full=on_full)
    count = 3
    written = SharedInts(count * 400)

    def churn(me: int, start: float) -> None:
        own = random.Random(start)
        while True:
            i = own.randrange(400)
            key = f"{me}:{i}"
            try:
                number = written[me * 400 + i] + 1
                value = store.get(key)
                if value is not None:
                    assert unseal(key, value) in (number - 1, number)
                    number = max(number, unseal(key, value) + 1)
                if own.random() < 0.3:
                    store.delete(key)
                else:
                    store[key] = sealed(key, number, own.choice([20, 100, 1000, 8000, 30_000]))
                    written[me * 400 + i] = number
                if own.random() < 0.05:
                    store.put_many({f"batch:{n}": (number, "x" * own.randrange(500)) for n in range(30)})
                if own.random() < 0.01:
                    store.compact()
            except StoreFullError:
                assert on_full == "error"
                store.delete_many([f"{me}:{own.randrange(400)}" for _ in range(50)])

    workers = [Forked(churn, me, rng.random()) for me in range(count)]
    until = time.monotonic() + 6
    kills = 0
    while time.monotonic() < until:
        time.sleep(rng.random() * 0.05)
        me = rng.randrange(count)
        still_running(workers[me])
        workers[me].kill()
        kills += 1
        for i in range(400):
            key = f"{me}:{i}"
            value = store.get(key)
            if value is not None:
                assert unseal(key, value) in (written[me * 400 + i], written[me * 400 + i] + 1)
                written[me * 400 + i] = unseal(key, value)
        batch = store.get_many([f"batch:{n}" for n in range(30)])
        assert len({number for number, _ in batch.values()}) <= 1
        assert len(batch) in (0, 30) or on_full == "evict"
        workers[me] = Forked(churn, me, rng.random())
    for worker in workers:
        worker.kill()
    store.compact()
    check(store)
    assert store.check().blocks_leaked == 0
    assert kills > 5


def test_creators_that_are_killed(name: str, rng: random.Random) -> None:
    """Killed at any instant of create, attach, close or unlink: the next one gets a whole store."""

    def open_and_close() -> None:
        while True:
            with Store(name, size="2MiB") as store:
                store["k"] = 1
                assert store["k"] == 1
                store.unlink()

    def attempt(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except LockTimeoutError as error:
            pytest.fail(str(error))

    for _ in range(60):
        victim = Forked(open_and_close)
        time.sleep(0.004 + rng.random() * 0.01)
        still_running(victim)
        victim.kill()
        store = attempt(lambda: Store(name, size="2MiB"))
        store["mine"] = 1
        assert store["mine"] == 1
        store.compact()
        check(store)
        store.unlink()
        store.close()

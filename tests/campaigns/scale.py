"""Campaign: many, large, and again: sizes and counts that are as far out as a machine allows.

Each part is one scene, in a store of its own.  What a scene leaves behind is a violation like any other: a name in
/dev/shm, a descriptor, a mapping, memory of this process.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from helpers import MIB, Forked, SharedInts, check, lose_memory, temporary_store, wait_until

from shmkv import Store, StoreFullError

from .campaign import Campaign, Figures, Unsuited, join
from .growth import nothing_grows

GIB = 1 << 30
SPARE = 2 * GIB  # what has to stay free beside a large scene, for everybody else on the machine


# ---- Room for it -----------------------------------------------------------------------------------


def free_memory() -> int:
    return min(psutil.virtual_memory().available, psutil.disk_usage("/dev/shm").free)


def make_sure_of(room: int) -> None:
    """Refuse to begin where the machine has too little memory: a scene must not be the one that ends others."""
    free = free_memory()
    if free < room + min(SPARE, room):
        raise Unsuited(f"takes {room / GIB:.1f} GiB of memory in /dev/shm, and {free / GIB:.1f} are free")


# ---- Many tiny items -----------------------------------------------------------------------------


def many_keys(count: int, batch: int = 50_000) -> Figures:
    """So many tiny items are stored, read back one and all, half of them deleted, and the rest cleared."""
    make_sure_of(count * 80)

    def batches(step: int) -> Iterator[list[str]]:
        for start in range(0, count, batch):
            yield [str(number) for number in range(start, min(start + batch, count), step)]

    with nothing_grows(), temporary_store(size=max(8 * MIB, count * 100)) as store:
        store.update((str(number), number) for number in range(count))
        assert len(store) == count
        used = store.stats().used
        for keys in batches(1):
            assert store.get_many(keys) == {key: int(key) for key in keys}
        check(store)
        assert sum(1 for _ in store) == count
        assert sum(store.delete_many(keys) for keys in batches(2)) == len(range(0, count, 2))
        assert len(store) == count // 2
        check(store)
        assert (store.get("0"), store.get("1")) == (None, 1)
        store.clear()
        assert (len(store), store.get("1")) == (0, None)
    return {"tiny_items": count, "largest_bytes_per_tiny_item": used / count}


# ---- One large value -----------------------------------------------------------------------------


def noise(size: int, seed: int) -> bytes:
    """Bytes without a period."""
    rng, step = random.Random(seed), 16 * MIB
    return b"".join(rng.randbytes(min(step, size - start)) for start in range(0, size, step))


def holds(store: Store, value: bytes) -> bool:
    return bool(store["large"] == value)


def one_large(size: int) -> Figures:
    """A value of that size: new, overwritten, read by another process, counted, gone, and there again."""
    make_sure_of(5 * size)
    first = noise(size, 1)
    with nothing_grows(), temporary_store(size=4 * size + 16 * MIB) as store:
        store["large"] = first
        assert store["large"] == first
        second = bytes(reversed(first[: size // 2])) + first[size // 2 :]
        store["large"] = second
        assert Forked(holds, store, second).result(300)
        assert store.stats().value_bytes == size
        check(store)
        assert store.pop("large") == second
        store["small"] = 1
        store.put("large", first, ttl=3600)
        assert store.get_many(["large", "small"]) == {"large": first, "small": 1}
        check(store)
        del store["large"], second
        store.compact()
        assert store.stats().committed < size // 4 + 8 * MIB, "its memory was not given back"
    return {"large_values": 3, "largest_value_bytes": size}


def write_and_die(folder: str, size: int, value: bytes) -> None:
    store = Store.open(folder, size=size)
    store["beside"] = "it"
    store["large"] = value
    store.sync()
    os.kill(os.getpid(), signal.SIGKILL)


def one_large_on_disk(size: int) -> Figures:
    """A durable store's: read back from its log after a kill and the loss of all memory, and then from a snapshot."""
    make_sure_of(4 * size)
    value = noise(size, 2)
    with nothing_grows(), tempfile.TemporaryDirectory(prefix="shmkv-scale-") as folder:
        assert Forked(write_and_die, folder, 4 * size + 16 * MIB, value).wait(600) == -signal.SIGKILL
        lose_memory(Path(folder))
        for _ in ("from the log", "from a snapshot"):
            with Store.open(folder) as store:
                assert store.get_many(["large", "beside"]) == {"large": value, "beside": "it"}
                check(store)
    return {"large_values": 1, "largest_value_bytes": size}


# ---- Full and empty, again and again -------------------------------------------------------------

# (least, most bytes of a value, share of the bytes that are stored)
MIX = ((16, 200, 0.01), (1_000, 2_000, 0.04), (40_000, 80_000, 0.35), (300_000, 600_000, 0.3), (1 * MIB, 2 * MIB, 0.3))
PATTERN = 4 * MIB
AS_FULL_AS = 0.85  # of the first time, each later one


@functools.cache
def pattern() -> bytes:
    """Values are pieces of this: twice as long as the largest, so that two pieces of one length differ."""
    return noise(PATTERN, 3)


def piece(number: int, size: int) -> bytes:
    start = number * 61 % (PATTERN - size)
    return pattern()[start : start + size]


def mixed(rng: random.Random, largest: int) -> Callable[[], int]:
    """Draws sizes so that each kind has its share of the bytes; none is larger than `largest`."""
    kinds = [(least, min(most, largest)) for least, most, _ in MIX if least <= largest]
    weights = [share / (least + most) for (least, most), (_, _, share) in zip(kinds, MIX, strict=False)]
    return lambda: rng.randint(*rng.choices(kinds, weights)[0])


def fill(store: Store, rng: random.Random, largest: int) -> dict[str, int]:
    """Values of mixed sizes until the store is full: their sizes."""
    draw, sizes = mixed(rng, largest), {}
    try:
        while True:
            number, size = len(sizes), draw()
            store[f"{number:x}"] = piece(number, size)
            sizes[f"{number:x}"] = size
    except StoreFullError:
        return sizes


def read_all(store: Store, sizes: dict[str, int]) -> None:
    assert len(store) == len(sizes)
    for number, (key, size) in enumerate(sizes.items()):
        assert store[key] == piece(number, size), f"{key!r} holds something else"


def empty(store: Store, sizes: dict[str, int], way: int, rng: random.Random) -> None:
    """In one of four ways."""
    keys = list(sizes)
    if way % 4 == 0:
        store.clear()
    elif way % 4 == 1:
        rng.shuffle(keys)
        for key in keys:
            del store[key]
    elif way % 4 == 2:
        assert sum(store.delete_many(keys[start : start + 500]) for start in range(0, len(keys), 500)) == len(keys)
    else:
        for _ in keys:
            store.popitem()
    assert len(store) == 0


def fill_and_empty(size: int, rounds: int, seed: int = 4) -> Figures:
    """A store is filled with mixed sizes and emptied, so many times; every value is read back."""
    make_sure_of(size)
    most, stored, items = min(2 * MIB, size // 16), [], 0
    with nothing_grows(64 * MIB), temporary_store(size=size) as store:
        for turn in range(rounds):
            sizes = fill(store, random.Random(seed), most)
            stored.append(sum(sizes.values()))
            items += len(sizes)
            assert stored[-1] >= stored[0] * AS_FULL_AS, f"bytes that it was full with, round by round: {stored}"
            read_all(store, sizes)
            check(store)
            empty(store, sizes, turn, random.Random(seed))
            check(store)
    return {"rounds": rounds, "mixed_items": items, "mixed_bytes": sum(stored), "largest_store_bytes": size}


# ---- Handles and processes that come and go ------------------------------------------------------


def attach_detach(count: int) -> Figures:
    """So many handles, one after the other: beside a handle that stays and alone, read-only, idle and writing."""
    with temporary_store() as store:
        name, each = store.name, count // 4
        store["writes"] = 0
        for _ in range(100):  # what the process makes once, and for each store that is forked with
            Store.attach(name).close()
        Forked(os.getpid).result()
        with nothing_grows():
            for _ in range(each):
                Store.attach(name).close()
            for _ in range(each):
                with Store.attach(name, readonly=True) as reader:
                    assert reader["writes"] == 0
            for _ in range(each):
                with Store.attach(name) as writer:
                    writer.incr("writes")
            assert [one.pid for one in store.processes()] == [os.getpid()]
        used = store.stats().used
        with nothing_grows():
            assert Forked(alone, name, each).result(600) == 2 * each
        assert store["writes"] == 2 * each
        assert store.stats().used <= used + MIB, "what a process takes for its writes was not given back"
        assert store.check().dead_slots <= 1
    return {"handles": 4 * each}


def alone(name: str, count: int) -> int:
    """In a child, where each handle is the only one of its process: each registers and leaves."""
    for _ in range(count):
        with Store.attach(name) as store:
            written = store.incr("writes")
    return written


def come(name: str, number: int, arrived: SharedInts, word: int) -> None:
    """One process: attaches, writes, waits for all others, and goes in one of four ways."""
    store = Store.attach(name)
    store.incr("came")
    store["page"] = b"%d " % number * 1_500
    store.put_many({f"by {number % 64}": number, "last": number})
    arrived[number] = 1
    os.read(word, 1)  # asleep: a thousand that look again and again are the whole load of a machine
    if number % 4 == 0:
        store.close()
    elif number % 4 == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    elif number % 4 == 2:
        os._exit(0)


def crowd(store: Store, count: int) -> float:
    """So many at once; how many milliseconds the first put takes when all are gone."""
    arrived, (word, give) = SharedInts(count), os.pipe()
    children = [Forked(come, store.name, number, arrived, word) for number in range(count)]
    wait_until(lambda: sum(arrived) == count, 600, "the arrival of all")
    assert {one.pid for one in store.processes()} == {os.getpid(), *(child.pid for child in children)}
    os.write(give, b"." * count)
    ends = [child.wait(600) for child in children]
    assert ends == [-signal.SIGKILL if number % 4 == 1 else 0 for number in range(count)]
    os.close(word), os.close(give)
    assert [one.pid for one in store.processes()] == [os.getpid()], "processes that have ended are told to be there"
    start = time.monotonic()
    store["after"] = count
    return (time.monotonic() - start) * 1_000


def processes(count: int, at_once: int) -> Figures:
    """So many come and go, a quarter of them by SIGKILL; each group goes when it is complete."""
    make_sure_of(at_once * 4 * MIB)
    groups = count // at_once
    with nothing_grows(), temporary_store() as store:
        store.put_many({"came": 0, "page": b"0 " * 1_500, "last": 0} | {f"by {number}": 0 for number in range(64)})
        used, slowest = store.stats().used, 0.0
        for _ in range(groups):
            slowest = max(slowest, crowd(store, at_once))
            check(store)
        assert store["came"] == groups * at_once
        store.update((f"new {number}", b"x" * 8_000) for number in range(512))  # growth looks for what the dead kept
        store.delete_many([f"new {number}" for number in range(512)])
        assert store.stats().used <= used + 2 * MIB, "what processes kept for themselves was not given back"
    return {"processes": groups * at_once, "largest_crowd": at_once, "longest_put_after_ms": slowest}


# ---- The run -------------------------------------------------------------------------------------

SCENES: tuple[Callable[[], Figures], ...] = (
    functools.partial(attach_detach, 100_000),
    functools.partial(one_large, GIB),
    functools.partial(one_large_on_disk, GIB),
    functools.partial(fill_and_empty, 8 * GIB, 10),
    functools.partial(many_keys, 50_000_000),
    lambda: join(processes(1_000, 50), processes(1_000, 1_000)),
)


def run(part: int, scratch: Path) -> Figures:
    return SCENES[part]()


CAMPAIGN = Campaign(
    name="scale",
    claim="What holds for a small store holds for 50,000,000 items, for one value of 1 GiB, for 8 GiB filled and "
    "emptied ten times, and after 100,000 handles and 1,000 processes: every value is right, and nothing is left "
    "behind.",
    how="Each part is one scene in a store of its own. Every value is read back, check() is clean after each step, and "
    "afterwards the process has no more descriptors, mappings and memory than before, and /dev/shm no name. A store "
    "that was emptied is filled again at least 85 % as full as at first.",
    parts=len(SCENES),
    run=run,
    at_least={
        "tiny_items": 50_000_000,
        "largest_value_bytes": GIB,
        "rounds": 10,
        "largest_store_bytes": 8 * GIB,
        "handles": 100_000,
        "processes": 2_000,
        "largest_crowd": 1_000,
    },
)

"""A forked child may simply go on using the handle, whatever the parent's threads were doing."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from helpers import (
    ChildFailed,
    Forked,
    check,
    finish,
    in_fork,
    region_path,
    run_python,
    sealed,
    start_python,
    unseal,
    wait_until,
)

from shmkv import Store


def test_parent_and_child_share_the_store(store: Store) -> None:
    store["k"] = "parent"

    def child() -> int:
        assert store["k"] == "parent"
        store["k"] = "child"
        store.put_many({f"{i}": i for i in range(1000)})
        return len(store)

    assert in_fork(child) == 1001
    assert store["k"] == "child"
    assert len(store) == 1001


def test_a_child_that_closes_leaves_the_parents_handle_alone(store: Store) -> None:
    def child() -> None:
        store["k"] = 1
        store.close()

    in_fork(child)
    assert store["k"] == 1
    store["k"] = 2
    assert store["k"] == 2


def test_a_parent_that_closes_leaves_the_childs_handle_alone(name: str) -> None:
    store = Store.create(name, size="4MiB")
    read, write = os.pipe()

    def child() -> int:
        os.close(write)
        os.read(read, 1)
        store["k"] = 1
        return len(store)

    forked = Forked(child)
    store.close()
    os.write(write, b".")
    assert forked.result() == 1
    os.close(read), os.close(write)
    with Store.attach(name) as again:
        assert again["k"] == 1


def test_child_of_child_of_child(store: Store) -> None:
    def descend(levels: int) -> int:
        store[f"level {levels}"] = os.getpid()
        store.incr("count")
        below = in_fork(descend, levels - 1) if levels else 0
        store.incr("count")
        return below + 1

    assert in_fork(descend, 4) == 5
    assert store["count"] == 10
    assert len(store) == 6
    assert len({store[f"level {i}"] for i in range(5)}) == 5


def test_each_process_counts_for_itself(store: Store) -> None:
    """Two that took each other for one would give the same blocks away twice."""

    def write(me: int) -> None:
        for i in range(3000):
            store[f"{me}:{i}"] = sealed(f"{me}:{i}", i, 50 + i % 300)

    store["before"] = 1
    children = [Forked(write, me) for me in range(3)]
    write(3)
    assert store.stats().processes >= 1
    for child in children:
        child.result()
    for me in range(4):
        for i in range(3000):
            assert unseal(f"{me}:{i}", store[f"{me}:{i}"]) == i
    check(store)


@pytest.mark.slow
def test_fork_while_threads_write(store: Store) -> None:
    stop = threading.Event()
    faults: list[BaseException] = []
    counts = [0, 0, 0]

    def write(me: int) -> None:
        try:
            number = 0
            while not stop.is_set():
                number += 1
                key = f"{me}:{number % 500}"
                store[key] = sealed(key, number, 20 + number % 2000)
                store.put_many({f"b{me}:{i}": number for i in range(20)})
                if number % 7 == 0:
                    store.delete_many([f"{me}:{number % 300}", f"{me}:{number % 299}"])
                counts[me] = number
        except BaseException as fault:
            faults.append(fault)

    def child(turn: int) -> None:
        for i in range(150):
            key = f"child:{turn}:{i}"
            store[key] = sealed(key, i, 20 + i * 9)
            assert unseal(key, store[key]) == i
            batch = store.get_many([f"b0:{n}" for n in range(20)])
            assert len(set(batch.values())) <= 1
        for key, value in list(store.items()):
            if isinstance(value, bytes):
                unseal(key, value)

    threads = [threading.Thread(target=write, args=(me,)) for me in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(25):
            in_fork(child, turn, timeout=30)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not faults, faults[0]
    assert all(counts)
    for turn in range(25):
        for i in range(150):
            assert unseal(f"child:{turn}:{i}", store[f"child:{turn}:{i}"]) == i
    check(store)


def test_fork_in_the_middle_of_a_walk(store: Store) -> None:
    store.put_many({f"{i}": i for i in range(2000)})
    walk = iter(store.items())
    seen = [next(walk)[0] for _ in range(100)]

    def child() -> int:
        store["from child"] = 1
        return sum(key != "from child" for key, _ in walk)

    assert in_fork(child) == 1900
    seen += [key for key, _ in walk if key != "from child"]
    assert len(seen) == len(set(seen)) == 2000


def test_threads_of_the_child(store: Store) -> None:
    store["n"] = 0

    def child() -> None:
        threads = [threading.Thread(target=lambda: [store.incr("n") for _ in range(1000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    children = [Forked(child), Forked(child)]
    child()
    for forked in children:
        forked.result()
    assert store["n"] == 12_000


def test_forks_made_in_c(store: Store) -> None:
    """os.register_at_fork hears nothing of them."""
    run_python(
        """
import ctypes, os, sys
from shmkv import Store
store = Store.attach(sys.argv[1])
store["parent"] = 1
libc = ctypes.PyDLL(None)
pids = []
for number in range(5):
    pid = libc.fork()
    if pid == 0:
        try:
            for i in range(2000):
                store[f"{number}:{i}"] = bytes([number]) * (i % 300)
            store.put_many({f"{number}:batch": number, f"{number}:other": number})
            os._exit(0)
        finally:
            os._exit(1)
    pids.append(pid)
for i in range(2000):
    store[f"parent:{i}"] = b"p" * (i % 300)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
for number in range(5):
    for i in range(2000):
        assert store[f"{number}:{i}"] == bytes([number]) * (i % 300)
for i in range(2000):
    assert store[f"parent:{i}"] == b"p" * (i % 300)
""",
        store.name,
    )
    check(store)


def test_the_child_outlives_the_parent(store: Store) -> None:
    process = start_python(
        """
import os, sys, time
from shmkv import Store
store = Store.attach(sys.argv[1])
parent = os.getpid()
store["parent"] = parent
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.001)
    for i in range(5000):
        store[f"{i}"] = i
    store["child done"] = 1
    os._exit(0)
import signal
os.kill(os.getpid(), signal.SIGKILL)
""",
        store.name,
    )
    finish(process)
    wait_until(lambda: "child done" in store, 30)
    assert all(store[f"{i}"] == i for i in range(5000))
    # the dead parent's place is taken back though its child, with copies of all its descriptors, may live
    store.compact()
    check(store)


def test_a_parents_death_is_noticed_while_its_child_lives(store: Store) -> None:
    """The child has copies of all descriptors of the parent, but not its life."""
    code = """
import os, sys, time
from shmkv import Store
store = Store.attach(sys.argv[1])
store["warm"] = 1
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
print(pid, flush=True)
number = 0
while True:
    number += 1
    store.put_many({f"{i}": number for i in range(2000)})
"""
    for _ in range(6):
        process = start_python(code, store.name)
        assert process.stdout
        sleeper = int(process.stdout.readline())
        wait_until(lambda: "0" in store)
        time.sleep(0.03)
        process.kill()
        process.wait()
        try:
            for i in range(0, 2000, 97):
                store[f"{i}"] = store[f"{i}"]
            assert len(set(store.get_many([f"{i}" for i in range(1, 90)]).values())) == 1
        finally:
            os.kill(sleeper, signal.SIGKILL)
            finish(process)
        store.clear()
    store.compact()
    assert store.stats().processes == 1


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit(0)", "raise SystemExit(1)", "pass"])
def test_a_private_store_stays_when_a_forked_child_ends(ending: str) -> None:
    out = run_python(
        f"""
import os, sys
from helpers import region_path
from shmkv import Store
store = Store()
store["k"] = 1
pid = os.fork()
if pid == 0:
    store["k"] = 2
    {ending}
    sys.exit(0)
os.waitpid(pid, 0)
assert region_path(store).exists()
assert store["k"] == 2
with Store.attach(store.name) as again:
    assert again["k"] == 2
path = region_path(store)
store.close()
assert not path.exists()
print("fine")
"""
    )
    assert out.strip() == "fine"


def test_a_child_that_closes_a_private_store_does_not_remove_it() -> None:
    with Store() as store:
        store["k"] = 1
        in_fork(store.close)
        assert region_path(store).exists()
        assert store["k"] == 1
        assert in_fork(lambda: store["k"]) == 1


def test_user_code_that_closes_every_descriptor(store: Store) -> None:
    """A daemon closes what it does not know: values stay right, nobody takes it for dead."""

    def child() -> None:
        store["k"] = 1
        os.closerange(3, 4096)
        for i in range(3000):
            store[f"{i}"] = sealed(f"{i}", i, 100 + i % 500)
        store.put_many({f"b{i}": i for i in range(100)})
        assert all(unseal(f"{i}", store[f"{i}"]) == i for i in range(3000))
        os._exit(0)

    forked = Forked(child)
    for i in range(2000):
        store[f"parent:{i}"] = i
        if i % 100 == 0:
            store.compact()
    assert forked.wait() == 0
    assert all(unseal(f"{i}", store[f"{i}"]) == i for i in range(3000))
    check(store)


def test_many_children_at_once(store: Store) -> None:
    def child(me: int) -> None:
        for i in range(100):
            store[f"{me}:{i}"] = (me, i)

    children = [Forked(child, me) for me in range(40)]
    for forked in children:
        forked.result()
    assert len(store) == 4000
    assert all(store[f"{me}:{i}"] == (me, i) for me in range(40) for i in range(100))
    store.compact()
    assert store.stats().processes == 1


def test_fork_helper_reports_failures() -> None:
    with pytest.raises(ChildFailed, match="ZeroDivisionError"):
        in_fork(lambda: 1 / 0)

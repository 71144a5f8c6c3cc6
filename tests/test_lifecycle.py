"""A store's life: create, attach, close, unlink, what remains and what does not."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    MIB,
    Forked,
    SharedInts,
    check,
    finish,
    in_fork,
    region_path,
    run_python,
    start_python,
    store_names,
    unique_name,
)

import shmkv
from shmkv import (
    ClosedStoreError,
    Store,
    StoreExistsError,
    StoreNotFoundError,
    TooManyProcessesError,
)

# ---- Create and attach -----------------------------------------------------------------------


def test_create_then_attach(name: str) -> None:
    with Store.create(name, size="4MiB") as store:
        store["k"] = 1
        assert store.name == name
        assert store.stats().size == 4 * MIB
    with Store.attach(name) as again:
        assert again["k"] == 1
        assert again.stats().size == 4 * MIB


def test_create_refuses_what_exists(name: str) -> None:
    with Store.create(name, size="4MiB") as store:
        store["k"] = 1
        with pytest.raises(StoreExistsError) as exists:
            Store.create(name, size="4MiB")
        assert isinstance(exists.value, FileExistsError)
        assert name in str(exists.value)
        with Store.create(name, size="4MiB", exist_ok=True) as same:
            assert same["k"] == 1


def test_store_creates_or_attaches(name: str) -> None:
    with Store(name, size="4MiB") as one, Store(name, size=4 * MIB) as two, Store(name) as three:
        one["k"] = 1
        assert two["k"] == three["k"] == 1


@pytest.mark.parametrize("option", ["size", "mode", "on_full"])
def test_another_explicit_value_is_refused(name: str, option: str) -> None:
    with Store(name, size="4MiB", mode=0o600, on_full="error"):
        other: Any = {"size": "8MiB", "mode": 0o640, "on_full": "evict"}[option]
        with pytest.raises(StoreExistsError) as exists:
            Store(name, **{option: other})
        if option == "size":
            text = str(exists.value)
            assert "4" in text
            assert "8" in text
        with pytest.raises(StoreExistsError):
            Store.create(name, exist_ok=True, **{option: other})


def test_attach_to_nothing() -> None:
    name = unique_name()
    for call in (Store.attach, Store.unlink_name):
        with pytest.raises(StoreNotFoundError) as missing:
            call(name)
        assert isinstance(missing.value, FileNotFoundError)
        assert name in str(missing.value)
    assert name not in store_names()


@pytest.mark.parametrize("name", ["", "a/b", "../a", "/a", "a b", "ä", "a\0b", "a\n", "x" * 201, "a*"])
def test_names_that_cannot_be(name: str) -> None:
    for call in (Store, Store.create, Store.attach, Store.unlink_name):
        with pytest.raises(ValueError, match="200 characters"):
            call(name)


@pytest.mark.parametrize("end", ["x" * 150, "._-", "...", "A.b_c-9"])
def test_names_that_can_be(end: str) -> None:
    name = (unique_name() + end)[:200]
    with Store.create(name, size="1MiB") as store:
        assert name in store_names()
        assert store.name == name
        store.unlink()


def test_a_name_of_200_characters() -> None:
    name = unique_name().ljust(200, "x")
    with Store.create(name, size="1MiB") as store:
        assert name in store_names()
        store.unlink()


@pytest.mark.parametrize("name", [5, b"bytes", ["a"]], ids=repr)
def test_names_of_another_type(name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Store(name)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2MiB", 2 * MIB), (3 * MIB, 3 * MIB), ("2048KiB", 2 * MIB), ("2 MiB", 2 * MIB), ("0.5GiB", 512 * MIB),
     ("64mib", 64 * MIB), ("5000000", 5_000_000), ("5MB", 5_000_000)],
)  # fmt: skip
def test_sizes(name: str, text: Any, size: int) -> None:
    with Store.create(name, size=text) as store:
        assert size - 65_536 <= store.stats().size <= size


@pytest.mark.parametrize(
    "size",
    ["", "much", "5XiB", "-1MiB", 0, -1, "0", 1000, "nanMiB", "infGiB", 2**60, "99999TiB", float("nan")],
    ids=repr,
)
def test_sizes_that_cannot_be(size: Any) -> None:
    name = unique_name()
    with pytest.raises((ValueError, TypeError)):
        Store.create(name, size=size)
    assert name not in store_names()


def test_default_size_is_at_most_1_gib() -> None:
    with Store() as store:
        assert 1 * MIB < store.stats().size <= 1024 * MIB


def test_an_empty_store_takes_little(make_store: Callable[..., Store]) -> None:
    for size in (16 * MIB, 1024 * MIB):
        store = make_store(size=size)
        blocks = region_path(store).stat().st_blocks * 512
        assert blocks <= MIB + 0.0015 * size


def test_the_region_is_its_owners_alone(make_store: Callable[..., Store]) -> None:
    private = region_path(make_store()).stat()
    assert stat.S_IMODE(private.st_mode) == 0o600
    assert private.st_uid == os.geteuid()
    old = os.umask(0o077)
    try:
        shared = region_path(make_store(mode=0o660)).stat()
    finally:
        os.umask(old)
    assert stat.S_IMODE(shared.st_mode) == 0o660


def test_list_stores() -> None:
    name = unique_name()
    assert name not in store_names()
    store = Store.create(name, size="1MiB")
    assert name in store_names()
    store.close()
    assert name in store_names()
    Store.unlink_name(name)
    assert name not in store_names()


# ---- Close -----------------------------------------------------------------------------------


def test_close_is_idempotent_and_removes_nothing(name: str) -> None:
    store = Store.create(name, size="2MiB")
    store["k"] = 1
    assert store.closed is False
    store.close()
    store.close()
    assert store.closed is True
    with Store.attach(name) as again:
        assert again["k"] == 1


CALLS: dict[str, Callable[[Store], Any]] = {
    "getitem": lambda s: s["k"],
    "setitem": lambda s: s.__setitem__("k", 1),
    "delitem": lambda s: s.__delitem__("k"),
    "contains": lambda s: "k" in s,
    "len": lambda s: len(s),
    "iter": lambda s: list(s),
    "keys": lambda s: list(s.keys()),
    "values": lambda s: list(s.values()),
    "items": lambda s: list(s.items()),
    "get": lambda s: s.get("k"),
    "put": lambda s: s.put("k", 1),
    "set": lambda s: s.set("k", 1),
    "add": lambda s: s.add("k", 1),
    "replace": lambda s: s.replace("k", 1),
    "delete": lambda s: s.delete("k"),
    "pop": lambda s: s.pop("k", None),
    "popitem": lambda s: s.popitem(),
    "setdefault": lambda s: s.setdefault("k", 1),
    "update": lambda s: s.update(k=1),
    "clear": lambda s: s.clear(),
    "incr": lambda s: s.incr("n"),
    "decr": lambda s: s.decr("n"),
    "gets": lambda s: s.gets("k"),
    "cas": lambda s: s.cas("k", 1, 1),
    "touch": lambda s: s.touch("k", 1),
    "persist": lambda s: s.persist("k"),
    "ttl": lambda s: s.ttl("k"),
    "content_type": lambda s: s.content_type("k"),
    "get_many": lambda s: s.get_many(["k"]),
    "put_many": lambda s: s.put_many({"k": 1}),
    "delete_many": lambda s: s.delete_many(["k"]),
    "scan": lambda s: list(s.scan()),
    "range": lambda s: s.range(),
    "stats": lambda s: s.stats(),
    "check": lambda s: s.check(),
    "compact": lambda s: s.compact(),
    "shared_memory": lambda s: s.shared_memory(),
    "with": lambda s: s.__enter__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_use_after_close(name: str, call: str) -> None:
    store = Store.create(name, size="2MiB")
    store["k"] = 1
    store.close()
    with pytest.raises(ClosedStoreError) as closed:
        CALLS[call](store)
    assert isinstance(closed.value, ValueError)
    with Store.attach(name) as again:
        assert dict(again) == {"k": 1}


def test_repr_works_after_close(name: str) -> None:
    store = Store.create(name, size="2MiB")
    store.close()
    assert name in repr(store)
    assert "closed" in repr(store)


def test_with_closes(name: str) -> None:
    with Store.create(name, size="2MiB") as store:
        store["k"] = 1
    assert store.closed
    with pytest.raises(RuntimeError), Store.attach(name) as again:
        raise RuntimeError
    assert again.closed


def test_closing_in_the_middle_of_a_scan(name: str) -> None:
    store = Store.create(name, size="2MiB")
    store.put_many({f"{i}": i for i in range(1000)})
    keys, items = store.scan(), iter(store.items())
    next(keys), next(items)
    store.close()
    for walk in (keys, items):
        with pytest.raises(ClosedStoreError):
            for _ in walk:
                pass


def test_handles_of_one_process_close_apart(name: str) -> None:
    one = Store.create(name, size="2MiB")
    two = Store.attach(name)
    assert one.stats().processes == 1
    one.close()
    two["k"] = 1
    assert two["k"] == 1
    assert two.stats().processes == 1
    two.close()


def test_init_twice_does_no_harm(name: str) -> None:
    with Store.create(name, size="2MiB") as store:
        store["k"] = 1
        with contextlib.suppress(Exception):
            store.__init__(name)  # type: ignore[misc]
        assert store["k"] == 1


# ---- Unlink ----------------------------------------------------------------------------------


def test_unlink_lets_attached_ones_go_on(name: str) -> None:
    store = Store.create(name, size="4MiB")
    store["k"] = 1
    with Store.attach(name) as other:
        store.unlink()
        assert name not in store_names()
        other["l"] = 2
        assert dict(store) == {"k": 1, "l": 2}
        store.update({f"{i}": i for i in range(10_000)})
        assert len(other) == 10_002
        check(other)
        with pytest.raises(StoreNotFoundError):
            Store.attach(name)
        with Store.create(name, size="2MiB") as fresh:
            assert len(fresh) == 0
            fresh["k"] = "fresh"
            assert store["k"] == 1
    assert in_fork(lambda: store["l"]) == 2
    store.close()


def test_unlink_twice(name: str) -> None:
    with Store.create(name, size="2MiB") as store:
        store.unlink()
        with Store.create(name, size="2MiB") as fresh:
            fresh["k"] = 1
            with contextlib.suppress(StoreNotFoundError):
                store.unlink()
            assert name in store_names(), "unlink of an old handle removed the new store of that name"


def test_closed_handles_can_still_be_unlinked_by_name(name: str) -> None:
    Store.create(name, size="2MiB").close()
    Store.unlink_name(name)
    assert name not in store_names()


# ---- Private stores --------------------------------------------------------------------------


def test_a_private_store_goes_when_it_is_closed() -> None:
    store, other = Store(), Store()
    assert store.name != other.name
    store["k"] = 1
    assert "k" not in other
    path = region_path(store)
    assert path.exists()
    store.close()
    assert not path.exists()
    other.close()


def test_a_private_store_goes_when_its_creator_ends() -> None:
    out = run_python(
        """
from helpers import region_path
from shmkv import Store
store = Store()
store["k"] = 1
print(region_path(store))
"""
    )
    assert out.strip()
    assert not Path(out.strip()).exists()


def test_a_private_store_goes_when_its_creator_fails() -> None:
    process = start_python(
        """
from helpers import region_path
from shmkv import Store
store = Store()
print(region_path(store), flush=True)
raise RuntimeError("on purpose")
"""
    )
    out, err, status = finish(process)
    assert status == 1
    assert "on purpose" in err
    assert out.strip()
    assert not Path(out.strip()).exists()


def test_a_killed_creators_private_store_goes_at_the_next_one() -> None:
    process = start_python(
        """
import os, signal
from helpers import region_path
from shmkv import Store
store = Store()
store["k"] = 1
print(region_path(store), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    out, _, status = finish(process)
    assert status == -signal.SIGKILL
    path = Path(out.strip())
    assert path.exists()
    living = Store()
    with Store():
        assert not path.exists()
        assert region_path(living).exists(), "a private store of a living process was removed"
    living.close()


def test_a_private_store_can_be_shared_by_name() -> None:
    with Store() as store:
        store["k"] = 1
        assert in_fork(lambda: Store.attach(store.name)["k"]) == 1
        out = run_python("import sys; from shmkv import Store; print(Store.attach(sys.argv[1])['k'])", store.name)
        assert out.strip() == "1"
        assert store["k"] == 1
        assert region_path(store).exists()


def test_a_named_store_stays_when_its_creator_ends(name: str) -> None:
    run_python("import sys; from shmkv import Store; Store(sys.argv[1], size='2MiB')['k'] = 1", name)
    with Store.attach(name) as store:
        assert store["k"] == 1


# ---- Two at once, many in a row -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["Store", "create"])
def test_two_that_create_at_once_get_one_store(how: str) -> None:
    rounds = 150
    base = unique_name()
    step = SharedInts(2)

    def take_part(me: int) -> list[Any]:
        created = []
        for number in range(rounds):
            step[me] = number + 1
            while step[1 - me] <= number:
                pass
            name = f"{base}-{number}"
            try:
                store = Store(name, size="2MiB") if how == "Store" else Store.create(name, size="2MiB")
                created.append(True)
            except StoreExistsError:
                store = Store.attach(name)
                created.append(False)
            store[f"{me}"] = number
            store.incr("both")
            store.close()
        return created

    children = [Forked(take_part, me) for me in range(2)]
    try:
        one, two = (child.result() for child in children)
        if how == "create":
            assert all(a != b for a, b in zip(one, two, strict=False))
        for number in range(rounds):
            with Store.attach(f"{base}-{number}") as store:
                assert dict(store) == {"0": number, "1": number, "both": 2}
                if number % 25 == 0:
                    check(store)
    finally:
        for name in store_names():
            if name.startswith(base):
                Store.unlink_name(name)


def test_creating_and_unlinking_against_each_other(name: str) -> None:
    """Whoever gets a store gets a whole one; the fixture checks what is left under the name."""

    def take_part() -> None:
        for _ in range(150):
            store = Store(name, size="2MiB")
            store["k"] = os.getpid()
            assert store["k"] is not None
            with contextlib.suppress(StoreNotFoundError):
                Store.unlink_name(name)
            store.close()

    children = [Forked(take_part) for _ in range(3)]
    for child in children:
        child.result()


def _open_things() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("\n")


def test_a_thousand_attachments_leak_nothing(name: str) -> None:
    store = Store.create(name, size="16MiB")
    for _ in range(20):
        Store.attach(name).close()
    before = _open_things()
    for i in range(1000):
        with Store.attach(name) as handle:
            handle["k"] = i
    after = _open_things()
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 2
    assert store.stats().processes == 1
    assert store["k"] == 999
    store.close()
    for i in range(1000):
        with Store.attach(name) as handle:
            handle["k"] = i
    assert _open_things()[0] <= before[0]


def test_dropped_handles_leak_nothing(name: str) -> None:
    Store.create(name, size="16MiB").close()
    for _ in range(20):
        Store.attach(name)["k"] = 1
    before = _open_things()
    for i in range(300):
        Store.attach(name)["k"] = i
    after = _open_things()
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 2


def test_failed_calls_leak_nothing(name: str) -> None:
    Store.create(name, size="16MiB").close()
    before = _open_things()[0]
    for _ in range(100):
        for call in (lambda: Store.attach(name + "x"), lambda: Store.create(name), lambda: Store(name, size="1MiB")):
            with pytest.raises((StoreNotFoundError, StoreExistsError)):
                call()
    assert _open_things()[0] <= before


@pytest.mark.slow
def test_more_processes_than_slots_in_a_row(store: Store) -> None:
    """1,100 processes that end without a close: each slot serves again."""
    run_python(
        """
import os, sys
from shmkv import Store
store = Store.attach(sys.argv[1])
for i in range(1100):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store[f"{i}"] = i
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0, f"the {i}th process failed"
""",
        store.name,
    )
    assert len(store) == 1100
    assert store.stats().sets == 1100
    store.compact()
    assert store.stats().processes == 1


@pytest.mark.slow
def test_too_many_processes(store: Store) -> None:
    """1,023 slots: one more process is told so; once one has ended there is room again."""
    out = run_python(
        """
import os, signal, sys
from shmkv import Store, TooManyProcessesError
name = sys.argv[1]
store = Store.attach(name)
store["me"] = 1
read, write = os.pipe()
full, pids = 0, []
for i in range(1060):
    pid = os.fork()
    if pid == 0:
        status = b"?"
        try:
            try:
                store[f"{i}"] = i
                status = b"."
            except TooManyProcessesError:
                assert store["me"] == 1 or True
                status = b"x"
        finally:
            os.write(write, status)
            signal.pause()
            os._exit(0)
    pids.append(pid)
    if (answer := os.read(read, 1)) == b"x":
        break
    assert answer == b".", (i, answer)
print(i)
os.kill(pids[3], signal.SIGKILL)
os.waitpid(pids[3], 0)
pid = os.fork()
if pid == 0:
    try:
        store["again"] = 1
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)
status = os.waitpid(pid, 0)[1]
for pid in pids:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
assert status == 0, status
""",
        store.name,
        timeout=120,
    )
    assert 1015 <= int(out) <= 1023
    assert store["again"] == 1
    store.compact()
    assert store.stats().processes == 1


def test_slots_are_given_back_by_threads_that_close(store: Store) -> None:
    def attach_and_close() -> None:
        for _ in range(50):
            with Store.attach(store.name) as handle:
                handle.incr("n")

    threads = [threading.Thread(target=attach_and_close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert store["n"] == 400
    assert store.stats().processes == 1


def test_errors_are_exported() -> None:
    assert issubclass(TooManyProcessesError, shmkv.ShmkvError)

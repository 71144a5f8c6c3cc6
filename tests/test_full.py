"""No room: in the store, in the file system, in the memory control group. Always an error, never a loss."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import MIB, check, fill, run_python, store_names, unique_name

from shmkv import Store, StoreFullError, _core

pytestmark = pytest.mark.slow

# ---- The store is full -----------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 20, 100, 1000, 5000, 50_000, 300_000])
def test_full_then_usable_again(make_store: Callable[..., Store], size: int) -> None:
    store = make_store(size="4MiB")
    first = fill(store, size)
    assert first * (size + 64) > 2 * MIB
    assert len(store) == first
    check(store)
    for i in range(0, first, 2):
        assert store.delete(f"fill:{i:08d}")
    again = fill(store, size, "more")
    assert again >= (first // 2) * 0.9
    assert all(store[f"fill:{i:08d}"] == b"v" * size for i in range(1, first, 2))
    store.clear()
    assert fill(store, size, "anew") >= first * 0.9


def test_room_of_one_size_serves_another(make_store: Callable[..., Store]) -> None:
    """Sizes come one after the other; what is free may be spread over every page."""
    store = make_store(size="8MiB")
    most = {}
    for size in (100, 3000, 60, 200_000, 700, 30_000, 100):
        count = fill(store, size)
        most.setdefault(size, count)
        assert count * (size + 60) > 4 * MIB, f"{count} values of {size} bytes"
        assert count >= most[size] * 0.9
        store.delete_many([f"fill:{i:08d}" for i in range(count)]) if count <= 65_536 else store.clear()


def test_scattered_room_serves_larger_values(make_store: Callable[..., Store]) -> None:
    """Three of four small items are deleted all over the pages: large values need them gathered."""
    store = make_store(size="8MiB")
    count = fill(store, 100)
    keep = {f"fill:{i:08d}" for i in range(0, count, 4)}
    for i in range(count):
        if i % 4:
            del store[f"fill:{i:08d}"]
    large = fill(store, 30_000, "large")
    assert large * 30_000 > 3 * MIB, f"{large} values of 30,000 bytes"
    assert store.get_many(keep) == dict.fromkeys(keep, b"v" * 100)


def fill_up(store: Store) -> None:
    for i in range(1_000_000):
        store[f"up:{i}"] = b"x" * 1000


def test_a_full_store_still_reads_and_deletes(make_store: Callable[..., Store]) -> None:
    """What only looks or removes never needs room; and what was removed makes room for writes."""
    store = make_store(size="2MiB")
    store.put("n", 1, ttl=1000)
    count = fill(store, 100)
    assert store["n"] == 1
    assert store.touch("n", 2000) is True
    assert store.persist("n") is True
    assert store.delete("fill:00000101") is True
    assert store.pop("fill:00000150") == b"v" * 100
    assert store.delete_many([f"fill:{i:08d}" for i in range(100)]) == 100
    assert store.incr("n") == 2
    for i in range(200, 400):
        store[f"fill:{i:08d}"] = b"w" * 100
    assert len(store) == count - 102 + 1
    fill(store, 100, "more")
    store.clear()
    assert len(store) == 0


def test_the_error_helps(make_store: Callable[..., Store]) -> None:
    store = make_store(size="2MiB")
    with pytest.raises(StoreFullError, match="size="):
        fill_up(store)


# ---- The file system is full: injected ---------------------------------------------------------


@pytest.fixture
def no_injection_left() -> Iterator[None]:
    yield
    _core.fail_commit(0)


def steps(store: Store, model: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """(what, the same on the store, the same on the model): an hour in the life of a store."""

    def put(key: str, value: bytes) -> tuple[str, Callable[[], Any], Callable[[], Any]]:
        return f"put {key}", lambda: store.put(key, value), lambda: model.update({key: value})

    for size in (10, 500, 9000, 70_000, 1_500_000):
        yield put(f"s{size}", b"x" * size)
    small = {f"b{i}": i for i in range(9000)}
    yield "put_many", lambda: store.put_many(small), lambda: model.update(small)
    mixed = {f"m{i}": bytes([i]) * (i * 700) for i in range(100)}
    yield "put_many of all sizes", lambda: store.put_many(mixed), lambda: model.update(mixed)
    yield "incr", lambda: store.incr("n"), lambda: model.update(n=model.get("n", 0) + 1)
    for i in range(3000):
        yield put(f"p{i}", b"y" * 300)
    gone = [f"b{i}" for i in range(0, 9000, 2)]
    yield "delete_many", lambda: store.delete_many(gone), lambda: [model.pop(key, None) for key in gone]
    yield "touch", lambda: store.touch("n", 1000), lambda: None
    yield "setdefault", lambda: store.setdefault("d", "x" * 100_000), lambda: model.setdefault("d", "x" * 100_000)
    yield "pop", lambda: store.pop("s70000", None), lambda: model.pop("s70000", None)
    yield "compact", lambda: store.compact(), lambda: None
    yield "clear", lambda: store.clear(), lambda: model.clear()
    for i in range(50):
        yield put(f"q{i}", b"z" * 60_000)


def run_steps(store: Store) -> int:
    """Every step either does what it does on the model, or raises StoreFullError and changes nothing."""
    model: dict[str, Any] = {}
    failed = 0
    for what, on_store, on_model in steps(store, model):
        try:
            on_store()
        except StoreFullError:
            failed += 1
            assert len(store) == len(model), what
            if failed < 20:
                assert dict(store) == model, what
                check(store)
        else:
            on_model()
    assert dict(store) == model
    check(store)
    return failed


def test_the_nth_commit_fails(make_store: Callable[..., Store], no_injection_left: None) -> None:
    """A put whose commit failed may still find room elsewhere; so n goes on to a fixed number."""
    for n in range(1, 31):
        store = make_store(size="32MiB")
        _core.fail_commit(n)
        assert run_steps(store) <= 1, "one failure was injected"
        _core.fail_commit(0)
        assert run_steps(store) == 0
        store.unlink()
        store.close()


def test_creation_when_nothing_can_be_allocated(no_injection_left: None) -> None:
    name = unique_name()
    for n in range(1, 50):
        _core.fail_commit(n)
        try:
            store = Store.create(name, size="16MiB")
        except StoreFullError:
            assert name not in store_names()
        else:
            break
        finally:
            _core.fail_commit(0)
    assert n > 1
    store["k"] = 1
    check(store)
    store.unlink()
    store.close()


# ---- The file system is full: really -----------------------------------------------------------


def _own_dev_shm(size: str) -> tuple[str, ...] | None:
    """A command prefix that runs something with a small /dev/shm of its own."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return None
    mount = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        return None
    return prefix


small_dev_shm = pytest.mark.skipif(_own_dev_shm("1m") is None, reason="mounting a small /dev/shm needs root")


def run_with_dev_shm(size: str, code: str) -> str:
    before = _own_dev_shm(size)
    assert before
    return run_python(code, before=before)


@small_dev_shm
def test_dev_shm_fills_up() -> None:
    out = run_with_dev_shm(
        "4m",
        """
import os
from shmkv import Store, StoreFullError
store = Store.create("small", size="64MiB")
count = 0
try:
    while True:
        store[f"{count}"] = b"x" * 500
        count += 1
except StoreFullError as error:
    text = str(error)
assert "/dev/shm" in text and "shm-size" in text, text
assert count > 3000, count
assert len(store) == count and all(store[f"{i}"] == b"x" * 500 for i in range(count))
try:
    store.put_many({f"{i}": b"y" * 2000 for i in range(count)})
except StoreFullError:
    pass
assert all(store[f"{i}"] == b"x" * 500 for i in range(count))
report = store.check(); assert report.ok, report.problems
for i in range(0, count, 2):
    del store[f"{i}"]
for i in range(0, count, 2):
    store[f"{i}"] = b"z" * 400
assert len(store) == count
store.clear()
big = 0
try:
    while True:
        store[f"big{big}"] = b"b" * 100_000
        big += 1
except StoreFullError:
    pass
assert big >= 15, big
report = store.check(); assert report.ok, report.problems
print("fine")
""",
    )
    assert out.strip() == "fine"


@small_dev_shm
def test_another_file_takes_the_room() -> None:
    out = run_with_dev_shm(
        "16m",
        """
import os
from shmkv import Store, StoreFullError
store = Store.create("small", size="64MiB")
store.put_many({f"{i}": b"x" * 100 for i in range(1000)})
with open("/dev/shm/hog", "wb", buffering=0) as hog:
    try:
        while True:
            hog.write(bytes(4096))
    except OSError:
        pass
count = 0
try:
    for i in range(100_000):
        store[f"new{i}"] = b"y" * 100
        count += 1
except StoreFullError:
    pass
else:
    raise SystemExit("no error")
assert len(store) == 1000 + count
assert store.get_many([f"{i}" for i in range(1000)]) == {f"{i}": b"x" * 100 for i in range(1000)}
assert len(list(store.items())) == len(store)
report = store.check(); assert report.ok, report.problems
os.unlink("/dev/shm/hog")
for i in range(20_000):
    store[f"new{i}"] = b"y" * 100
report = store.check(); assert report.ok, report.problems
print("fine")
""",
    )
    assert out.strip() == "fine"


@small_dev_shm
def test_no_room_from_any_point_on() -> None:
    """The file system is full after 0, 0.5, 1, ... MiB, for good; when there is room again all goes on."""
    out = run_with_dev_shm(
        "48m",
        """
import os
from helpers import MIB
from shmkv import Store
from test_full import run_steps
failed = []
for room in range(0, 30):
    with Store.create("small", size="32MiB") as store:
        store.unlink()
        free = os.statvfs("/dev/shm")
        with open("/dev/shm/hog", "wb") as hog:
            os.posix_fallocate(hog.fileno(), 0, max(4096, free.f_bavail * free.f_frsize - room * MIB // 2))
            failed.append(run_steps(store))
        os.unlink("/dev/shm/hog")
        assert run_steps(store) == 0
assert failed[0] > 3000 and failed[-1] == 0, failed
print("fine")
""",
    )
    assert out.strip() == "fine"


@small_dev_shm
def test_no_room_even_for_an_empty_store() -> None:
    out = run_with_dev_shm(
        "128k",
        """
import os, shmkv
from shmkv import Store, StoreFullError
for _ in range(3):
    try:
        Store.create("small", size="64MiB")
    except StoreFullError as error:
        assert "shm" in str(error), error
    else:
        raise SystemExit("no error")
    assert os.listdir("/dev/shm") == [], os.listdir("/dev/shm")
assert not list(shmkv.list_stores())
print("fine")
""",
    )
    assert out.strip() == "fine"


@small_dev_shm
def test_the_default_size_asks_what_is_free() -> None:
    out = run_with_dev_shm(
        "32m",
        """
from shmkv import Store
with Store() as store:
    print(store.stats().size)
""",
    )
    assert 8 * MIB <= int(out) <= 16 * MIB


# ---- The control group's memory is nearly used up ------------------------------------------------


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Iterator[str | None]:
    """The `cgroup.procs` of a new control group with that limit, or None where none can be made."""
    groups = dict(reversed(line.split(":", 2)[1:]) for line in Path("/proc/self/cgroup").read_text().splitlines())
    controllers = {kind: path for path, kind in groups.items()}
    name = f"shmkv-test-{os.getpid()}-{random.randrange(10**9)}"
    if "memory" in controllers:
        folder = Path("/sys/fs/cgroup/memory") / controllers["memory"].lstrip("/") / name
        limit_file = "memory.limit_in_bytes"
    else:
        folder = Path("/sys/fs/cgroup") / controllers.get("", "").lstrip("/") / name
        limit_file = "memory.max"
    made = False
    try:
        try:
            folder.mkdir()
            made = True
            (folder / limit_file).write_text(str(limit))
            usable = True
        except OSError:
            usable = False
        yield str(folder / "cgroup.procs") if usable else None
    finally:
        deadline = time.monotonic() + 5
        while made and time.monotonic() < deadline:
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def test_a_control_group_that_is_nearly_full() -> None:
    code = """
import sys
from shmkv import Store, StoreFullError
name = sys.argv[1]
store = Store.create(name, size="1GiB")
try:
    count = 0
    try:
        for count in range(1_000_000):
            store[f"{count}"] = b"x" * 1000
    except StoreFullError as error:
        text = str(error)
    else:
        raise SystemExit("no error")
    assert "cgroup" in text or "control group" in text or "container" in text, text
    assert count > 10_000, count
    assert len(store) == count
    assert all(store[f"{i}"] == b"x" * 1000 for i in range(count))
    report = store.check(); assert report.ok, report.problems
    for i in range(0, count, 2):
        del store[f"{i}"]
    for i in range(0, count, 4):
        store[f"{i}"] = b"y" * 1000
    print(count)
finally:
    store.unlink()
"""
    with memory_cgroup(96 * MIB) as procs:
        if procs is None:
            pytest.skip("no memory control group can be made here (it needs root and a writable cgroup file system)")
        name = unique_name()
        try:
            enter = ("sh", "-c", f'echo $$ > {procs} && exec "$@"', "sh")
            out = run_python(code, name, before=enter)
            assert 10_000 < int(out) < 96_000
        finally:
            if name in store_names():
                Store.unlink_name(name)

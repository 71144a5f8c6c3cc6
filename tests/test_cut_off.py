"""A region whose file somebody makes shorter: who has it open gets CorruptStoreError, and lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from helpers import MIB, region_path

from shmkv import CorruptStoreError, LogFailedError, Store

PRELUDE = """
import ctypes, faulthandler, os, signal, sys, threading
from shmkv import CorruptStoreError, LogFailedError, Store
name, path = sys.argv[1:3]
"""
ITEMS = {f"k{number}": b"x" * 100 for number in range(1000)} | {"large": b"L" * 1_000_000}

CUTS: dict[str, Callable[[Any], None]] = {
    "to nothing": lambda path: os.truncate(path, 0),
    "to its head": lambda path: os.truncate(path, 65_536),
    "and made long again": lambda path: (os.truncate(path, 0), os.truncate(path, 8 * MIB))[0],
}

CALLS = {
    "get": "store.get('k1')",
    "getitem": "store['k1']",
    "missing": "store.get('nothing')",
    "in": "'k1' in store",
    "gets": "store.gets('k1')",
    "get_many": "store.get_many(['k1', 'k2', 'large'])",
    "large": "store.get('large')",
    "items": "list(store.items())",
    "scan": "list(store.scan('k'))",
    "range": "store.range('k')",
    "len": "len(store)",
    "stats": "store.stats()",
    "ttl": "store.ttl('k1')",
}
WRITES = {
    "put": "store.put('k1', 1)",
    "new": "store.put('new', 1)",
    "large": "store.put('new', b'x' * 1_000_000)",
    "put_many": "store.put_many({'k1': 1, 'new': 2})",
    "update": "store.update(a=1)",
    "incr": "store.incr('counter')",
    "delete": "store.delete('k1')",
    "pop": "store.pop('k1')",
    "delete_many": "store.delete_many(['k1'])",
    "setdefault": "store.setdefault('k1', 2)",
    "add": "store.add('new', 2)",
    "cas": "store.cas('k1', 2, 1)",
    "touch": "store.touch('k1', 5)",
    "clear": "store.clear()",
}


@pytest.fixture
def cut_name(name: str) -> Any:
    """The name of a store with items, which a test may cut off."""
    with Store(name, size="8MiB") as store:
        store.update(ITEMS)
    yield name
    region_path(name).unlink(missing_ok=True)


def run(name: str, program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), name, str(region_path(name))],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


def survives(ran: subprocess.CompletedProcess[str], out: str) -> None:
    assert (ran.returncode, ran.stdout.strip()) == (0, out), ran.stderr


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("readonly", [True, False], ids=["reader", "writer"])
def test_every_call_says_so(cut_name: str, readonly: bool, cut: str) -> None:
    """One process for each cut: a call after another, each with a handle that was there before the cut."""
    calls = CALLS if readonly else {**CALLS, **{f"write {name}": call for name, call in WRITES.items()}}
    program = f"""
        store = Store.attach(name, readonly={readonly})
        assert store['k1'] == b'x' * 100
        print('ready', flush=True)
        sys.stdin.readline()
        for call in {list(calls.values())!r}:
            try:
                found = eval(call)
            except CorruptStoreError:
                continue
            print(call, 'gave', repr(found)[:60])
        store.close()
        print('lives')
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(program), cut_name, str(region_path(cut_name))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    CUTS[cut](region_path(cut_name))
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "lives\n"), err


def test_every_first_call_survives(cut_name: str) -> None:
    """Whatever it is that touches the lost pages first: each in a child of its own."""
    program = f"""
        for call in {[*CALLS.values(), *WRITES.values()]!r}:
            store = Store.attach(name)
            pid = os.fork()
            if pid == 0:
                os.truncate(path, 0)
                try:
                    eval(call)
                except CorruptStoreError:
                    os._exit(0)
                os._exit(1)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                print(call)
            store.close()
            os.unlink(path)
            Store(name, size='8MiB').update({{f'k{{n}}': b'x' * 100 for n in range(1000)}}, large=b'L' * 1_000_000)
        print('lives')
    """
    survives(run(cut_name, program), "lives")


def test_half_a_file(cut_name: str) -> None:
    """What is left may be read; what is not is an error; never another value."""
    program = """
        store = Store.attach(name, readonly=True)
        os.truncate(path, os.path.getsize(path) // 16)
        wrong = 0
        for number in range(1000):
            try:
                wrong += store.get(f'k{number}') != b'x' * 100
            except CorruptStoreError:
                pass
        try:
            store['large']
        except CorruptStoreError:
            print(wrong, 'lives')
    """
    survives(run(cut_name, program), "0 lives")


def test_holes_do_no_harm(cut_name: str) -> None:
    program = """
        store = Store.attach(name, readonly=True)
        fd = os.open(path, os.O_RDWR)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        assert libc.fallocate(fd, 3, 0, os.path.getsize(path)) == 0  # PUNCH_HOLE | KEEP_SIZE
        try:
            store.get('k1')
        except CorruptStoreError:
            print('lives')
    """
    survives(run(cut_name, program), "lives")


def test_threads_that_read_meanwhile(cut_name: str) -> None:
    program = """
        store = Store.attach(name, readonly=True)
        ended = []
        def read():
            try:
                while True:
                    for number in range(1000):
                        assert store[f'k{number}'] == b'x' * 100
                    assert store['large'] == b'L' * 1_000_000
            except CorruptStoreError:
                ended.append(1)
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads: thread.start()
        os.truncate(path, 0)
        for thread in threads: thread.join()
        print(len(ended))
    """
    survives(run(cut_name, program), "4")


@pytest.mark.parametrize("when", ["before", "after"])
def test_beside_faulthandler(cut_name: str, when: str) -> None:
    program = f"""
        if {when!r} == 'before': faulthandler.enable()
        store = Store.attach(name)
        if {when!r} == 'after': faulthandler.enable()
        os.truncate(path, 0)
        try:
            store['k1']
        except CorruptStoreError:
            print('lives')
    """
    survives(run(cut_name, program), "lives")


@pytest.mark.parametrize("raised", ["os.kill(os.getpid(), signal.SIGBUS)", "touch()"])
@pytest.mark.parametrize("traced", [True, False])
def test_another_bus_error_is_what_it_was(cut_name: str, raised: str, traced: bool) -> None:
    """Of a mapping that is not a region's, or sent: the process ends by it, after what faulthandler has to say."""
    program = f"""
        import mmap, tempfile
        def touch():
            file = tempfile.TemporaryFile()
            file.truncate(8192)
            memory = mmap.mmap(file.fileno(), 8192)
            file.truncate(0)
            return memory[0]
        if {traced}: faulthandler.enable()
        store = Store.attach(name)
        {raised}
        print('not ended')
    """
    ran = run(cut_name, program)
    assert ran.returncode == -signal.SIGBUS
    assert ran.stdout == ""
    assert ("Bus error" in ran.stderr) == traced


def test_a_handler_of_ones_own_stays(cut_name: str) -> None:
    program = """
        seen = []
        signal.signal(signal.SIGBUS, lambda number, frame: seen.append(number))
        store = Store.attach(name)
        os.kill(os.getpid(), signal.SIGBUS)
        os.truncate(path, 0)
        try:
            store['k1']
        except CorruptStoreError:
            print(len(seen))
    """
    survives(run(cut_name, program), "1")


def test_a_durable_store_comes_back_from_its_log(tmp_path: Any) -> None:
    store = Store.open(tmp_path, "none", size="8MiB")
    store.update(ITEMS)
    path = region_path(store.name)
    os.truncate(path, 0)
    with pytest.raises(CorruptStoreError):
        store.get("k1")
    with pytest.raises((CorruptStoreError, LogFailedError)):
        store["k1"] = 1
    with pytest.raises((CorruptStoreError, LogFailedError)):
        store.close()  # which writes no snapshot of what it lost
    path.unlink(missing_ok=True)
    with Store.open(tmp_path) as store:
        assert dict(store) == ITEMS


def test_a_new_store_of_the_same_file_is_attached_to(cut_name: str) -> None:
    """Old handles stay damaged; the file that was cut off may become a store again."""
    with Store.attach(cut_name) as old:
        os.truncate(region_path(cut_name), 0)
        with pytest.raises(CorruptStoreError):
            old.get("k1")
        with Store(cut_name, size="8MiB") as new:
            new["k1"] = "new"
            assert new["k1"] == "new"
            with pytest.raises(CorruptStoreError):
                old.get("k1")

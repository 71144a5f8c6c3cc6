"""The end of the interpreter: threads that it has ended come out of nothing any more, so nobody may wait for them.

A daemon thread that wants the GIL back after the end has begun is ended on the spot, or sleeps for ever (3.14): what it
counted, and what it locked in Python, stays so.  `__del__` of what lives in a cycle, or in `sys`, runs after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import check, durable_folder, finish, lose_memory, start_python

from shmkv import DataStore, Store

pytestmark = pytest.mark.slow

END_SECONDS = 40  # an interpreter that hangs does so for ever

BUSY = """
import gc, os, sys, threading, time
import shmkv
from shmkv import ClosedStoreError, ShmkvError, StoreLockedError
gc.disable()

class Last:
    def __init__(self, close):
        self.close, self.myself = close, self

    def __del__(self, write=os.write):  # sys.stdout may be gone
        self.close()
        self.close()
        write(1, b"closed")

def forever(work):
    def loop():
        number = 0
        try:
            while True:
                number += 1
                work(number)
        except (ClosedStoreError, StoreLockedError):
            pass
    for _ in range(4):
        threading.Thread(target=loop, daemon=True).start()
    time.sleep(0.1)

def keep(close, where):
    last = Last(close)
    if where == "sys":
        sys.last_of_all = last
        last.myself = None
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def end_of(work: str, *args: str, whole: bool = True) -> None:
    """It comes to an end; `whole`: and close() to its own.  When `sys` is cleared, the modules that the closing of a
    log is written in are empty already."""
    out, err, status = finish(start_python(BUSY + work, *args), END_SECONDS)
    assert status == 0, err
    assert "closed" in out or not whole, err
    assert "Fatal" not in err, err


@pytest.mark.parametrize("where", ["cycle", "sys"])
@pytest.mark.parametrize(
    "work",
    [
        "store.put_many({f'b{i}': number for i in range(1000)})",
        "store.get_many([f'b{i}' for i in range(1000)])",
        "store.put('large', bytes(1 << 20)), store['large']",
        "store.compact()",
        "store.update((f'{i}', i) for i in range(2000))",
        "len(store), store.stats()",
        "shmkv.Store.attach(store.name).close()",
    ],
)
def test_a_store_is_closed_while_a_thread_was_in_a_call(store: Store, work: str, where: str) -> None:
    code = f"""
store = shmkv.Store.attach(sys.argv[1])
keep(store.close, sys.argv[2])
forever(lambda number: ({work}))
"""
    end_of(code, store.name, where)
    store["after"] = 1
    store.compact()
    check(store)


@pytest.mark.parametrize("where", ["cycle", "sys"])
def test_a_private_store_is_removed(where: str) -> None:
    code = """
store = shmkv.Store(size="16MiB")
keep(store.close, sys.argv[1])
forever(lambda number: store.put_many({f'b{i}': number for i in range(1000)}))
print("name", store.name, flush=True)
"""
    out, err, status = finish(start_python(BUSY + code, where), END_SECONDS)
    assert (status, "closed" in out) == (0, True), err
    name = out.split()[1]
    assert name not in {info.name for info in __import__("shmkv").list_stores()}


@pytest.mark.parametrize("where", ["cycle", "sys"])
@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_a_durable_store(folder: Path, sync: str, where: str) -> None:
    code = """
store = shmkv.Store.open(sys.argv[1], sys.argv[3], size="32MiB")
store["first"] = 1
keep(store.close, sys.argv[2])
forever(lambda number: store.put(f"{number % 100}", number))
"""
    end_of(code, str(folder), where, sync, whole=where != "sys")
    with Store.open(folder) as store:
        assert store["first"] == 1
        check(store)


@pytest.mark.parametrize("where", ["cycle", "sys"])
def test_a_durable_store_that_threads_open_and_close(folder: Path, where: str) -> None:
    """A thread that was ended in the middle of it has the lock of openers for as long as the process lives."""
    code = """
store = shmkv.Store.open(sys.argv[1], "none", size="32MiB")
keep(store.close, sys.argv[2])
forever(lambda number: shmkv.Store.open(sys.argv[1], "none").close())
"""
    end_of(code, str(folder), where, whole=where != "sys")
    with Store.open(folder) as store:
        check(store)
    with pytest.raises(OSError, match="there is no store"):
        lose_memory(folder)


@pytest.mark.parametrize("where", ["cycle", "sys"])
@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_a_datastore(tmp_path: Path, sync: str, where: str) -> None:
    code = """
data = shmkv.DataStore(sys.argv[1], sync=sys.argv[3])
data.create("first", {"n": 1})
keep(data.close, sys.argv[2])
def work(number):
    key = f"{threading.get_ident()}"[-12:] + f".{number % 10}"
    data.create(key, {"n": number})
    data.delete(key)
forever(work)
"""
    end_of(code, str(tmp_path), where, sync, whole=where != "sys")
    with DataStore(tmp_path) as data:
        assert data.read("first") == {"n": 1}


def test_a_datastore_is_changed_after_the_end(tmp_path: Path) -> None:
    """A call that would wait for such a thread raises."""
    code = """
data = shmkv.DataStore(sys.argv[1], sync="always")
def change():
    for number in range(3):
        try:
            data.create(f"late {number}", {})
        except ShmkvError as error:
            os.write(1, str(error).encode())
keep(change, "cycle")
def work(number):
    key = f"{threading.get_ident()}"[-12:]
    data.create(key, {"n": number})
    data.delete(key)
forever(work)
"""
    end_of(code, str(tmp_path))
    with DataStore(tmp_path) as data:
        assert len(data.range()) <= 7

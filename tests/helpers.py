"""What the tests share: names, children that are forked or spawned, values that carry an equation.

Every child has a time limit, and whatever a test leaves running is killed after it (by pid).
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import pickle
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import shmkv
from shmkv import ShmkvError, Store, StoreFullError, _core, region

ROOT = Path(__file__).resolve().parent.parent
NAME_PREFIX = "shmkv-test"
# What a test may take is meant for an idle machine, and multiplied by this: a limit is there to end what hangs, and a
# test that is only slow, beside a load or as a build that is slow on purpose, has no fault.
PATIENCE = float(os.environ.get("SHMKV_TEST_PATIENCE", "4"))
MIB = 1 << 20

_names = itertools.count()


def unique_name() -> str:
    return f"{NAME_PREFIX}-{os.getpid()}-{next(_names)}-{secrets.token_hex(3)}"


def repr_without_address(value: object) -> str:
    """The name of a test's parameter: the same in every process that collects the tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def store_names() -> set[str]:
    """Names of all stores of this user, whatever form `list_stores` gives them in."""
    return {getattr(entry, "name", entry) for entry in shmkv.list_stores()}


def wait_until(condition: Callable[[], Any], timeout: float = 20.0, what: str = "condition") -> None:
    deadline = time.monotonic() + timeout * PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(0.001)


# ---- Children that are forked ---------------------------------------------------------------


class ChildFailed(AssertionError):  # noqa: N818
    """The function in the child raised, or the child died."""


class Forked:
    """A forked child that runs `function(*args)`; `result()` waits for what it returned."""

    running: ClassVar[set[Forked]] = set()

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115
        self.exit: int | None = None  # as os.waitstatus_to_exitcode: negative = signal
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                Forked.running = set()
                try:
                    answer: tuple[bool, Any] = (True, function(*args))
                except BaseException:
                    answer = (False, traceback.format_exc())
                pickle.dump(answer, self._answer)
                self._answer.flush()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        Forked.running.add(self)

    def poll(self) -> int | None:
        if self.exit is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit = os.waitstatus_to_exitcode(status)
                Forked.running.discard(self)
        return self.exit

    def wait(self, timeout: float = 60.0) -> int:
        deadline = time.monotonic() + timeout * PATIENCE
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise ChildFailed(f"child {self.pid} was still running after {timeout} s")
            time.sleep(0.001)
        assert self.exit is not None
        return self.exit

    def result(self, timeout: float = 60.0) -> Any:
        code = self.wait(timeout)
        if code:
            raise ChildFailed(f"child {self.pid} ended with {code}")
        self._answer.seek(0)
        fine, answer = pickle.load(self._answer)
        self._answer.close()
        if not fine:
            raise ChildFailed(f"in child {self.pid}:\n{answer}")
        return answer

    def signal(self, number: int) -> None:
        if self.exit is None:
            os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGSTOP, and wait until the child really stands still."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.0005)


def in_fork(function: Callable[..., Any], *args: Any, timeout: float = 60.0) -> Any:
    return Forked(function, *args).result(timeout)


def in_child(work: Callable[[], object]) -> int:
    """Run it in a forked child, which ends at once after it and may close all its descriptors; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())  # sys.stderr may be closed, and raise
            os._exit(99)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def killed(work: Callable[[], object]) -> None:
    """Do it in a forked child that is killed right after it."""
    child = Forked(lambda: (work(), os.kill(os.getpid(), signal.SIGKILL)))
    if child.wait() == 0:
        child.result()  # raises what went wrong
    assert child.exit == -signal.SIGKILL


def has_memory(path: Path) -> bool:
    """Is the region of the durable store in that folder there?"""
    facts = path.stat()
    name = region.durable_name(facts.st_dev, facts.st_ino)
    return name in {info.name for info in shmkv.list_stores()}


def files_of(path: Path, ending: str) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.name.endswith(ending))


def copy_of(path: Path) -> Path:
    """Of a folder, beside it: what would be left on the disk if the machine stopped now."""
    copy = path.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path, copy)
    return copy


def is_synced(store: Store) -> bool:
    """Is all that a durable store has logged on stable storage?"""
    state = _core.durable_state(store._opened())
    return bool(state["synced"] == state["end"])


def lose_memory(path: Path) -> None:
    """Remove the region of the durable store in that folder, as a reboot does."""
    facts = path.stat()
    region.unlink(region.object_name(region.durable_name(facts.st_dev, facts.st_ino)))


def durable_folder(tmp_path: Path) -> Iterator[Path]:
    """For a fixture: a path for a durable store, and "copy" beside it; afterwards neither has memory."""
    path = tmp_path / "store"
    yield path
    for each in (path, tmp_path / "copy"):
        with suppress(OSError, ShmkvError):
            lose_memory(each)


class SharedInts:
    """Numbers that forked children share; a killed child cannot block anyone."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * 8)
        self._numbers = (ctypes.c_int64 * count).from_buffer(self._memory)

    def __getitem__(self, index: int) -> int:
        return int(self._numbers[index])

    def __setitem__(self, index: int, value: int) -> None:
        self._numbers[index] = value

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._numbers))


# ---- Children that start from nothing --------------------------------------------------------

_spawned: set[subprocess.Popen[str]] = set()


def python_environment() -> dict[str, str]:
    environment = dict(os.environ)
    here = [str(Path(shmkv.__file__).parent.parent), str(Path(__file__).parent)]
    environment["PYTHONPATH"] = os.pathsep.join(here)
    environment["PYTHONFAULTHANDLER"] = "1"
    return environment


def start_python(code: str, *args: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A fresh interpreter that runs `code` with `args` in sys.argv[1:]; `before` goes before it."""
    process = subprocess.Popen(
        [*before, sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=python_environment(),
        cwd=tempfile.gettempdir(),
    )
    _spawned.add(process)
    return process


def finish(process: subprocess.Popen[str], timeout: float = 60.0) -> tuple[str, str, int]:
    try:
        out, err = process.communicate(timeout=timeout * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise ChildFailed(f"still running after {timeout} s\n{out}\n{err}") from None
    finally:
        _spawned.discard(process)
    return out, err, process.returncode


def run_python(code: str, *args: str, timeout: float = 60.0, before: tuple[str, ...] = ()) -> str:
    """Run `code` in a fresh interpreter; its standard output, if it ended with 0."""
    out, err, status = finish(start_python(code, *args, before=before), timeout)
    if status:
        raise ChildFailed(f"python ended with {status}\n{out}\n{err}")
    return out


def end_all_children() -> None:
    """After each test: end what it left running (only what was started here)."""
    for child in list(Forked.running):
        child.signal(signal.SIGCONT)
        child.kill()
    for process in list(_spawned):
        process.kill()
        finish(process)


# ---- Values that carry an equation -----------------------------------------------------------


def sealed(key: str | bytes, number: int, size: int = 40) -> bytes:
    """A value of about `size` bytes, at least 20, that tells whose it is and whether it is whole."""
    raw = key.encode() if isinstance(key, str) else key
    head = number.to_bytes(8, "little")
    body = head + size.to_bytes(4, "little") + head * max(size // 8 - 2, 0)
    return body + zlib.crc32(raw).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")


def unseal(key: str | bytes, value: bytes) -> int:
    """The number in a value that `sealed` made for `key`; AssertionError if it is torn or another's."""
    raw = key.encode() if isinstance(key, str) else key
    body, owner, seal = value[:-8], value[-8:-4], value[-4:]
    assert owner == zlib.crc32(raw).to_bytes(4, "little"), f"{key!r} holds another key's value"
    assert seal == zlib.crc32(body).to_bytes(4, "little"), f"{key!r} holds a torn value"
    return int.from_bytes(body[:8], "little")


def fill(store: Store, size: int, prefix: str = "fill") -> int:
    """Put values of `size` bytes until the store is full; how many it took."""
    value = b"v" * size
    count = 0
    with_room = True
    while with_room:
        try:
            store.put(f"{prefix}:{count:08d}", value)
            count += 1
        except shmkv.StoreFullError:
            with_room = False
    return count


def check(store: Store) -> None:
    report = store.check()
    assert report.ok, report.problems


@contextmanager
def temporary_store(**options: Any) -> Iterator[Store]:
    """A store for where no fixture reaches: checked and removed at the end."""
    options.setdefault("size", 16 * MIB)
    store = Store.create(unique_name(), **options)
    try:
        yield store
        check(store)
    finally:
        store.unlink()
        store.close()


def region_path(store: Store | str) -> Path:
    """The file behind a store of this user."""
    name = store if isinstance(store, str) else store.name
    return Path(f"/dev/shm/shmkv.{os.geteuid()}.{name}")


def fill_up(store: Store, size: int = 1000) -> None:
    """Store items of `size` bytes until one is refused."""
    for n in range(1_000_000):
        try:
            store.put(f"fill:{n}", b"x" * size)
        except StoreFullError:
            return
    raise AssertionError("the store takes everything")

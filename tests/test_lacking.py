"""A machine that lacks what a store needs: each lack has an error of its own, which says what to do about it."""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import building
import pytest
from helpers import in_fork, python_environment, unique_name
from test_foreign import NOBODY, load_all_modules

from shmkv import (
    ClockError,
    DataStore,
    LimitError,
    NoProcError,
    NoSharedMemoryError,
    ShmkvError,
    Store,
    StoreNotFoundError,
    SurroundingsError,
    _core,
    list_stores,
    region,
    surroundings,
)

NAME = f"surroundings-{os.getpid()}"
CALLS: dict[str, Callable[[], Any]] = {
    "private": lambda: Store(size="1MiB"),
    "Store": lambda: Store(NAME, size="1MiB"),
    "default size": lambda: Store(NAME),
    "create": lambda: Store.create(NAME, size="1MiB"),
    "attach": lambda: Store.attach(NAME),
    "foreign": lambda: Store(NAME, foreign=True),
    "unlink": lambda: Store.unlink_name(NAME),
    "list": list_stores,
}


def told(call: Callable[[], Any]) -> str:
    """The error's class and sentence."""
    try:
        call()
    except SurroundingsError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


# ---- What the system answers, as it would -----------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, number: int, directory: Path) -> None:
    def fail(target: str, *_: object) -> Any:
        raise OSError(number, os.strerror(number), target)

    for name in ("create", "open_existing", "unlink"):
        monkeypatch.setattr(region.objects, name, fail)
    monkeypatch.setattr(surroundings, "SHM_DIRECTORY", str(directory))
    monkeypatch.setattr(region, "SHM_DIRECTORY", str(directory))


@pytest.mark.parametrize("how", [each for each in CALLS if each != "default size"])
def test_no_shared_memory(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, errno.ENOENT, tmp_path / "missing")
    with pytest.raises(NoSharedMemoryError, match=r"not there.*mount -t tmpfs"):
        CALLS[how]()


@pytest.mark.parametrize("how", ["private", "Store", "create"])
@pytest.mark.parametrize(
    ("number", "words"), [(errno.EROFS, "read-only.*remount"), (errno.EOPNOTSUPP, "ramfs.*mount -t tmpfs")]
)
def test_shared_memory_that_holds_nothing(
    how: str, number: int, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers(monkeypatch, number, tmp_path)
    with pytest.raises(NoSharedMemoryError, match=words) as error:
        CALLS[how]()
    assert error.value.errno == number


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG])
def test_limits(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, number, tmp_path)
    for how in ("private", "attach"):
        with pytest.raises(LimitError, match="raise the limit"):
            CALLS[how]()


def test_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, errno.ENOENT, tmp_path)
    monkeypatch.setattr(surroundings, "PROC", str(tmp_path / "missing"))
    with pytest.raises(NoProcError, match="mount -t proc"):
        CALLS["private"]()


def test_what_is_known_by_another_name_stays_as_it_is() -> None:
    assert surroundings.explain(OSError(errno.EACCES, "no", "/home/else/file")) is None
    assert surroundings.explain(OSError("no number")) is None
    assert surroundings.explain(LimitError(errno.ENOMEM, "known")) is None


# ---- Limits of a process ----------------------------------------------------------------------


def limited(kind: int, limit: int, call: Callable[[], Any]) -> str:
    resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
    return told(call)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    def use_all() -> list[str]:
        kept = Store.create(unique_name(), size="1MiB")
        kept.shared_memory().close()  # loads what is loaded once
        Store.open(tmp_path / "loads", size="1MiB").close()
        DataStore(tmp_path / "loads too").close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        files = []
        try:
            while True:
                files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            calls = [*list(CALLS.values())[:5], lambda: Store.attach(kept.name), lambda: Store.open(tmp_path / "a")]
            return [told(call) for call in [*calls, lambda: DataStore(tmp_path / "b"), kept.shared_memory]]
        finally:
            for fd in files:
                os.close(fd)
            kept.unlink()

    for each in in_fork(use_all):
        assert each.startswith("LimitError"), each
        assert "ulimit -n" in each


def test_files_may_not_be_that_long(tmp_path: Path) -> None:
    limit = 8 << 20
    name = unique_name()
    try:
        for call in (lambda: Store(size="64MiB"), lambda: Store(name, size="64MiB")):
            assert "ulimit -f" in in_fork(limited, resource.RLIMIT_FSIZE, limit, call)
    finally:
        assert name not in {info.name for info in list_stores()}


def fill(store: Any, put: Callable[[str], None]) -> list[str]:
    """Until the limit is met; what was told, and then the keys that had been acknowledged."""
    keys: list[str] = []

    def put_all() -> None:
        for number in range(400):
            put(f"k{number}")
            keys.append(f"k{number}")

    return [limited(resource.RLIMIT_FSIZE, 1 << 20, put_all), *keys]


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
def test_the_log_may_not_grow(tmp_path: Path, sync: str) -> None:
    """Of a durable store and of a `DataStore`: what was acknowledged is there, and with room they go on."""

    def fill_store() -> list[str]:
        with Store.open(tmp_path / "store", sync, size="16MiB") as store:
            told, *keys = fill(store, lambda key: store.put(key, b"x" * 20_000))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            store["later"] = b""
            assert sorted(store) == sorted([*keys, "later"])
        return [told, *keys]

    def fill_data() -> list[str]:
        with DataStore(tmp_path / "data", sync=sync) as data:
            told, *keys = fill(data, lambda key: data.create(key, {"": "x" * 15_000}))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            data.create("later", {})
        return [told, *keys]

    for fill_one in (fill_store, fill_data):
        said, *keys = in_fork(fill_one)
        assert said.startswith("LimitError"), said
        assert "ulimit -f" in said
        assert "nothing was changed" in said
        assert 40 < len(keys) < 80
        if fill_one is fill_store:
            with Store.open(tmp_path / "store") as store:
                assert sorted(store) == sorted([*keys, "later"])
                assert store.check().ok
        else:
            with DataStore(tmp_path / "data") as data:
                assert [data.read(key) for key in keys] == [{"": "x" * 15_000}] * len(keys)
                assert data.read("later") == {}


def test_address_space_is_not_enough() -> None:
    name = unique_name()
    with Store(name, size="4GiB") as store:
        try:
            limit = 3 << 30
            for call in (lambda: Store.attach(name), lambda: Store(size="4GiB")):
                code = in_fork(limited, resource.RLIMIT_AS, limit, call)
                assert code.startswith("LimitError"), code
                assert "ulimit -v" in code
        finally:
            store.unlink()


# ---- The clock --------------------------------------------------------------------------------

FAKE = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *to)
{
    int result = (int)syscall(SYS_clock_gettime, clock, to);
    if (clock == CLOCK_BOOTTIME)
        to->tv_sec += 40L * 365 * 86400;
    return result;
}
"""


def test_a_faked_clock(tmp_path: Path, store: Store) -> None:
    """A store would show a ttl of decades, and the others would keep what this one stored for as long."""
    source, library = tmp_path / "fake.c", tmp_path / "fake.so"
    source.write_text(FAKE)
    building.compile_c(["-shared", "-fPIC", "-O1", str(source), "-o", str(library)])
    code = """
import sys
from shmkv import ClockError, Store
for call in (lambda: Store(size="1MiB"), lambda: Store.attach(sys.argv[1]), lambda: Store(sys.argv[1], readonly=True)):
    try:
        call()
    except ClockError as error:
        print(error)
"""
    environment = python_environment() | {"LD_PRELOAD": str(library)}
    done = subprocess.run(
        [sys.executable, "-c", code, store.name], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.count("CLOCK_BOOTTIME") == 3, done.stderr
    assert issubclass(ClockError, ShmkvError)


# ---- Mounts, where they may be changed ---------------------------------------------------------

MOUNTED = """
import os, subprocess, sys
from shmkv import ShmkvError, Store, list_stores
import shmkv._core
def told(call):
    try:
        call()
        return "no error"
    except ShmkvError as error:
        return f"{type(error).__name__}: {error}"
for call in (lambda: Store(size="1MiB"), lambda: Store("mounted", size="1MiB"), lambda: Store("mounted")):
    print(told(call))
"""
MOUNTS = {
    "read-only": ("mount -t tmpfs -o ro tmpfs /dev/shm", "NoSharedMemoryError", "read-only"),
    "a ramfs": ("mount -t ramfs ramfs /dev/shm", "NoSharedMemoryError", "ramfs"),
    "no /dev/shm": ("mount -t tmpfs tmpfs /dev", "NoSharedMemoryError", "not there"),
    "no /proc": ("mount -t tmpfs tmpfs /proc", "NoProcError", "mount -t proc"),
}


def may_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    return done.returncode == 0


@pytest.mark.parametrize("how", MOUNTS)
def test_mounts(how: str) -> None:
    if not may_mount():
        pytest.skip("mounting something else needs a user who may (root)")
    command, kind, words = MOUNTS[how]
    inside = f'{command} && exec "$0" -c "$1"'
    out = subprocess.run(
        ["unshare", "-m", "sh", "-c", inside, sys.executable, MOUNTED],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = out.stdout.splitlines()
    assert len(lines) == 3, out.stderr
    for line in lines:
        assert line.startswith(kind), line
        assert words in line


def test_forbidden() -> None:
    if not may_mount():
        pytest.skip("mounting something else needs a user who may (root)")
    # All modules first: they may lie where another user may not read.
    as_another = "Store(size='1MiB').close()\nos.chmod('/dev/shm', 0o700)\nos.setgid(65534)\nos.setuid(65534)\n"
    code = MOUNTED.replace("for call in", f"{as_another}for call in", 1)
    inside = 'mount -t tmpfs -o mode=1777 tmpfs /dev/shm && exec "$0" -c "$1"'
    command = ["unshare", "-m", "sh", "-c", inside, sys.executable, code]
    out = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=60)
    assert out.stdout.count("NoSharedMemoryError") == 3, out.stdout + out.stderr
    assert "chmod 1777" in out.stdout


SECCOMP = """
import ctypes, struct

def forbid_shared_memory(number):
    \"\"\"openat with O_NOFOLLOW answers with that number: of all that is opened here only shm_open says so.\"\"\"
    load, jump, bits, leave = 0x20, 0x15, 0x45, 0x06
    program = b"".join(
        struct.pack("HBBI", *each)
        for each in [
            (load, 0, 0, 0), (jump, 0, 3, OPENAT), (load, 0, 0, 32), (bits, 0, 1, O_NOFOLLOW),
            (leave, 0, 0, 0x00050000 | number), (leave, 0, 0, 0x7FFF0000),
        ]
    )
    kept = ctypes.create_string_buffer(program, len(program))
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 6, ctypes.addressof(kept)), 16)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(filter)), 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""
OPENAT = {"x86_64": 257, "aarch64": 56}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_forbidden_by_a_rule(number: int, store: Store) -> None:
    """As in a sandbox: directory, modes and owner are as they should be, and shm_open is refused all the same."""
    machine = os.uname().machine
    if machine not in OPENAT:
        pytest.skip("the filter of system calls knows x86_64 and aarch64 alone")
    prepare = f"""
import os, sys
OPENAT, O_NOFOLLOW = {OPENAT[machine]}, os.O_NOFOLLOW
{SECCOMP}
from shmkv import ShmkvError, Store, list_stores
Store(size="1MiB").close()
forbid_shared_memory({number})
name = {store.name!r}
calls = [
    lambda: Store(size="1MiB"),
    lambda: Store(name + "2", size="1MiB"),
    lambda: Store.create(name + "2", size="1MiB"),
    lambda: Store(name),
    lambda: Store.attach(name),
    lambda: Store.attach(name, readonly=True),
    lambda: Store.attach(name, foreign=True),
    lambda: Store.attach(name + "2"),
]
for call in calls:
    try:
        call()
        print("no error")
    except ShmkvError as error:
        print(type(error).__name__, error.errno, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", prepare], env=python_environment(), capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 8, done.stderr
    for line in lines:
        assert line.startswith(f"NoSharedMemoryError {number}"), line
        assert "seccomp" in line
        assert "shm_open" in line


# ---- Threads and processes --------------------------------------------------------------------


def without_threads(call: Callable[[], Any]) -> Any:
    """Its answer in a process whose user may start no more threads and processes; of root's none is counted."""
    load_all_modules()
    for name in ("fractions", "multiprocessing.popen_spawn_posix", "multiprocessing.resource_tracker"):
        importlib.import_module(name)

    def change_and_call() -> Any:
        os.chdir("/")
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        return call()

    return in_fork(change_and_call)


def test_without_a_thread_that_syncs_each_change_waits_for_the_disk() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)

        def use_both() -> list[bool]:
            with Store.open(f"{folder}/store", size="16MiB") as store, DataStore(f"{folder}/data") as data:
                store["a"] = 1
                data.create("a", {})
                state = _core.durable_state(store._opened())
                return [state["synced"] == state["end"], data._log.synced == data._log.end]

        assert without_threads(use_both) == [True, True]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("import", "{folder}/lines.jsonl", "--store", "{name}"), "threads"),
        (("serve", "--store", "{name}", "--uds", "{folder}/socket"), "processes"),
        (("bench", "--quick", "--workers", "1"), "processes"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_commands_say_that_there_are_no_more(
    words: tuple[str, ...], what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from shmkv.cli.main import main

    name = unique_name()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        Path(folder, "lines.jsonl").write_text('{"key": "a", "value": 1}\n')

        def give() -> int:
            status = main([word.format(folder=folder, name=name) for word in words])
            with contextlib.suppress(StoreNotFoundError):
                Store.unlink_name(name)
            return status

        assert without_threads(give) == 70
    assert f"no more {what} can be started: end some, or raise the limit (ulimit -u" in capfd.readouterr().err


def test_an_import_goes_on_with_the_threads_that_it_gets(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, those that had been started waited for ever for the one that was not."""
    from shmkv.cli.main import main

    threads, start = itertools.count(), threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if next(threads):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(f'{{"key": "k{n}", "value": {n}}}\n' for n in range(100)))
    assert main(["import", str(lines), "--store", name, "--threads", "4"]) == 0
    with Store.attach(name) as store:
        assert len(store) == 100
        store.unlink()

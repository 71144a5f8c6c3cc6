"""Processes, as the kernel and psutil tell of them: which one it is, and whether it is stopped.

What: a process is named for good by its pid, the moment it started and the pid namespace of its pid.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

__all__ = [
    "STOPPED",
    "Process",
    "blame",
    "describe",
    "locking",
    "namespace",
    "own_start",
    "pid_namespace",
    "process_start",
    "seen",
    "sees_pids",
]

STOPPED: Final = frozenset({"stopped", "tracing-stop"})  # as psutil says


class Process(NamedTuple):
    """A process of this or another pid namespace."""

    pid: int
    start: int  # clock ticks since boot
    namespace: int  # inode of the namespace that `pid` belongs to


def namespace(kind: str) -> int:
    """The inode of one of this process's namespaces; 0 where the kernel has none of this kind."""
    try:
        return os.stat(f"/proc/self/ns/{kind}").st_ino
    except OSError:
        return 0


def pid_namespace() -> int:
    """The inode of this process's pid namespace."""
    return namespace("pid")


def sees_pids() -> bool:
    """Is /proc that of this process's own pid namespace?  Otherwise its numbers are other processes: there is none, or
    it was mounted outside (`unshare --pid` without `--mount-proc`, a sandbox that binds the outer one)."""
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):  # its pid in the namespace of the mount, and in each below it
                    return len(line.split()) == 2
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def own_start() -> int:
    """When this process started, in clock ticks since boot; 0 where it cannot be known."""
    return process_start("self") or 0


def process_start(pid: int | Literal["self"]) -> int | None:
    """When a live process started, in clock ticks since boot; None if there is no such process in /proc.

    Together with the pid it names a process for good, as pids are used again.  psutil tells the time of
    day, which moves when the clock is set.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def seen(process: Process) -> tuple[str, str] | None:
    """Its name and its status ("running", "stopped", ... as psutil says); None: it has ended, or cannot be seen from
    this namespace."""
    if process.namespace != pid_namespace() or not sees_pids() or process_start(process.pid) != process.start:
        return None
    import psutil

    try:
        found = psutil.Process(process.pid)
        return found.name(), str(found.status())
    except psutil.Error:
        return None


def locking(file: os.stat_result, byte: int) -> list[Process]:
    """The processes of this pid namespace that have a byte of a file locked by an open file description, for writing;
    forked children that share the description included, processes of other users not.

    Found in /proc/[pid]/fdinfo (proc(5)): F_OFD_GETLK tells no pid, as a description may have many processes.
    """
    found: list[Process] = []
    if not sees_pids():
        return found
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        start = process_start(pid)
        if start is not None and any(_is(file, pid, number) for number in _locking(pid, byte)):
            found.append(Process(pid, start, pid_namespace()))
    return found


def _locking(pid: int, byte: int) -> Iterator[str]:
    """Descriptors that have such a lock.  No file is asked: that of a dead mount would not answer."""
    with contextlib.suppress(OSError):  # of another user, or it has ended
        for number in os.listdir(f"/proc/{pid}/fdinfo"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
                if _locks(info.read(), byte):
                    yield number


def _is(file: os.stat_result, pid: int, number: str) -> bool:
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), file)
    except OSError:  # it was closed meanwhile
        return False


def _locks(info: str, byte: int) -> bool:
    """Has it a line like "lock:  1: OFDLCK ADVISORY  WRITE -1 fe:00:2146315 0 0" for that byte?"""
    lines = (line.split() for line in info.splitlines() if line.startswith("lock:"))
    return any(words[2] == "OFDLCK" and words[4] == "WRITE" and words[-2] == str(byte) for words in lines)


_ENDED: Final = "it has ended"


def describe(pid: int, start: int, namespace: int) -> str:
    """What people want to know of a process besides its pid, for messages, the C extension's too.

    >>> describe(1, 0, 0)
    'in another pid namespace, 0'
    """
    if namespace != pid_namespace():
        return f"in another pid namespace, {namespace}"
    if not sees_pids():
        return "/proc does not show it here"
    found = seen(Process(pid, start, namespace))
    return ", ".join(found) if found else _ENDED


def blame(pid: int, start: int, namespace: int, lives: bool) -> tuple[str, str]:
    """`describe`, and what can be done about a lock that this process holds; for the C extension's messages.

    Args:
        lives: as its liveness byte says.

    >>> blame(os.getpid(), own_start(), pid_namespace(), lives=False)[0]
    'it has ended'
    """
    words = describe(pid, start, namespace) if lives else _ENDED
    if not lives:
        return words, (
            "this process cannot take the lock over, as it can open no descriptor of the store (another user, another "
            "root directory, a sandbox, a limit): the next process that can does so when it writes"
        )
    if words == _ENDED:
        return words, (
            "a process that shares its open file (its parent, or another child of that) keeps the lock from being "
            "taken over here: it does so itself when it writes; otherwise end it, then try again"
        )
    if namespace != pid_namespace() or not sees_pids():
        return words, "continue that process or end it, there, then try again"
    return words, f"continue that process (kill -CONT {pid}) or end it, then try again"

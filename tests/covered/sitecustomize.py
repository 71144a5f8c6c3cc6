"""Imported by every interpreter of a coverage run: counts from its start, and keeps what it counted.

How: `os._exit`, a SIGKILL that a process sends to itself, and a signal that it raises again when it has cleared up
     (uvicorn does) leave out all exit handlers: they write the counts first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Any, NoReturn

import coverage

coverage.process_startup()
exit_at_once, send_signal, raise_again = os._exit, os.kill, signal.raise_signal


def write_counts() -> None:
    running = coverage.Coverage.current()
    if running:
        running.stop()
        running.save()
    extension = sys.modules.get("shmkv._core")
    if extension:
        ctypes.CDLL(str(extension.__file__)).shmkv_write_counts()


def _exit(status: int) -> NoReturn:
    try:
        write_counts()  # not by a process that has become another user, who may not write there
    finally:
        exit_at_once(status)


def kill(pid: int, number: int, /) -> Any:
    if pid == os.getpid() and number == signal.SIGKILL:
        write_counts()
    return send_signal(pid, number)


def raise_signal(number: int, /) -> None:
    if signal.getsignal(number) is signal.SIG_DFL:
        write_counts()
    raise_again(number)


os._exit, os.kill, signal.raise_signal = _exit, kill, raise_signal

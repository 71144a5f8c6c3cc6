"""Who makes a call: handles of this process, and processes that answer calls over a pipe.

What: `Local` is a handle here.  `Peer` is another process, spawned (its handles come pickled) or forked (its handles
      are those of its parent), in which `Remote` stands for a handle.  All of them are called in the same way.
How:  a peer takes (handle's name, call, arguments), performs it and sends the outcome.  It ends with its parent.
      Where the machine has a C compiler, a spawned peer has a clock of the day that can be moved (wall.c).
"""

from __future__ import annotations

import mmap
import pickle
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import building
import helpers
from machine.calls import Outcome, perform

from shmkv import Store

ANSWER_SECONDS = 20


class Local:
    """A handle of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Outcome:
        return perform(self.store, name, arguments, named)

    def set_clock(self, now: int) -> None:
        self.store._set_clock(now)


class Remote:
    """A handle of a peer."""

    def __init__(self, peer: Peer, handle: str) -> None:
        self._peer = peer
        self._handle = handle

    def call(self, name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Outcome:
        return self._peer.ask(self._handle, name, arguments, named)


class Peer:
    """Another process."""

    def __init__(self, connection: Connection, wall: WallClock | None = None) -> None:
        self._connection = connection
        self.wall = wall

    def ask(self, *request: Any) -> Any:
        self._connection.send(request)
        assert self._connection.poll(ANSWER_SECONDS), f"no answer within {ANSWER_SECONDS} s to {str(request)[:200]}"
        answer = self._connection.recv()
        assert not isinstance(answer, BaseException), f"a peer failed: {answer!r}"
        return answer

    def close(self) -> None:
        self._connection.close()


# ---- In the peer ---------------------------------------------------------------------------


def serve(connection: Connection, handles: dict[str, Store]) -> None:
    """Answer calls until the other end is closed."""
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        try:
            answer = _answer(handles, *request)
        except Exception as error:
            answer = error
        connection.send(answer)


def _answer(handles: dict[str, Store], name: str, *rest: Any) -> Any:
    if name == "open":
        random.seed(rest[1])  # popitem begins anywhere
        handles.update(pickle.loads(rest[0]))
    elif name == "close":
        for store in handles.values():
            store.close()
        handles.clear()
    elif name == "clock":
        for store in handles.values():
            store._set_clock(rest[0])
    elif name == "wall":
        return time.time()
    else:
        return perform(handles[name], *rest)
    return None


def serve_spawned(descriptor: int) -> None:
    serve(Connection(descriptor), {})


# ---- Starting and ending -------------------------------------------------------------------


class Spawned:
    """A peer in an interpreter of its own, for as many stores as one likes."""

    def __init__(self) -> None:
        mine, its = socket.socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="shmkv-test-")
        wall = WallClock.build(Path(self._folder.name))
        environment = helpers.python_environment() | (wall.environment if wall else {})
        code = f"from machine.actors import serve_spawned; serve_spawned({its.fileno()})"
        self._process = subprocess.Popen([sys.executable, "-c", code], env=environment, pass_fds=[its.fileno()])
        its.close()
        self.peer = Peer(Connection(mine.detach()), wall)

    def end(self) -> None:
        self.peer.close()
        try:
            self._process.wait(ANSWER_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()


class Child:
    """A peer that was forked, with the handles of its parent."""

    def __init__(self, handles: dict[str, Store]) -> None:
        mine, its = socket.socketpair()
        self._process = helpers.Forked(self._run, mine, its, handles)
        its.close()
        self.peer = Peer(Connection(mine.detach()))

    @staticmethod
    def _run(mine: socket.socket, its: socket.socket, handles: dict[str, Store]) -> None:
        mine.close()
        serve(Connection(its.detach()), handles)

    def end(self) -> None:
        self.peer.close()
        self._process.result(ANSWER_SECONDS)


# ---- The clock of the day ------------------------------------------------------------------


class WallClock:
    """Moves what a spawned peer takes for the time of day, under its feet."""

    def __init__(self, library: Path, shift: Path) -> None:
        self.environment = {"LD_PRELOAD": str(library), "SHMKV_TEST_WALL": str(shift)}
        with open(shift, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)

    @classmethod
    def build(cls, folder: Path) -> WallClock | None:
        library, shift = folder / "wall.so", folder / "shift"
        shift.write_bytes(bytes(8))
        source = str(Path(__file__).with_name("wall.c"))
        try:
            building.compile_c([*building.WARNINGS, "-shared", "-fPIC", "-O1", source, "-o", str(library), "-ldl"])
        except (AssertionError, OSError):
            return None
        return cls(library, shift)

    def move(self, seconds: int) -> None:
        """So far from the true time of day."""
        self._memory[:] = struct.pack("q", seconds)

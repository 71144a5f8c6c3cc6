"""`shmkv` as a shell runs it: a real process, exit status and both streams, on a store here or behind a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from helpers import PATIENCE, python_environment, wait_until

from shmkv import Store

_VARIABLES = ("SHMKV_STORE", "SHMKV_URL", "SHMKV_TOKEN_FILE")


class Ran(NamedTuple):
    """What a command left behind."""

    out: bytes
    err: str
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


def environment(**variables: str) -> dict[str, str]:
    """Without what the user's own shell says of stores."""
    return {**{name: value for name, value in python_environment().items() if name not in _VARIABLES}, **variables}


def run(*words: str | bytes, stdin: bytes = b"", timeout: float = 60.0, **variables: str) -> Ran:
    """`python -m shmkv WORDS`, away from the sources; whatever happens, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "shmkv", *words],
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        cwd=tempfile.gettempdir(),
        timeout=timeout * PATIENCE,
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    return Ran(done.stdout, err, done.returncode)


class Shell:
    """Runs commands on one store; `kind` is "local" or "remote"."""

    def __init__(self, kind: str, store: Store, *where: str) -> None:
        self.kind = kind
        self.store = store
        self.where = where

    def __call__(self, command: str, *words: str | bytes, stdin: bytes = b"", **variables: str) -> Ran:
        return run(command, *self.where, *words, stdin=stdin, **variables)


class Server:
    """`shmkv serve` on a unix socket, until `stop`."""

    def __init__(self, store: Store, folder: Path, *options: str) -> None:
        self.url = f"unix:{folder / 'shmkv.sock'}"
        command = [sys.executable, "-m", "shmkv", "serve", "--store", store.name, "--uds", str(folder / "shmkv.sock")]
        self._log = (folder / "server.log").open("w+b")
        self._process = subprocess.Popen(
            [*command, *options], stdout=self._log, stderr=self._log, env=environment(), cwd=tempfile.gettempdir()
        )
        wait_until(self._answers, 60, "the server's first answer")

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        # 77: it answers, and wants a token.
        return run("stats", "--url", self.url).status in (0, 77)

    @property
    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20 * PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()


def start_cli(*words: str, **options: Any) -> subprocess.Popen[bytes]:
    """A command that is still running; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "shmkv", *words],
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env=environment(**options),
        cwd=os.fspath(tempfile.gettempdir()),
    )

"""How long a command takes from a shell: the whole process, beside a Python that does nothing.

    python -m bench.startup [--rounds R]

Each round starts, in turns, `python -c pass`, `shmkv get` of a store of this machine, `shmkv get` of a server on a
unix socket, and `shmkv --help`; all are programs of this environment, with what its site-packages load at every
start.  What counts is the median of the rounds, and the ratio of the medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from bench.harness import Result, Row, arguments, ratio_row
from shmkv import Store

ROUNDS: Final = 60
SERVER_SECONDS: Final = 30
SHMKV: Final = str(Path(sysconfig.get_path("scripts")) / "shmkv")
BARE: Final = "python -c pass"
LOCAL: Final = "shmkv get --store"
REMOTE: Final = "shmkv get --url unix:..."
HELP: Final = "shmkv --help"


@contextmanager
def serving(name: str) -> Iterator[str]:
    """A server of the store; its URL."""
    with tempfile.TemporaryDirectory() as folder:
        socket = f"{folder}/shmkv.sock"
        process = subprocess.Popen([SHMKV, "serve", "--store", name, "--uds", socket], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + SERVER_SECONDS
            while subprocess.run([SHMKV, "get", "key", "--url", f"unix:{socket}"], capture_output=True).returncode:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError("the server did not start")
                time.sleep(0.1)
            yield f"unix:{socket}"
        finally:
            process.terminate()
            process.wait()


def nanoseconds(command: list[str]) -> int:
    """Of one whole process."""
    began = time.perf_counter_ns()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter_ns() - began


def measure(rounds: int) -> dict[str, list[float]]:
    """Nanoseconds of each round by command."""
    name = f"startup.{os.getpid()}.{os.urandom(4).hex()}"
    with Store.create(name, size="64MiB") as store:
        store["key"] = b"value"
        try:
            with serving(name) as url:
                commands = {
                    BARE: [sys.executable, "-c", "pass"],
                    LOCAL: [SHMKV, "get", "key", "--store", name],
                    REMOTE: [SHMKV, "get", "key", "--url", url],
                    HELP: [SHMKV, "--help"],
                }
                taken: dict[str, list[float]] = {what: [] for what in commands}
                for _ in range(rounds):
                    for what, command in commands.items():
                        taken[what].append(nanoseconds(command))
        finally:
            store.unlink()
    return taken


def main() -> None:
    parser = arguments(__doc__, 1, ROUNDS)
    args = parser.parse_args()
    taken = measure(args.rounds)
    result = Result("startup", args.rounds >= ROUNDS, args.results, details={"ns": taken})
    for what, bar in ((LOCAL, 5.0), (REMOTE, None), (HELP, 5.0)):
        result.add(ratio_row(f"{what}, whole process, beside {BARE}", taken[what], taken[BARE], bar))
    for what, bar_ms in ((BARE, None), (LOCAL, 100.0), (REMOTE, None), (HELP, None)):
        in_ms = [ns / 1e6 for ns in taken[what]]
        figure = f"{what}, whole process"
        result.add(Row(figure, median(in_ms), "ms", bar_ms, lowest=min(in_ms), highest=max(in_ms)))
    result.write()


if __name__ == "__main__":
    main()

"""Servers and workers that applications run under: gunicorn, uvicorn, Django's runserver, Celery."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
from campaigns.campaign import Figures
from helpers import PATIENCE, python_environment, wait_until

from shmkv import Store

from .scene import Scene, call, judge, module, stage, start

START_S = 120 * PATIENCE
CLIENTS = 3


@contextlib.contextmanager
def running(scratch: Path, name: str, *command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended by SIGTERM, whose output is told when something is wrong."""
    said = scratch / "output"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=scratch,
            env={**python_environment(), "STORE": name, "HOME": str(scratch), **environment},
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        process.wait(START_S)
    except BaseException as error:
        raise AssertionError(f"{' '.join(command)}: {error!r}\n{said.read_text()[-4000:]}") from error
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until(lambda: not group_of(process.pid), 60, "the end of all that it started")


def group_of(leader: int) -> list[int]:
    """Processes of a session that was started here."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == leader and pid != leader and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


class Clients:
    """Threads that send requests, one after the other; each answer is a number that no other answer has."""

    def __init__(self, where: str | Path) -> None:
        self.where = where
        self.answers: list[int] = []
        self.unanswered = 0
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def connection(self) -> httpx.Client:
        if isinstance(self.where, Path):
            return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.where)), base_url="http://x", timeout=60)
        return httpx.Client(base_url=self.where, timeout=60)

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until it answers; that one counts."""

        def answers() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}"
            with contextlib.suppress(httpx.TransportError), self.connection() as http:
                self.note(http.get("/?0"))
                return True
            return False

        deadline = time.monotonic() + START_S
        while not answers():
            assert time.monotonic() < deadline, "it did not answer"
            time.sleep(0.1)

    def note(self, answer: httpx.Response) -> None:
        with self._lock:
            if answer.status_code == 200:
                self.answers.append(int(answer.text))
            else:
                self.faults.append(f"{answer.status_code} {answer.text[:500]}")

    def ask(self, numbers: range) -> None:
        http = self.connection()
        for number in numbers:
            try:
                self.note(http.get(f"/?{number}"))
            except httpx.TransportError:
                self.unanswered += 1
                http.close()
                time.sleep(0.05)
                http = self.connection()
        http.close()

    def send(self, calls: int, meanwhile: Callable[[], object] = lambda: None) -> None:
        threads = [threading.Thread(target=self.ask, args=(range(at, calls, CLIENTS),)) for at in range(CLIENTS)]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join()
        assert not self.faults, f"{len(self.faults)} answers such as {self.faults[0]}"
        assert len(set(self.answers)) == len(self.answers), "two calls were counted as one"

    def judge(self, store: Store) -> Figures:
        judge(store, len(self.answers), self.unanswered)
        return {"calls": len(self.answers), "calls_without_an_answer": self.unanswered}


def with_gunicorn(scratch: Path, calls: int, *options: str) -> Figures:
    with stage() as store:
        clients = Clients(scratch / "socket")
        command = ("-m", "gunicorn", "--workers", "2", "--bind", f"unix:{clients.where}", "--log-level", "warning")
        with running(scratch, store.name, *command, *options, "surroundings.app:wsgi") as process:
            clients.wait(process)
            clients.send(calls, lambda: process.send_signal(signal.SIGHUP))
            victims = psutil.Process(process.pid).children()
            if victims:
                victims[0].kill()
            clients.wait(process)
            clients.send(calls // 2)
        return clients.judge(store)


def durable_with_gunicorn(scratch: Path, calls: int, *options: str) -> Figures:
    """All is killed at once in the middle, and started again: what was answered is there."""
    volume = scratch / "volume"
    with Store.open(volume, size="16MiB") as store:
        start(store)
    clients = Clients(scratch / "socket")
    command = ("-m", "gunicorn", "--workers", "2", "--bind", f"unix:{clients.where}", "--log-level", "warning")
    for _ in range(2):
        with running(scratch, str(volume), *command, *options, "surroundings.app:wsgi", VOLUME=str(volume)) as process:
            clients.wait(process)
            clients.send(calls // 2, lambda process=process: process.send_signal(signal.SIGHUP))
            os.killpg(process.pid, signal.SIGKILL)
    with Store.open(volume) as store:
        return clients.judge(store)


def with_uvicorn(scratch: Path, calls: int, *options: str) -> Figures:
    """Two workers, one of which is killed: the supervisor brings up another one."""
    with stage() as store:
        clients = Clients(scratch / "socket")
        command = ("-m", "uvicorn", "--workers", "2", "--uds", str(clients.where), "--log-level", "warning")
        with running(scratch, store.name, *command, *options, "surroundings.app:asgi") as process:
            clients.wait(process)
            clients.send(calls)
            workers = [
                each for each in psutil.Process(process.pid).children() if "spawn_main" in " ".join(each.cmdline())
            ]
            workers[0].kill()
            clients.send(calls // 2)
            clients.wait(process)
        return clients.judge(store)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_runserver(scratch: Path, calls: int) -> Figures:
    """Django's own server: a thread for each connection, and a reload for each file that changes."""
    (scratch / "watched.py").write_text("turn = 0\n")
    port = free_port()
    with stage() as store:
        clients = Clients(f"http://127.0.0.1:{port}")
        command = ("-m", "django", "runserver", f"127.0.0.1:{port}", "--settings", "surroundings.site_of_django")
        with running(scratch, store.name, *command, WATCHED=str(scratch)) as process:
            clients.wait(process)
            for turn in range(1, 3):
                [served] = psutil.Process(process.pid).children()
                clients.send(calls // 3, lambda turn=turn: (scratch / "watched.py").write_text(f"turn = {turn}0\n"))
                wait_until(lambda served=served: not served.is_running(), START_S, "a reload")
                clients.wait(process)
            clients.send(calls // 3)
        return clients.judge(store)


def with_celery(scratch: Path, calls: int) -> Figures:
    """A worker with a prefork pool whose children are recycled, killed past a time limit, and die."""
    for name in ("queue", "control", "results"):
        (scratch / name).mkdir()
    with stage() as store:
        store.put_many({"long": 0, "died": 0})
        send = (
            "from surroundings.tasks_of_celery import dies, one, too_long\n"
            "import sys\n"
            f"for number in range({calls}): one.delay(number)\n"
            "too_long.delay(1); dies.delay(1)\n"
            f"for number in range({calls}): one.delay(number)\n"
        )
        options = ("--pool", "prefork", "--concurrency", "3", "--max-tasks-per-child", "5", "--loglevel", "WARNING")
        names = {"QUEUE": str(scratch), "STORE": store.name}
        subprocess.run(
            [sys.executable, "-c", send],
            check=True,
            timeout=START_S,
            env={**python_environment(), **names},
            cwd=scratch,
        )
        command = (
            "-m",
            "celery",
            "-A",
            "surroundings.tasks_of_celery",
            "worker",
            "--without-gossip",
            "--without-mingle",
        )
        with running(scratch, store.name, *command, *options, **names) as process:

            def done() -> bool:
                assert process.poll() is None, f"ended with {process.returncode}"
                return bool(store["calls"] >= 2 * calls and store["long"] and store["died"])

            wait_until(done, START_S, "all tasks")
            call(store, 0)
        judge(store, 2 * calls + 1)
        assert store["died"] >= 1
        store.delete_many(["long", "died"])
    return {"calls": 2 * calls}


GUNICORN = {
    "": (),
    ", --preload": ("--preload",),
    ", --max-requests": ("--max-requests", "7", "--max-requests-jitter", "3"),
    ", --preload --max-requests --threads": ("--preload", "--max-requests", "9", "--threads", "4"),
}

SCENES = [
    *(
        Scene(
            f"gunicorn{words}",
            "every answer is a call that was counted, over a reload by SIGHUP and a worker killed",
            lambda scratch, calls, options=options: with_gunicorn(scratch, calls, *options),
            (module("gunicorn"), module("httpx")),
            slow=True,
        )
        for words, options in GUNICORN.items()
    ),
    *(
        Scene(
            f"gunicorn{words}, a durable store, all killed at once",
            "what was answered is there after the next start",
            lambda scratch, calls, options=options: durable_with_gunicorn(scratch, calls, *options),
            (module("gunicorn"), module("httpx")),
            slow=True,
        )
        for words, options in (("", ()), (", --preload", ("--preload",)))
    ),
    Scene(
        "uvicorn --workers, a worker killed",
        "every answer is a call that was counted",
        with_uvicorn,
        (module("uvicorn"), module("httpx")),
        slow=True,
    ),
    Scene(
        "Django's runserver, threads and reloads",
        "every answer is a call that was counted; a reload with calls in flight ends",
        with_runserver,
        (module("django"), module("httpx")),
        slow=True,
    ),
    Scene(
        "Celery, prefork, children recycled, killed at a time limit, dying",
        "every task is counted once; batches are whole",
        with_celery,
        (module("celery"),),
        slow=True,
    ),
]

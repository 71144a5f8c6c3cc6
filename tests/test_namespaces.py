"""Processes that cannot see each other in /proc: who lives is told by the region's own bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest
from helpers import Forked, region_path, run_python

from shmkv import Store, region

CAN_UNSHARE = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0
)
needs_unshare = pytest.mark.skipif(not CAN_UNSHARE, reason="this user may not make a pid namespace (unshare --pid)")
INSIDE = ("unshare", "--pid", "--fork")  # without --mount-proc: /proc shows the pids of outside


@needs_unshare
def test_a_private_store_of_a_living_process_stays() -> None:
    out = run_python(
        """
import json, os, signal
from pathlib import Path
from shmkv import Store, list_stores, processes, region
from shmkv.cli import doctor

store = Store(size="1MiB")
store["k"] = 1
path = Path(f"/dev/shm/shmkv.{os.geteuid()}.{store.name}")
told = {"pid": os.getpid(), "sees_pids": processes.sees_pids(), "dead": region.is_dead_private(store.name)}
pid = os.fork()
if pid == 0:
    Store(size="1MiB").close()  # removes the dead ones
    os._exit(0)
os.waitpid(pid, 0)
told["stays"] = path.exists()
[info] = [info for info in list_stores() if info.name == store.name]
told["processes"] = info.processes
told["findings"] = [one.kind for one in doctor.examine([info])]
told["seen"] = [(one.pid, one.name, one.status) for one in store.processes()]

pid = os.fork()  # and one whose creator was killed
if pid == 0:
    other = Store(size="1MiB")
    Path(f"/dev/shm/{store.name}.note").write_text(other.name)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(pid, 0)
note = Path(f"/dev/shm/{store.name}.note")
other = note.read_text()
note.unlink()
region.FOREIGN_NAMESPACE_GRACE_S = 3600.0
region.remove_dead_private()
told["killed stays in its first minute"] = other in {info.name for info in list_stores()}
region.FOREIGN_NAMESPACE_GRACE_S = 0.0
region.remove_dead_private()
told["killed goes"] = other not in {info.name for info in list_stores()}
told["stays to the end"] = path.exists()
print(json.dumps(told))
""",
        before=INSIDE,
    )
    told: dict[str, Any] = json.loads(out)
    assert told == {
        "pid": 1, "sees_pids": False, "dead": False, "stays": True, "processes": 1, "findings": [],
        "seen": [[1, None, None]], "killed stays in its first minute": True, "killed goes": True,
        "stays to the end": True,
    }  # fmt: skip


@needs_unshare
def test_seen_from_outside() -> None:
    """A process outside neither removes it nor calls its creator dead."""
    process = subprocess.Popen(
        [*INSIDE, *python("from shmkv import Store\ns = Store(size='1MiB')\nprint(s.name, flush=True)\ninput()")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        name = process.stdout.readline().strip()
        Store(size="1MiB").close()
        assert not region.is_dead_private(name)
        with Store.attach(name) as store:
            assert {one.this: one.name for one in store.processes()}[False] is None
    finally:
        process.communicate("\n", timeout=60)


def python(code: str) -> list[str]:
    root = os.path.dirname(os.path.dirname(os.path.abspath(region.__file__)))
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"]


def test_a_name_that_tells_of_no_namespace_is_kept_while_somebody_lives() -> None:
    """As a process without /proc makes it: pid, no start, no namespace."""
    name = f"private.{os.getpid()}.0.0-{os.urandom(8).hex()}"
    opened = region.create(region.object_name(name), region.wanted("1MiB", None, None), exist_ok=False, timeout=1)
    try:
        assert not region.is_dead_private(name)
        del opened
        assert not region.is_dead_private(name)  # in its first minute
    finally:
        region.unlink(region.object_name(name))


def test_a_private_store_whose_creator_was_killed_goes_at_once() -> None:
    def child() -> None:
        store = Store(size="1MiB")
        os.write(write, store.name.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    read, write = os.pipe()
    Forked(child).wait()
    name = os.read(read, 300).decode()
    assert region.is_dead_private(name)
    region.remove_dead_private()
    assert not region_path(name).exists()

"""Control groups with a limit of memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def _place() -> tuple[Path, str]:
    """Where a group of this process can be made, and the file of its limit: of version 1 or 2."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
    if "memory" in own:
        return ROOT / "memory" / own["memory"], "memory.limit_in_bytes"
    return ROOT / own.get("", ""), "memory.max"


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[str]:
    """The shell command that joins a new control group of so many bytes; "" where none can be made."""
    above, limit_file = _place()
    folder = above / f"shmkv-test-{os.getpid()}-{secrets.token_hex(3)}"
    try:
        folder.mkdir()
    except OSError:
        yield ""
        return
    try:
        (folder / limit_file).write_text(str(limit))
        yield f"echo $$ > {folder / 'cgroup.procs'}"
    except OSError:
        yield ""
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.05)

"""The extension of this source tree, brought up to date before the first test.

What: an edit of one C file costs one compilation and a link.
How:  CMake and ninja (of the extra `test`, or of the machine) keep a build folder in build/, one for each interpreter,
      and compile what has changed; a finished library takes the place of the old one by a rename, so that processes
      which have the old one mapped keep it.
Why not on import, as scikit-build-core offers: a suite starts thousands of interpreters, some of them without
      descriptors, without rights or in another root, and each would start CMake first.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "shmkv" / "_core"
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
BUILT = ROOT / "shmkv" / f"_core{SUFFIX}"
FOLDER = ROOT / "build" / f"extension{SUFFIX.removesuffix('.so')}"
REMEDY = "run `pip install -e .[test]` in the project's folder, then the tests again."
SECONDS = 600  # for a compilation from nothing, on a busy machine


def tool(name: str) -> str | None:
    """The environment's own, which need not be on PATH, before the machine's."""
    own = Path(sys.executable).with_name(name)
    return str(own) if own.exists() else shutil.which(name)


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        raise SystemExit(f"the C extension cannot be built ({' '.join(command)}):\n{done.stdout}{done.stderr}")


def build(cmake: str, ninja: str) -> None:
    """Compiles what has changed, and puts the library where `import shmkv._core` finds it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (FOLDER / "build.ninja").exists():
            given = [f"-DCMAKE_MAKE_PROGRAM={ninja}", f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_C_FLAGS=-g"]
            run([cmake, "-G", "Ninja", *given, "-S", str(SOURCES), "-B", str(FOLDER)])
        run([cmake, "--build", str(FOLDER)])
        made = FOLDER / BUILT.name
        if not BUILT.exists() or not filecmp.cmp(made, BUILT, shallow=False):
            fresh = BUILT.with_suffix(".new")
            shutil.copy(made, fresh)
            fresh.replace(BUILT)
        os.utime(BUILT)  # newer than every source, also where an edit changed only a comment


def bring_up_to_date() -> None:
    """Does nothing where the tools are missing: then `fault` tells whether it had to."""
    cmake, ninja = tool("cmake"), tool("ninja")
    if cmake and ninja and os.access(ROOT, os.W_OK):
        build(cmake, ninja)


def fault() -> str | None:
    """One sentence if the built extension is missing or older than its sources."""
    try:
        from shmkv import _core

        built = Path(_core.__file__ or "missing")
    except ImportError as error:
        return f"The C extension shmkv._core cannot be imported ({error}): {REMEDY}"
    if built.suffix != Path(SUFFIX).suffix:
        return f"The C extension shmkv._core is not built for this Python: {REMEDY}"
    newest = max(SOURCES.rglob("*.[ch]"), key=lambda source: source.stat().st_mtime)
    if newest.stat().st_mtime > built.stat().st_mtime:
        return f"The C extension {built.name} is older than {newest.relative_to(ROOT)}: {REMEDY}"
    return None

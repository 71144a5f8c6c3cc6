"""A real browser without a screen, and a server for it: for the tests of the pages and for their pictures."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}  # program -> Debian package
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_SERVING = re.compile(r"^shmkv serve: serving .* at (http://\S+)$")
_END_SECONDS = 30


def missing() -> str:
    """Why there can be no browser here, with the Debian packages that are needed; "" if there can."""
    names = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    return f"needs the Debian packages {' '.join(names)}" if names else ""


@contextlib.contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Chrome]:
    """Chromium with a new profile, which keeps a log of what it asks for."""
    from selenium import webdriver

    os.environ["SE_OFFLINE"] = "true"  # selenium is never to look for a browser or a driver in the network
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="shmkv-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            yield driver
        finally:
            driver.quit()


def screen(driver: Any, width: int, height: int, *, scale: float = 1, dark: bool = False, touch: bool = False) -> None:
    """Let the page believe in a screen of this size, in the light or in the dark."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@contextlib.contextmanager
def server(*args: str | Path) -> Iterator[str]:
    """`shmkv serve ARGS` on a free port; its address, without a slash."""
    process = start_server(*args)
    try:
        yield address_of(process)
    finally:
        end_server(process)


def start_server(*args: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shmkv", "serve", *map(str, args)]
    if "--port" not in command:
        command += ["--port", "0"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def address_of(process: subprocess.Popen[str]) -> str:
    """Wait until a server listens."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := _SERVING.match(line.strip()):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or a full pipe would stop it
            return found[1]
    raise AssertionError(f"the server ended before it listened:\n{''.join(said)}")


def end_server(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(_END_SECONDS)

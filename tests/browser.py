"""A real browser without a screen, for the tests of the server's pages and for their pictures."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
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

"""Pictures of the status page for the docs, of a real store under load.

    python -m tests.screenshot [FOLDER] [--seconds 310]

Writes status.png, status-dark.png and status-phone.png into FOLDER (docs).  Charts show five minutes, so that a full
picture takes that long.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from selenium.webdriver.common.by import By

from shmkv import Store
from tests.browser import browser, screen, server

STORE = "sessions"
USERS = 40_000
SECONDS = 310  # the charts' five minutes, and a little
PAGES = ("/", "/shop", "/shop/shoes", "/cart", "/checkout", "/account")
BYTES_PER_PALETTE = 256


# ---- A plausible store --------------------------------------------------------------------------


def session(user: int, rng: random.Random) -> dict[str, Any]:
    return {
        "user": user,
        "name": f"user{user}@example.org",
        "language": rng.choice(("de", "en", "fr", "pl")),
        "cart": [{"article": rng.randrange(90_000), "count": rng.randint(1, 3)} for _ in range(rng.randrange(5))],
        "last_page": rng.choice(PAGES),
    }


def fill(store: Store, rng: random.Random) -> None:
    for user in range(USERS):
        store.put(f"session:{user:06d}", session(user, rng), ttl=rng.uniform(900, 90_000))
    for image in range(60):
        store.put(f"image:{image:04d}", rng.randbytes(rng.randrange(20_000, 900_000)), content_type="image/webp")
    for name in ("home", "shoes", "bags", "sale", "imprint"):
        store.put(f"page:{name}", f"<!doctype html><title>{name}</title>" + "<p>…</p>" * rng.randrange(500, 9_000))
    store.put("counter:orders", 184_203)
    store.put("counter:visitors", 9_120_456)
    store.put("catalogue", {f"article:{n:05d}": {"price": n % 9_000 / 100} for n in range(9_000)})


def work(seconds: float, seed: int) -> None:
    """What a web shop does to its sessions."""
    rng = random.Random(seed)
    began = time.monotonic()
    with Store.attach(STORE) as store:
        while (now := time.monotonic() - began) < seconds:
            for _ in range(int(140 + 60 * math.sin(now / 23 + seed) + rng.uniform(0, 40))):
                visit(store, rng)
            time.sleep(0.05)


def visit(store: Store, rng: random.Random) -> None:
    user = min(int(rng.expovariate(6) * USERS), int(USERS * 1.05))  # some have no session yet
    key = f"session:{user:06d}"
    if store.get(key) is None and rng.random() < 0.2:
        store.put(key, session(user, rng), ttl=3_600)
    elif rng.random() < 0.12:
        store.put(key, session(user, rng), ttl=3_600)
    if rng.random() < 0.01:
        store.put(f"login:{rng.randrange(10**6):06d}", "open", ttl=rng.uniform(20, 200))


# ---- The pictures -------------------------------------------------------------------------------


def take(folder: Path, seconds: float) -> None:
    with Store.create(STORE, size="256MiB") as store:
        workers = []
        try:
            fill(store, random.Random(7))
            workers = [
                subprocess.Popen([sys.executable, "-m", "tests.screenshot", "--work", str(seconds + 60), "--seed", str(n)])
                for n in range(2)
            ]
            with server("--store", STORE, "--workers", "2") as address, browser() as driver:
                screen(driver, 1200, 900)
                driver.get(address)
                time.sleep(seconds)
                shoot(driver, folder)
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait()
            store.unlink()


def shoot(driver: Any, folder: Path) -> None:
    for name, dark in (("status", False), ("status-dark", True)):
        screen(driver, 1200, 900, dark=dark)
        whole_page(driver, folder / f"{name}.png", 1200, 1320)
    driver.find_element(By.ID, "prefix").send_keys("session:0000")
    time.sleep(2)
    driver.find_element(By.CSS_SELECTOR, "#browser button").click()
    time.sleep(1)
    whole_page(driver, folder / "value.png", 1200, 800)
    screen(driver, 390, 844, scale=2, touch=True)
    time.sleep(1)
    whole_page(driver, folder / "value-phone.png", 390, 844)
    driver.find_element(By.ID, "close").click()
    driver.execute_script("scrollTo(0, 0)")
    time.sleep(2)
    whole_page(driver, folder / "status-phone.png", 390, 1700)


def whole_page(driver: Any, path: Path, width: int, height: int) -> None:
    """The page from its top down to `height`, in few colours: a picture for a document is to be small."""
    import base64

    time.sleep(1.2)
    size = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": size})
    path.write_bytes(base64.b64decode(taken["data"]))
    print(path, path.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs"))
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--work", type=float)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.work is not None:
        work(asked.work, asked.seed)
    else:
        asked.folder.mkdir(parents=True, exist_ok=True)
        take(asked.folder, asked.seconds)


if __name__ == "__main__":
    main()

"""Pictures of the status page for the docs, of a real store under load.

    python -m tests.screenshot [FOLDER] [--seconds 310]

Writes status.png, status-dark.png, status-phone.png and value.png into FOLDER (docs).  Charts show five minutes, so
that a full picture takes that long.
"""

from __future__ import annotations

import argparse
import base64
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from browser import browser, screen  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from serving import serving  # noqa: E402

from shmkv import Store  # noqa: E402

STORE = "sessions"
USERS = 40_000
SECONDS = 310  # the charts' five minutes, and a little
MARGIN = 8  # below the last card of a picture: less than to the next one
CARD_END = "return document.getElementById(arguments[0]).closest('.card').getBoundingClientRect().bottom + scrollY"
PAGES = ("/", "/shop", "/shop/shoes", "/cart", "/checkout", "/account")


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
    user = int(rng.expovariate(2.6) * USERS)  # some have no session yet
    key = f"session:{user:06d}"
    is_new = store.get(key) is None
    if rng.random() < (0.02 if is_new else 0.12):
        store.put(key, session(user, rng), ttl=3_600)
    if rng.random() < 0.0001:
        store.put(f"login:{rng.randrange(10**6):06d}", "open", ttl=rng.uniform(20, 200))


# ---- The pictures -------------------------------------------------------------------------------


def take(folder: Path, seconds: float) -> None:
    with Store.create(STORE, size="256MiB") as store:
        workers = []
        try:
            fill(store, random.Random(7))
            workers = [
                subprocess.Popen(
                    [sys.executable, "-m", "tests.screenshot", "--work", str(seconds + 60), "--seed", str(n)]
                )
                for n in range(2)
            ]
            with serving("--store", STORE, "--workers", "2") as server, browser() as driver:
                screen(driver, 1200, 900)
                driver.get(server.url)
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
        picture(driver, folder / f"{name}.png", 1200, to="prefixes")
    screen(driver, 390, 844, scale=1.5, touch=True)
    picture(driver, folder / "status-phone.png", 390, to="browser")
    screen(driver, 1200, 844)
    show(driver, "session:0000")
    picture(driver, folder / "value.png")


def show(driver: Any, prefix: str) -> None:
    """The value of the first key that begins so."""
    field = driver.find_element(By.ID, "prefix")
    field.clear()
    field.send_keys(prefix)
    time.sleep(2)
    driver.find_element(By.CSS_SELECTOR, "#browser button").click()


def picture(driver: Any, path: Path, width: int = 0, to: str = "") -> None:
    """What is on the screen; with a width, the page from its top down to the end of the card that holds `to`."""
    time.sleep(1.2)
    how: dict[str, Any] = {}
    if to:
        end = driver.execute_script(CARD_END, to)
        clip = {"x": 0, "y": 0, "width": width, "height": math.ceil(end) + MARGIN, "scale": 1}
        how = {"captureBeyondViewport": True, "clip": clip}
    path.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", how)["data"]))
    print(f"{path}: {path.stat().st_size:,} bytes")


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

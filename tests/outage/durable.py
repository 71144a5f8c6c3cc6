"""Power cuts under a durable `Store`, as a whole: settings, log, snapshots, opening and closing."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from shmkv import Store

from .recording import Recorder
from .trial import Model, Subject, run_steps

KEYS = 40
SIZE = "4MiB"
LONG = 10**6  # seconds: a ttl that no run sees the end of
LARGEST = 4 << 20

Change = tuple[str, dict[str, Any], list[str]]  # what it is, what is put, what is deleted


def change_of(seed: int, number: int) -> Change:
    rng = random.Random(f"{seed}: {number}")
    kind = rng.choices(
        ["put", "put_many", "delete", "delete_many", "incr", "clear", "snapshot"], [30, 15, 15, 8, 15, 2, 5]
    )[0]
    keys = [f"key{i}" for i in rng.sample(range(KEYS), 1 if kind in ("put", "delete") else 4)]
    puts = {key: f"{number}:" + "x" * rng.choice([0, 30, 300, 1500]) for key in keys}
    return kind, puts, keys


# ---- In the process that is recorded ------------------------------------------------------------------


def change(store: Store, seed: int, number: int) -> bool:
    kind, puts, keys = change_of(seed, number)
    if kind == "put":
        for key, value in puts.items():
            store.put(key, value, ttl=LONG if number % 5 == 0 else None)
    elif kind == "put_many":
        store.put_many(puts)
    elif kind == "delete":
        return bool(store.delete(keys[0]))
    elif kind == "delete_many":
        store.delete_many(keys)
    elif kind == "incr":
        store.incr("counter", number)
    elif kind == "clear":
        store.clear()
    else:
        store.snapshot()
    return True


def main(folder: str, trace: str, seed: int, sync: str, first: int, last: int) -> None:
    recorder = Recorder(folder, trace)
    with Store.open(folder, size=SIZE, sync=sync) as store:
        run_steps(recorder, range(first, last), lambda number: change(store, seed, number))


# ---- Outside ---------------------------------------------------------------------------------------------


def after(model: Model, seed: int, number: int) -> Model:
    kind, puts, keys = change_of(seed, number)
    if kind == "clear":
        return {}
    if kind in ("put", "put_many"):
        return {**model, **puts}
    if kind == "incr":
        return {**model, "counter": model.get("counter", 0) + number}
    if kind == "snapshot":
        return model
    return {key: value for key, value in model.items() if key not in keys}


def visible(model: Model, step: int) -> Model:
    return model


def look(folder: Path, step: int) -> Model:
    with Store.open(folder, size=SIZE, sync="none") as store:
        assert store.check().ok
        return {str(key): value for key, value in store.items()}


def go_on(folder: Path, step: int) -> None:
    before = look(folder, step)
    with Store.open(folder, size=SIZE, sync="none") as store:
        assert dict(store.items()) == before
        store.put_many({"another": 1, "last": 2})
    assert look(folder, step) == {**before, "another": 1, "last": 2}


SUBJECT = Subject("durable", "outage.durable", after, visible, look, go_on, LARGEST)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))

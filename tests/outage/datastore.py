"""Power cuts under a `DataStore` with segments of 6 KB, so that they are emptied all the time."""

from __future__ import annotations

import random
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from shmkv import DataStore, DuplicateKeyError, MissingKeyError
from shmkv import datastore as module

from .recording import Recorder
from .trial import Model, Subject, run_steps

KEYS = 30
EPOCH_MS = 1_800_000_000_000
STEP_MS = 1000
LIMIT = 64_000  # bytes


class Step(NamedTuple):
    creates: bool
    key: str
    text: str
    ttl: int | None


def step_of(seed: int, number: int) -> Step:
    rng = random.Random(f"{seed}: {number}")
    length = rng.choice([0, 30, 300, 900, 2000])
    ttl = rng.choice([None, None, None, 5, 40])
    return Step(rng.random() < 0.55, f"key{rng.randrange(KEYS)}", f"{number}:" + "x" * length, ttl)


def small(step: int) -> AbstractContextManager[Any]:
    """Small limits, and the clock of the wall at that step."""
    return mock.patch.multiple(
        module,
        SEGMENT=6_000,
        RESERVE=12_000,
        LIMIT=LIMIT,
        GATHERED_AT_ONCE=512,
        INDEX_BYTES=8 << 20,
        _now_ms=lambda: now_ms(step),
    )


def now_ms(step: int) -> int:
    return EPOCH_MS + STEP_MS * step


# ---- In the process that is recorded ------------------------------------------------------------------


def main(folder: str, trace: str, seed: int, sync: str, first: int, last: int) -> None:
    recorder = Recorder(folder, trace)
    with small(first), DataStore(folder, sync=sync) as data:

        def change(number: int) -> bool:
            module._now_ms = lambda: now_ms(number)
            step = step_of(seed, number)
            try:
                if step.creates:
                    data.create(step.key, {"text": step.text}, step.ttl)
                else:
                    data.delete(step.key)
            except (DuplicateKeyError, MissingKeyError):
                return False
            return True

        run_steps(recorder, range(first, last), change)


# ---- Outside ---------------------------------------------------------------------------------------------


def after(model: Model, seed: int, number: int) -> Model:
    step = step_of(seed, number)
    changed = {key: item for key, item in model.items() if key != step.key}
    if step.creates:
        changed[step.key] = (step.text, now_ms(number) + 1000 * step.ttl if step.ttl else 0)
    return changed


def visible(model: Model, step: int) -> Model:
    return {key: item for key, item in model.items() if not 0 < item[1] <= now_ms(step)}


def look(folder: Path, step: int) -> Model:
    with small(step), DataStore(folder, sync="none") as data:
        assert data._files.taken - module.LOCK_BYTES + (folder / "lock").stat().st_size == size_of(folder)
        assert data._files.live == sum(place[2] for _, place in data._index.items())
        return {key: (value["text"], data._index.get(key)[3]) for key, value in data.range()}  # type: ignore[index]


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def go_on(folder: Path, step: int) -> None:
    before = look(folder, step)
    with small(step), DataStore(folder) as data:
        data.create("another", {"text": "z" * 3000})
        for key in list(before)[::2]:
            data.delete(key)
            del before[key]
        for i in range(8):
            data.create(f"more{i}", {"text": "z" * 1500})
            data.delete(f"more{i}")
        data.create("last", {"text": "last"})
    assert look(folder, step) == {**before, "another": ("z" * 3000, 0), "last": ("last", 0)}


SUBJECT = Subject("datastore", "outage.datastore", after, visible, look, go_on, largest=LIMIT)

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))

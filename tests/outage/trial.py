"""A run of steps, cut off after each change of its disk: what comes back has to be the steps up to some point.

With sync="always" that is the last step that was acknowledged, or the one under way; otherwise any since the last sync.
A run may begin in a folder that a cut has left.
"""

from __future__ import annotations

import contextlib
import enum
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import Disk
from .recording import Event, Kind, Recorder, record

__all__ = ["Model", "Run", "Subject", "Trial", "judge_runs", "run_steps"]

Model = dict[str, Any]
CUTS = 2  # after each change
GONE_ON_WITH = 8  # each so manieth state is written to, closed and opened again
MEMORY = Path("/dev/shm")  # where a sync costs nothing

# ---- In the process that is recorded ------------------------------------------------------------------


class Outcome(enum.IntEnum):
    """Marks of step n: 3 n before it, and after it one of these more."""

    DONE = 1
    REFUSED = 2


def run_steps(recorder: Recorder, steps: range, step: Callable[[int], bool]) -> None:
    """`step(n)` says whether it was done or refused."""
    for n in steps:
        recorder.mark(3 * n)
        recorder.mark(3 * n + (Outcome.DONE if step(n) else Outcome.REFUSED))


# ---- Outside ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A kind of store."""

    name: str
    module: str  # run with folder, trace, seed, sync, first step, step behind the last one
    after: Callable[[Model, int, int], Model]  # model, seed, step that was done
    visible: Callable[[Model, int], Model]  # what of it is there at the time of a step
    look: Callable[[Path, int], Model]  # what opening the folder brings back at that time
    go_on: Callable[[Path, int], None]  # open, change, close, open again; raises where something is missing
    largest: int  # bytes of all files together, at any instant


@dataclass(frozen=True)
class Run:
    seed: int
    sync: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"seed {self.seed}, sync={self.sync!r}, steps {self.first} to {self.last}"


class Trial:
    """A run that has been recorded, and is being judged."""

    def __init__(self, subject: Subject, run: Run, folder: Path, begins_as: Model) -> None:
        self._subject, self._run = subject, run
        self._models = [begins_as]  # after each step that was done
        self._floor = 0  # the first of them that may come back
        self._step = run.first
        self._under_way = False
        self._done: set[int] = set()  # steps that were not refused
        self.states = self.went_on = 0
        self._disk = Disk(folder)
        with tempfile.NamedTemporaryFile(prefix="shmkv-trace-") as trace:
            steps = (run.seed, run.sync, run.first, run.last)
            self._events = record(subject.module, folder, Path(trace.name), *steps)
        marks = [divmod(event.at, 3) for event in self._events if event.kind is Kind.MARK]
        self._done = {step for step, outcome in marks if outcome == Outcome.DONE}
        self._left = folder

    def judge(self, cuts: int = CUTS) -> None:
        """Every state that is looked at; AssertionError says which of them is wrong."""
        for number, event in enumerate(self._events):
            if event.kind is Kind.MARK:
                self._pass(event.at)
                continue
            self._disk.apply(event)
            if event.kind is Kind.SYNCED and self._is_latest(event):
                self._floor = len(self._models) - 1
            assert self._disk.size <= self._subject.largest, f"{self._run}, event {number}: {self._disk.size} bytes"
            for cut in range(1 if self._disk.is_safe else cuts):
                self._cut(number, cut)
        real = {path.name: path.read_bytes() for path in self._left.iterdir()}
        assert self._disk.content() == real, "the record of calls is not what happened to the folder"

    def state_after_half(self) -> tuple[dict[str, bytes], Model, int]:
        """What a cut in the middle of the run may leave, its model, and its step; for the next run to begin with.

        Of a trial that has not been judged, which this uses up.
        """
        half = len(self._events) // 2
        for event in self._events[:half]:
            if event.kind is Kind.MARK:
                self._pass(event.at)
            else:
                self._disk.apply(event)
        content = self._disk.cut(random.Random(f"{self._run}: half"))
        with _folder_with(content) as folder:
            return content, self._subject.look(Path(folder), self._step), self._step

    def _pass(self, mark: int) -> None:
        self._step, outcome = divmod(mark, 3)
        self._under_way = outcome == 0
        if outcome == Outcome.DONE:
            self._models.append(self._subject.after(self._models[-1], self._run.seed, self._step))
            if self._run.sync == "always":
                self._floor = len(self._models) - 1

    def _is_latest(self, event: Event) -> bool:
        """Segments before the latest one are safe."""
        name = self._disk.name_of(event.file)
        return name.endswith(".log") and name == max(each for each in self._disk.content() if each.endswith(".log"))

    def _legal(self) -> list[Model]:
        legal = self._models[self._floor :]
        if self._under_way and self._step in self._done:
            legal = [*legal, self._subject.after(self._models[-1], self._run.seed, self._step)]
        return [self._subject.visible(model, self._step) for model in legal]

    def _cut(self, number: int, cut: int) -> None:
        rng = random.Random(f"{self._run}: {number}, {cut}")
        content = self._disk.cut(rng)
        where = f"{self._run}: the power is cut after event {number} ({self._events[number].kind.name}), cut {cut}"
        with _folder_with(content) as folder:
            try:
                found = self._subject.look(Path(folder), self._step)
                legal = self._legal()
                assert any(found == model for model in legal), _difference(found, legal)
                if rng.randrange(GONE_ON_WITH) == 0:
                    self._subject.go_on(Path(folder), self._step)
                    self.went_on += 1
            except Exception as error:
                sizes = {name: len(each) for name, each in sorted(content.items())}
                raise AssertionError(f"{where}: {error!r}\nleft on the disk: {sizes}") from error
        self.states += 1


def _difference(found: Model, legal: list[Model]) -> str:
    nearest = min(legal, key=lambda model: len(set(found.items()) ^ set(model.items())))
    lost = sorted(set(nearest.items()) - set(found.items()))
    new = sorted(set(found.items()) - set(nearest.items()))
    return f"not what {len(legal)} points of the run have: lost {str(lost)[:500]}, there instead {str(new)[:500]}"


@contextlib.contextmanager
def _folder_with(content: dict[str, bytes]) -> Iterator[str]:
    where = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="shmkv-outage-", dir=where) as folder:
        for name, each in content.items():
            (Path(folder) / name).write_bytes(each)
        yield folder


# ---- All of it -----------------------------------------------------------------------------------------------


def judge_runs(subject: Subject, seed: int, sync: str, steps: int, cuts: int = CUTS) -> dict[str, float]:
    """A run from an empty folder, and one from where a cut had left it; what was counted."""
    states = went_on = 0
    content: dict[str, bytes] = {}
    model: Model = {}
    first = 0
    for _ in range(2):
        run = Run(seed, sync, first, first + steps)
        with _folder_with(content) as folder:
            trial = Trial(subject, run, Path(folder), model)
            trial.judge(cuts)
            states += trial.states
            went_on += trial.went_on
        with _folder_with(content) as folder:
            content, model, first = Trial(subject, run, Path(folder), model).state_after_half()
    return {f"{subject.name}_states": states, f"{subject.name}_went_on": went_on}

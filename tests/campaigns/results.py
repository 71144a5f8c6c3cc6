"""What the long run has found so far: one file for each campaign, committed with the page that shows it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .campaign import Campaign, Figures, join

FOLDER = Path(__file__).resolve().parent / "results"
ROOT = FOLDER.parent.parent.parent
WRITTEN = ("tests/campaigns/results", "docs/reliability.md")  # by the run itself


@dataclass
class Result:
    parts_done: int = 0
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    when: str = ""
    commits: dict[str, int] = field(default_factory=dict)  # how many parts tested which
    passed: list[str] = field(default_factory=list)  # of each part since 2026-12: its day and commit
    machine: str = ""

    def add(self, figures: Figures, seconds: float) -> None:
        """Of the next part; what it had violated before is mended."""
        self.figures = join(self.figures, figures)
        self.violations = [sentence for sentence in self.violations if not sentence.startswith(self._part())]
        self.parts_done += 1
        self.seconds += seconds
        self.when = time.strftime("%Y-%m-%d", time.gmtime())
        tested = _commit()
        self.commits[tested] = self.commits.get(tested, 0) + 1
        self.passed.append(f"part {self.parts_done - 1}: {self.when} {tested}")
        self.machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, {platform.machine()}"

    def violate(self, sentence: str) -> None:
        self.violations.append(self._part() + sentence)

    def _part(self) -> str:
        return f"part {self.parts_done}: "


def changes() -> str:
    """What differs from the commit, but for what the run itself writes; empty if nothing does."""
    return _git("status", "--porcelain", "--", ".", *(f":!{path}" for path in WRITTEN))


def _commit() -> str:
    return _git("rev-parse", "--short=12", "HEAD")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=30).stdout.strip()


def load(campaign: Campaign) -> Result:
    path = FOLDER / f"{campaign.name}.json"
    return Result(**json.loads(path.read_text())) if path.exists() else Result()


def save(campaign: Campaign, result: Result) -> None:
    """By a rename, so that a run that is stopped leaves the old file or the new one."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{campaign.name}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(result), indent=1) + "\n")
    fresh.replace(path)

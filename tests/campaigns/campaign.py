"""What a campaign is: a claim about shmkv, and a long run that tries to break it, part by part."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Figures = dict[str, float]


class Unsuited(Exception):  # noqa: N818
    """A part cannot be done on this machine, or not now; says why.  No violation: the part is left for later."""


# Figures whose names begin so are joined by the greatest; all others are added up.
GREATEST = ("longest_", "largest_")


@dataclass(frozen=True)
class Campaign:
    """A claim, how it is tested, and the parts that the long run consists of.

    `run(part, scratch)` does one part, of a minute or two, in an empty folder of its own and returns what it counted.
    A violation is an AssertionError that says how to see it again; all random choices of a part follow from its number.
    """

    name: str
    claim: str
    how: str
    parts: int
    run: Callable[[int, Path], Figures]
    at_least: Mapping[str, float] = field(default_factory=dict)  # figures that the long run has to reach
    at_most: Mapping[str, float] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)  # program that it needs -> Debian package
    headers: Mapping[str, str] = field(default_factory=dict)  # file below /usr/include -> Debian package
    modules: Mapping[str, str] = field(default_factory=dict)  # module that it needs -> extra of this project
    table: Sequence[Sequence[str]] = ()  # for the page: its first row is the head

    def missing(self) -> list[str]:
        """Debian packages, and extras of this project (`shmkv[...]`), that have to be installed first."""
        lacking = [package for command, package in self.commands.items() if not shutil.which(command)]
        lacking += [package for name, package in self.headers.items() if not (Path("/usr/include") / name).exists()]
        lacking += [f"shmkv[{extra}]" for name, extra in self.modules.items() if not importlib.util.find_spec(name)]
        return sorted(set(lacking))


def join(total: Mapping[str, float], more: Mapping[str, float]) -> Figures:
    """The figures of two parts as one."""
    joined = dict(total)
    for name, value in more.items():
        if name.startswith(GREATEST):
            joined[name] = max(joined.get(name, value), value)
        else:
            joined[name] = joined.get(name, 0) + value
    return joined


def shortfalls(campaign: Campaign, figures: Mapping[str, float]) -> list[str]:
    """A sentence for each figure that is not what was promised."""
    low = [
        f"{name} is {figures.get(name, 0):,}, not {goal:,} or more"
        for name, goal in campaign.at_least.items()
        if figures.get(name, 0) < goal
    ]
    high = [
        f"{name} is {figures.get(name, goal):,}, not {goal:,} or less"
        for name, goal in campaign.at_most.items()
        if figures.get(name, 0) > goal
    ]
    return low + high

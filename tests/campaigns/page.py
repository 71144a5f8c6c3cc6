"""Writes docs/reliability.md: claims, how each is tested, and the figures of the long run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .campaign import Campaign, shortfalls
from .results import Result, load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"

HEAD = """\
# Reliability

<!-- Written by `python -m tests.campaigns` from tests/campaigns/results/*.json: do not edit. -->

What shmkv claims, how each claim is attacked, and what the last long run counted. The suite (`pytest --all`) does a
part of every campaign each time; `.ci/full`, or `python -m tests.campaigns`, does all of it, can be stopped at any
moment, and goes on where it was. Every random choice follows from the number of the part, so a part that found
something can be run again.

A figure is *short* while the long run has not reached what was promised.
"""


def write_page(campaigns: list[Campaign]) -> None:
    PAGE.write_text(page([(campaign, load(campaign)) for campaign in campaigns]))


def page(told: list[tuple[Campaign, Result]]) -> str:
    return "\n".join([HEAD, _summary(told), *(_section(campaign, result) for campaign, result in told)])


def _verdict(campaign: Campaign, result: Result) -> str:
    if result.violations:
        return f"**{len(result.violations)} violations**"
    if result.parts_done == 0:
        return "not run yet"
    if result.parts_done < campaign.parts:
        return f"no violation in {result.parts_done} of {campaign.parts} parts"
    return "short" if shortfalls(campaign, result.figures) else "holds"


def _summary(told: list[tuple[Campaign, Result]]) -> str:
    rows = [(f"[{c.name}](#{c.name})", c.claim, _verdict(c, r)) for c, r in told]
    return "\n".join(_table([("campaign", "claim", "long run"), *rows]))


def _section(campaign: Campaign, result: Result) -> str:
    lines = [f"## {campaign.name}", "", campaign.claim, "", campaign.how, ""]
    lines += [f"    python -m tests.campaigns {campaign.name}", ""]
    if result.figures:
        lines += _figures(campaign, result)
    if campaign.table:
        lines += _table(campaign.table)
    lines += [f"- {sentence}" for sentence in result.violations]
    if result.parts_done:
        minutes = result.seconds / 60
        lines += [
            f"{result.parts_done} of {campaign.parts} parts, {minutes:,.0f} minutes, until {result.when}, "
            f"{_commits(result)}; {result.machine}.",
            "",
        ]
    return "\n".join(lines)


def _commits(result: Result) -> str:
    """What was tested: a run that is stopped and gone on with may see more than one state of the project."""
    if len(result.commits) == 1:
        return f"commit `{next(iter(result.commits))}`"
    return "parts of each commit: " + ", ".join(f"{parts} of `{commit}`" for commit, parts in result.commits.items())


def _figures(campaign: Campaign, result: Result) -> list[str]:
    rows = [(_words(name), _number(value), _promise(campaign, name)) for name, value in result.figures.items()]
    return _table([("figure", "counted", "promised"), *rows])


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def _promise(campaign: Campaign, name: str) -> str:
    if name in campaign.at_least:
        return f"at least {_number(campaign.at_least[name])}"
    if name in campaign.at_most:
        return f"at most {_number(campaign.at_most[name])}"
    return ""

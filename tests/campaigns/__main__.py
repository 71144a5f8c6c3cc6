"""The long run: every campaign, part by part, to be stopped and gone on with at any time.

    python -m tests.campaigns [NAME...] [--seconds N] [--restart] [--list]
    python -m tests.campaigns --page

Each part's figures are joined into tests/campaigns/results/NAME.json as soon as it ends; a part that was
interrupted is done again.  A tree with changes is refused.  A violation is written there too, with the part that
found it, and ends the run with 1.
Afterwards, and with --page alone, docs/reliability.md is written from the results.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .campaign import Campaign, Unsuited, shortfalls
from .catalogue import campaigns
from .page import write_page
from .results import Result, changes, load, save


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description="Run the long campaigns.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="campaigns to run (default: all)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no part after so many seconds")
    parser.add_argument("--restart", action="store_true", help="forget earlier results, of other commits")
    parser.add_argument("--list", action="store_true", help="print the campaigns and how far each is, and end")
    parser.add_argument("--page", action="store_true", help="only write docs/reliability.md from the results")
    return parser.parse_args()


def chosen(names: list[str]) -> list[Campaign]:
    known = {campaign.name: campaign for campaign in campaigns()}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"there is no campaign {unknown[0]!r}; these are: {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


def print_list(wanted: list[Campaign]) -> None:
    for campaign in wanted:
        result = load(campaign)
        print(f"{campaign.name:<20} {result.parts_done:>5} of {campaign.parts:>5} parts  {campaign.claim}")


def run_part(campaign: Campaign, result: Result) -> bool:
    """False: a violation, which is noted."""
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="shmkv-campaign-") as scratch:
            figures = campaign.run(result.parts_done, Path(scratch))
    except AssertionError:
        result.violate(traceback.format_exc(limit=-1).strip())
        save(campaign, result)
        return False
    result.add(figures, time.monotonic() - start)
    save(campaign, result)
    return True


def run_campaign(campaign: Campaign, result: Result, until: float, progress: Progress, task: TaskID) -> bool:
    while result.parts_done < campaign.parts and time.monotonic() < until:
        try:
            fine, why = run_part(campaign, result), "".join(result.violations[-1:])
        except Unsuited as reason:
            fine, why = False, f"part {result.parts_done} is left for later: {reason}"
        if not fine:
            progress.console.print(f"[bold red]{campaign.name}[/]: {why}", markup=True, highlight=False)
            return False
        progress.update(task, completed=result.parts_done)
    return True


def run_all(wanted: list[Campaign], restart: bool, seconds: float) -> bool:
    until = time.monotonic() + seconds
    good = True
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        for campaign in wanted:
            missing = campaign.missing()
            if missing:
                progress.console.print(f"{campaign.name} needs the packages {' '.join(missing)}: left out")
                good = False
                continue
            result = Result() if restart else load(campaign)
            task = progress.add_task(campaign.name, total=campaign.parts, completed=result.parts_done)
            good &= run_campaign(campaign, result, until, progress, task)
    return good


def main() -> int:
    options = arguments()
    wanted = chosen(options.names)
    if options.list:
        print_list(wanted)
        return 0
    if not options.page and (changed := changes()):
        sys.exit(f"commit first: a figure belongs to a commit that others can check out\n{changed}")
    good = options.page or run_all(wanted, options.restart, options.seconds)
    write_page(campaigns())
    for campaign in wanted:
        result = load(campaign)
        if result.parts_done >= campaign.parts:
            for sentence in shortfalls(campaign, result.figures):
                print(f"{campaign.name}: {sentence}")
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

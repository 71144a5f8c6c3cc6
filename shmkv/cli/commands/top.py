"""`shmkv top`: a store while it works."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

if TYPE_CHECKING:
    from shmkv.cli.target import Target

DESCRIPTION: Final = """\
Shows a store while it works: what is read, written and removed each second by all processes together, hits, memory,
and who is attached.  On a terminal it is a screen that goes on until Ctrl-C; into a pipe, with
--json, or with --count a line for each interval.
"""
EXAMPLES: Final = """\
shmkv top --store sessions
shmkv top --url http://shop:8003 --interval 5
shmkv top --store sessions --json --count 60 > minute.jsonl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    parser.add_argument("--interval", type=words.seconds, default=1.0, metavar="SECONDS", help="default: 1")
    parser.add_argument("--count", type=words.integer, metavar="N", help="end after so many intervals")
    words.add_json_argument(parser, 'print {"seconds", rates, "stats": {...}} on each line')


def run(args: argparse.Namespace) -> int:
    """Watch until the count, or the user, ends it."""
    with open_target(where_of(args), readonly=True) as target:
        views = _views(target, args.interval, args.count)
        show = None if args.json or args.count is not None or not sys.stdout.isatty() else _screen()
        if show is not None:
            show(target.label, views)
            return EXIT_DONE
        for view in views:
            if args.json:
                out.json_line(view)
            else:
                out.line(render.format_top(view))
            out.flush()
    return EXIT_DONE


def _views(target: Target, interval: float, count: int | None) -> Iterator[dict[str, Any]]:
    """What happened in each interval."""
    before, then = target.stats(), time.monotonic()
    for _ in itertools.count() if count is None else range(count):
        time.sleep(interval)
        after, now = target.stats(), time.monotonic()
        yield {"seconds": round(now - then, 3), **render.rates(before, after, now - then), "stats": after}
        before, then = after, now


def _screen() -> Any:
    """What draws; None where that is not installed: then there are lines."""
    try:
        from shmkv.cli.screen import show
    except ImportError:
        out.complain("top", 'a screen needs rich: pip install "shmkv[cli]"; here are lines')
        return None
    return show

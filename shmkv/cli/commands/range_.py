"""`shmkv range`: a span of keys, sorted, with their values."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints the items with START <= key < STOP, sorted by the bytes of their keys: key, TAB, value on each line.  Text, and
bytes that are text, are quoted where they are not plain, as `shmkv keys` quotes keys; any other value stands there as
Python writes it, and of a pickle how large it is.  --json is for programs.  Only keys of type str; without STOP all
from START on, without either all.  It walks the whole store, whatever the bounds.
"""
EXAMPLES: Final = """\
shmkv range --store prices 2026-11 2026-12           # November
shmkv range --store prices --limit 10 --reverse      # the last ten
shmkv range --url http://shop:8003 a b --json        # an item's form on each line
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("start", metavar="START", nargs="?", help="the first key that counts")
    parser.add_argument("stop", metavar="STOP", nargs="?", help="the first one that does not")
    add_where_arguments(parser)
    parser.add_argument("--limit", type=_count, metavar="N", help="at most so many, the first ones")
    parser.add_argument("--reverse", action="store_true", help="from the last to the first (not over the network)")
    words.add_json_argument(parser, "print an item's form on each line")


def run(args: argparse.Namespace) -> int:
    """Print the items."""
    from shmkv.cli.text import quoted, shown_value
    from shmkv.forms import form_of

    start, stop = (None if word is None else str(words.key_of(word)) for word in (args.start, args.stop))
    with open_target(where_of(args), readonly=True) as target:
        now_ms = target.now_ms()
        for key, record in target.range(start, stop, args.limit, args.reverse):
            if args.json:
                out.json_line(form_of(key, record, now_ms))
            else:
                out.line(f"{quoted(key)}\t{shown_value(record)}")
    return EXIT_DONE


def _count(text: str) -> int:
    count = words.integer(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"0 or more, not {text}")
    return count

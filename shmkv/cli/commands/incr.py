"""`shmkv incr`: add to a number."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE, arguments_checked
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Adds to the number under a key and prints the result; no increment is ever lost.  A number is an int of Python, or
decimal digits in bytes or str, as `shmkv set` stores them.  Where there is none, it begins with --initial.
A value that is no number, or a result beyond 64 bits, changes nothing: exit status 1.
"""
EXAMPLES: Final = """\
shmkv incr --store stats visits                      # 1, then 2, ...
shmkv incr --store stats stock --by -3
shmkv incr --store limits ada --ttl 60               # counts for a minute from the first one on
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="which")
    add_where_arguments(parser)
    parser.add_argument(
        "--by", type=words.integer, default=1, metavar="N", help="how much; may be negative (default: 1)"
    )
    parser.add_argument(
        "--initial", type=words.integer, default=0, metavar="N", help="what a new one begins with (default: 0)"
    )
    words.add_ttl_argument(parser, "a new one expires after so long; one that is there keeps its expiry")
    words.add_quoted_argument(parser)
    words.add_json_argument(parser, 'print {"value": n}')


def run(args: argparse.Namespace) -> int:
    """Count, and print where it stands."""
    key = words.key_of(args.key, is_quoted=args.quoted)
    with open_target(where_of(args), create=True) as target, arguments_checked():
        value = target.incr(key, args.by, args.initial, args.ttl)
    if args.json:
        out.json_line({"value": value})
    else:
        out.line(str(value))
    return EXIT_DONE

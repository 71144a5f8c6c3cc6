"""`shmkv keys`: the keys, bucket by bucket."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE, UsageError
from shmkv.cli.text import quoted
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints the keys, one to a line, in no order, while the store is walked: each that is there throughout comes exactly
once, and nobody waits.  A key of characters that print stands for itself; any other str is a JSON string in double
quotes, and a bytes key is base64:...; --quoted of other commands takes keys back in this form.
"""
EXAMPLES: Final = """\
shmkv keys --store sessions --prefix user: | sort
shmkv keys --store sessions -0 | xargs -0 -n 1 echo     # as they are, each ended by NUL
shmkv keys --url unix:/run/shop.sock --json             # {"key": ...} or {"key_base64": ...} on each line
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    parser.add_argument("--prefix", metavar="TEXT", help="only str keys that begin so")
    parser.add_argument(
        "-0", "--null", action="store_true", help="unquoted, each ended by NUL (a bytes key looks like a str one then)"
    )
    words.add_json_argument(parser, "print a key's form on each line")


def run(args: argparse.Namespace) -> int:
    """Print them as they come."""
    if args.null and args.json:
        raise UsageError("--null and --json exclude each other")
    from shmkv.forms import key_form

    prefix = None if args.prefix is None else str(words.key_of(args.prefix))
    with open_target(where_of(args), readonly=True) as target:
        for key in target.keys(prefix):
            if args.null:
                out.write((key.encode() if isinstance(key, str) else key) + b"\0")
            elif args.json:
                out.json_line(key_form(key))
            else:
                out.line(quoted(key))
    return EXIT_DONE

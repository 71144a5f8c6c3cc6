"""`shmkv del`: remove keys."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Removes the keys, all at one instant.  If some were not there, the others are gone and the exit status is 1.
"""
EXAMPLES: Final = """\
shmkv del --store sessions user:1 user:2
shmkv keys --store sessions --prefix tmp: | xargs -d '\\n' shmkv del --store sessions --quoted
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEY", nargs="+", help="which")
    add_where_arguments(parser)
    words.add_quoted_argument(parser)
    words.add_json_argument(parser, 'print {"deleted": n}')


def run(args: argparse.Namespace) -> int:
    """Remove them; 1 if one was missing."""
    keys = words.keys_of(args.keys, is_quoted=args.quoted)
    with open_target(where_of(args)) as target:
        deleted = target.delete(keys)
    if args.json:
        out.json_line({"deleted": deleted})
    missing = len(keys) - deleted
    if not missing:
        return EXIT_DONE
    out.complain("del", f"{missing} of {len(keys)} keys {'was' if missing == 1 else 'were'} not there")
    return EXIT_CONDITION

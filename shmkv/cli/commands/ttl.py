"""`shmkv ttl`: how long a key has left."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE
from shmkv.cli.text import quoted
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints the seconds until the key expires, with three decimals, or `none` if it stays.  A missing key: exit status 1.
"""
EXAMPLES: Final = """\
shmkv ttl --store sessions user:1     # 1799.204
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="which")
    add_where_arguments(parser)
    words.add_quoted_argument(parser)
    words.add_json_argument(parser, 'print {"ttl": seconds or null}')


def run(args: argparse.Namespace) -> int:
    """Print what is left; 1 if there is no such key."""
    key = words.key_of(args.key, is_quoted=args.quoted)
    with open_target(where_of(args), readonly=True) as target:
        try:
            left = target.ttl(key)
        except KeyError:
            out.complain("ttl", f"there is no key {quoted(key)}")
            return EXIT_CONDITION
    if args.json:
        out.json_line({"ttl": left})
    else:
        out.line("none" if left is None else f"{left:.3f}")
    return EXIT_DONE

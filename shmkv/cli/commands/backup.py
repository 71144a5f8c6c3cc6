"""`shmkv backup`: copy a durable store as it is at one instant."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_store, where_of

DESCRIPTION: Final = """\
Copies a durable store, as it is at one instant, to a directory that is not there yet or is empty; others read and
write meanwhile.  `--path` says which store.  The copy is a durable store itself.  To restore it, close the store
everywhere, move everything out of its directory, and copy the backup there.
"""
EXAMPLES: Final = """\
shmkv backup --path /srv/store /srv/backup/monday
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIRECTORY", help="where to")
    add_where_arguments(parser, remote=False)
    words.add_json_argument(parser, 'print {"items": N, "bytes": N}')


def run(args: argparse.Namespace) -> int:
    """Do it, and say how much it was."""
    with open_store(where_of(args)) as store:
        made = asdict(store.backup(args.directory))
    if args.json:
        out.json_line(made)
    else:
        out.line(f"{made['items']:,} items, {made['bytes']:,} bytes in {args.directory}")
    return EXIT_DONE

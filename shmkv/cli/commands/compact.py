"""`shmkv compact`: collect what nobody needs any more."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_store, where_of

DESCRIPTION: Final = """\
Drops what has expired, collects what dead processes left, and gathers the items into full pages.  The emptied pages
serve any later size, and go back to the system if no other process is attached.  Others read and write meanwhile.
Nothing needs it; run it after large deletions, or when `shmkv doctor` says so.
"""
EXAMPLES: Final = """\
shmkv compact --store sessions
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser, remote=False)
    words.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Do it, and say what became of it."""
    with open_store(where_of(args)) as store:
        report = asdict(store.compact())
    if args.json:
        out.json_line(report)
    else:
        out.line(render.format_compact(report))
    return EXIT_DONE

"""`shmkv stats`: the numbers of a store."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints what a store counts: items, reads and writes of all processes that ever used it, memory, and the living
processes that are attached with the right to write.
"""
EXAMPLES: Final = """\
shmkv stats --store sessions
shmkv stats --store sessions --json | jq .hit_rate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    words.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print them."""
    with open_target(where_of(args), readonly=True) as target:
        stats = target.stats()
    if args.json:
        out.json_line(stats)
    else:
        out.line(render.format_stats(stats))
    return EXIT_DONE

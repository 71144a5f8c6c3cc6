"""`shmkv ls`: the stores of this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE

if TYPE_CHECKING:
    from shmkv.reports import StoreInfo

DESCRIPTION: Final = """\
Lists this user's stores on this machine, private ones (private.PID...) and the memory of durable ones
(durable.DEVICE.INODE) included: the most that each may take, what it takes, how many processes are attached with the
right to write, and why nobody can attach to it where that is so.  Nothing is attached to.
"""
EXAMPLES: Final = """\
shmkv ls
shmkv ls --names | xargs -n 1 shmkv check --store
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--names", action="store_true", help="only the names, one to a line")
    words.add_json_argument(parser, "print a store's facts on each line")


def run(args: argparse.Namespace) -> int:
    """Print them, sorted by name."""
    from shmkv.store import list_stores

    stores = [_facts(info) for info in list_stores()]
    if args.json:
        for facts in stores:
            out.json_line(facts)
    elif args.names:
        for facts in stores:
            out.line(facts["name"])
    elif stores:
        out.line(render.format_stores(stores))
    return EXIT_DONE


def _facts(info: StoreInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "size": info.size,
        "committed": info.committed,
        "processes": info.processes,
        "on_full": info.on_full,
        "created": info.created.isoformat(timespec="seconds") if info.created else None,
        "uuid": str(info.uuid) if info.uuid else None,
        "problem": info.problem,
        "path": info.path,
    }

"""`shmkv ls`: the stores of this machine."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE

if TYPE_CHECKING:
    from shmkv.reports import StoreInfo

DESCRIPTION: Final = """\
Lists this user's stores on this machine, private ones (private.PID...) and the memory of durable ones
(durable.DEVICE.INODE) included: the most that each may take, what it takes, how many processes are attached with the
right to write, and why nobody can attach to it where that is so.  Nothing is attached to.

--foreign lists the stores of other users as well, and says whose each is; other commands take one that lets this user
in by --store NAME --foreign.
"""
EXAMPLES: Final = """\
shmkv ls
shmkv ls --names | xargs -n 1 shmkv check --store
shmkv ls --foreign                     # of every user
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--foreign", action="store_true", help="those of other users too")
    parser.add_argument("--names", action="store_true", help="only the names, one to a line")
    words.add_json_argument(parser, "print a store's facts on each line")


def run(args: argparse.Namespace) -> int:
    """Print them, sorted by name."""
    from shmkv.store import list_stores

    stores = [_facts(info) for info in list_stores(foreign=args.foreign)]
    if args.json:
        for facts in stores:
            out.json_line(facts)
    elif args.names:
        for facts in stores:
            out.line(facts["name"])
    elif stores:
        out.line(render.format_stores(stores, os.geteuid(), users=args.foreign))
    return EXIT_DONE


def _facts(info: StoreInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "uid": info.uid,
        "size": info.size,
        "committed": info.committed,
        "processes": info.processes,
        "on_full": info.on_full,
        "created": info.created.isoformat(timespec="seconds") if info.created else None,
        "uuid": str(info.uuid) if info.uuid else None,
        "problem": info.problem,
        "path": info.path,
    }

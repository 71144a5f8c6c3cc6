"""`shmkv doctor`: what is wrong around a store, and how to mend it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, UsageError, arguments_checked

if TYPE_CHECKING:
    from shmkv.reports import StoreInfo

DESCRIPTION: Final = """\
Looks for what is wrong around a store, or around all of this user's: a /dev/shm that is too small for it, processes
that ended without closing it, stores of an earlier boot and others that nobody can attach to, a stopped process that
holds a lock, memory that `shmkv compact` would give back.  Each finding comes with why it matters and the command
that mends it; nothing is changed.  Exit status 1 if there is one.

--foreign looks at other users' stores too, those that let this user read; with --store at another user's of that name
if this user has none.  What mends them is for their users to do, or for root.
"""
EXAMPLES: Final = """\
shmkv doctor
shmkv doctor --store sessions --json
sudo shmkv doctor --foreign            # of every user
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Not from the environment: without an option all stores are looked at.
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--store", metavar="NAME", help="this one (default: all of this user)")
    group.add_argument("--path", metavar="DIR", help="the durable store in this directory")
    parser.add_argument(
        "--foreign",
        action="store_true",
        help="other users' stores too; with --store: if this user has none of that name, another user's",
    )
    words.add_json_argument(parser, 'print {"stores": n, "findings": [...]}')


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if there are any."""
    from shmkv.cli.doctor import examine, of_other_releases, without_a_name

    if args.foreign and args.path is not None:
        raise UsageError("--foreign is about stores with names: a directory says by itself who may use it")
    stores = _chosen(args)
    found = examine(stores, args.path)
    if args.store is None and args.path is None:
        found += without_a_name(stores) + of_other_releases()
    findings = [finding._asdict() for finding in found]
    if args.json:
        out.json_line({"stores": len(stores), "findings": findings})
    else:
        out.line(render.format_findings(len(stores), findings, os.geteuid()))
    return EXIT_CONDITION if findings else EXIT_DONE


def _chosen(args: argparse.Namespace) -> list[StoreInfo]:
    from shmkv import region
    from shmkv.cli.doctor import is_open_to_us
    from shmkv.errors import StoreNotFoundError
    from shmkv.store import list_stores

    stores = list_stores(foreign=args.foreign)
    if args.store is None and args.path is None:
        return [info for info in stores if info.uid == os.geteuid() or is_open_to_us(info)]
    with arguments_checked():
        name = args.store if args.path is None else _name_of(args.path)
        target = region.find(name, args.foreign)
    found = [info for info in stores if region.object_name(info.name, info.uid) == target]
    for info in found:
        region.check_readable(info.name, info.uid)
    if not found:
        where = repr(name) if args.path is None else f"open from {args.path}: its files are all there is of it"
        raise StoreNotFoundError(f"there is no store {where}")
    return found


def _name_of(folder: str) -> str:
    from shmkv.errors import StoreNotFoundError
    from shmkv.region import durable_name

    try:
        facts = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise StoreNotFoundError(f"there is no directory {folder}") from None
    return durable_name(facts.st_dev, facts.st_ino)

"""`shmkv doctor`: what is wrong around a store, and how to mend it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, arguments_checked

if TYPE_CHECKING:
    from shmkv.reports import StoreInfo

DESCRIPTION: Final = """\
Looks for what is wrong around a store, or around all of this user's: a /dev/shm that is too small for it, processes
that ended without closing it, stores of an earlier boot and others that nobody can attach to, a stopped process that
holds a lock, memory that `shmkv compact` would give back.  Each finding comes with why it matters and the command
that mends it; nothing is changed.  Exit status 1 if there is one.
"""
EXAMPLES: Final = """\
shmkv doctor
shmkv doctor --store sessions --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # Not from the environment: without an option all stores are looked at.
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--store", metavar="NAME", help="this one (default: all of this user)")
    group.add_argument("--path", metavar="DIR", help="the durable store in this directory")
    words.add_json_argument(parser, 'print {"stores": n, "findings": [...]}')


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if there are any."""
    from shmkv.cli.doctor import examine, of_other_releases, without_a_name

    stores = _chosen(args)
    found = examine(stores, args.path)
    if args.store is None and args.path is None:
        found += without_a_name(stores) + of_other_releases()
    findings = [finding._asdict() for finding in found]
    if args.json:
        out.json_line({"stores": len(stores), "findings": findings})
    else:
        out.line(render.format_findings(len(stores), findings))
    return EXIT_CONDITION if findings else EXIT_DONE


def _chosen(args: argparse.Namespace) -> list[StoreInfo]:
    from shmkv import region
    from shmkv.errors import StoreNotFoundError
    from shmkv.store import list_stores

    if args.store is None and args.path is None:
        return list_stores()
    with arguments_checked():
        name = args.store if args.path is None else _name_of(args.path)
        region.check_name(name)
    found = [info for info in list_stores() if info.name == name]
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

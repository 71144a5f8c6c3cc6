"""`shmkv check`: is every invariant of a store whole?"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

from shmkv.cli import render
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, UsageError, arguments_checked
from shmkv.cli.where import Where, add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Walks the whole store and checks every invariant; changes nothing, and may run at any time.  Exit status 1 if
something is wrong: then unlink the store and fill it again, and report what was printed.
"""
EXAMPLES: Final = """\
shmkv check --store sessions
shmkv check --store sessions --deep      # without the engine that wrote it
shmkv check --url http://shop:8003       # the server walks
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read the region by its published layout alone, without the engine that wrote it (slow; --store only)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the store and print what was found; 1 if something was."""
    where = where_of(args)
    found = render.check_dict(where.label, _deep_report(where) if args.deep else _report(where), deep=args.deep)
    print(json.dumps(found) if args.json else render.format_check(found))
    return EXIT_DONE if found["ok"] else EXIT_CONDITION


def _report(where: Where) -> dict[str, Any]:
    with open_target(where, readonly=True) as target:
        return target.check()


def _deep_report(where: Where) -> dict[str, Any]:
    from dataclasses import asdict

    from shmkv.deepcheck import deep_check
    from shmkv.region import check_name

    if where.store is None:
        raise UsageError("--deep reads the region of a store of this machine: say --store")
    with arguments_checked():
        check_name(where.store)
    report = deep_check(_path_of(where.store) if where.foreign else where.store)
    return {**asdict(report), "problems": [_problem(*each) for each in report.problems]}


def _path_of(name: str) -> str:
    """Of the region of this user's store, or of another one's."""
    from shmkv import region

    return region.SHM_DIRECTORY + region.find(name, foreign=True)


def _problem(invariant: str, sentence: str) -> dict[str, str]:
    return {"invariant": invariant, "sentence": sentence}

"""`shmkv check`: is every invariant of a store whole?"""

from __future__ import annotations

import argparse
import json

from shmkv.cli import render
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, add_store_argument, arguments_checked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store_argument(parser)
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read the region by its published layout alone, without the engine that wrote it (slow)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the store and print what was found; 1 if something was."""
    report = _deep_report(args.store) if args.deep else _report(args.store)
    found = render.check_dict(args.store, report, deep=args.deep)
    print(json.dumps(found) if args.json else render.format_check(found))
    return EXIT_DONE if found["ok"] else EXIT_CONDITION


def _report(name: str) -> object:
    from shmkv import Store

    with arguments_checked():
        store = Store.attach(name, readonly=True)
    with store:
        return store.check()


def _deep_report(name: str) -> object:
    from shmkv.deepcheck import deep_check
    from shmkv.region import check_name

    with arguments_checked():
        check_name(name)
    return deep_check(name)

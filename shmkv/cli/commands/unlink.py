"""`shmkv unlink`: remove stores."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE, EXIT_NO_STORE, arguments_checked

DESCRIPTION: Final = """\
Removes stores of this machine by their names, which are never taken from the environment.  Processes that are
attached go on until they close; the name is free for a new store at once.  If one does not exist, the others are
removed and the exit status is 69.  A durable store is its directory: close it everywhere and remove that.
"""
EXAMPLES: Final = """\
shmkv unlink sessions
shmkv ls --names | grep '^test-' | xargs shmkv unlink
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="+", help="which")
    words.add_json_argument(parser, 'print {"unlinked": [name, ...]}')


def run(args: argparse.Namespace) -> int:
    """Remove them; 69 if one was not there."""
    from shmkv.errors import StoreNotFoundError
    from shmkv.region import check_name
    from shmkv.store import Store

    with arguments_checked():
        names = [check_name(name) for name in dict.fromkeys(args.names)]
    unlinked = []
    for name in names:
        try:
            Store.unlink_name(name)
            unlinked.append(name)
        except StoreNotFoundError as error:
            out.complain("unlink", str(error))
    if args.json:
        out.json_line({"unlinked": unlinked})
    return EXIT_DONE if len(unlinked) == len(names) else EXIT_NO_STORE

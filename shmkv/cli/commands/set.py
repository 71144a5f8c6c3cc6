"""`shmkv set`: values, all of them or none."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, UsageError, arguments_checked
from shmkv.cli.text import quoted
from shmkv.cli.where import add_where_arguments, open_target, where_of

if TYPE_CHECKING:
    from shmkv.cli.target import Only, Target
    from shmkv.forms import Item

DESCRIPTION: Final = """\
Stores a value under each key: all of them or none, seen by every reader at once.  A store of this machine is made
if it is missing.  A value is the word, stored as str; or the bytes of standard input for -, of a file for @FILE.
--type says otherwise, --bytes stores words as bytes; with --raw every word stands for itself, and behind -- words may
begin with a dash.
"""
EXAMPLES: Final = """\
shmkv set --store sessions user:1 Ada user:2 Alan       # both or neither
shmkv set --store sessions logo @logo.png --content-type image/png
make | shmkv set --store builds log - --ttl 3600         # from standard input, for an hour
shmkv set --store jobs lock "$$" --if-absent --ttl 30    # exit status 1: somebody has it
shmkv set --store jobs config '{"retries": 3}' --type json
cat page.txt | shmkv set --store jobs page - --type str   # what comes from standard input is bytes otherwise
shmkv set --store jobs --raw -- handle @ada flag -x      # as they stand
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", metavar="KEY VALUE", nargs="+", help="pairs of a key and its value")
    add_where_arguments(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--type", choices=words.TYPES, help="what Python gets back (default: str of a word, bytes of - and @FILE)"
    )
    kind.add_argument("--bytes", action="store_const", const="bytes", dest="type", help="the same as --type bytes")
    words.add_ttl_argument(parser, "they expire after so long")
    parser.add_argument(
        "--content-type", metavar="TYPE", help="kept with the value for whoever asks over HTTP; makes it bytes"
    )
    condition = parser.add_mutually_exclusive_group()
    condition.add_argument("--if-absent", action="store_true", help="one key: only if it is not there, else status 1")
    condition.add_argument("--if-present", action="store_true", help="one key: only if it is there, else status 1")
    parser.add_argument("--raw", action="store_true", help="values as they stand: neither - nor @ is special")
    words.add_quoted_argument(parser)
    words.add_json_argument(parser, 'print {"stored": n}')


def run(args: argparse.Namespace) -> int:
    """Store them; 1 if a condition did not hold."""
    items = _items(args)
    only: Only | None = "absent" if args.if_absent else "present" if args.if_present else None
    if only is not None and len(items) > 1:
        raise UsageError(f"--if-{only} is for one key: several have no condition in common")
    with open_target(where_of(args), create=True) as target:
        stored = _store(target, items, only)
    if args.json:
        out.json_line({"stored": stored})
    if stored:
        return EXIT_DONE
    out.complain("set", f"nothing stored: {quoted(items[0][0])} is {'there' if only == 'absent' else 'not there'}")
    return EXIT_CONDITION


def _items(args: argparse.Namespace) -> list[Item]:
    if len(args.words) % 2:
        raise UsageError(f"each key needs a value: {args.words[-1]!r} has none")
    if args.content_type is not None and args.type not in (None, "bytes"):
        raise UsageError("only bytes have a content type")
    values = words.Values("bytes" if args.content_type is not None else args.type, raw=args.raw)
    found: dict[Any, Item] = {}
    for word, value in zip(args.words[::2], args.words[1::2], strict=True):
        key = words.key_of(word, is_quoted=args.quoted)
        found[key] = key, values.value_of(value), args.ttl, args.content_type  # of a key named twice the later
    return list(found.values())


def _store(target: Target, items: list[Item], only: Only | None) -> int:
    with arguments_checked():
        if only is not None:
            return int(target.place(items[0], only))
        target.put(items)
        return len(items)

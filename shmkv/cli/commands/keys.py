"""`shmkv keys`: the keys, bucket by bucket."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import out, render, words
from shmkv.cli.main import EXIT_DONE, UsageError
from shmkv.cli.text import quoted
from shmkv.cli.where import add_where_arguments, open_target, where_of

if TYPE_CHECKING:
    from shmkv.cli.target import Target

SEPARATORS: Final = ":/"  # of shmkv.filling, which --help does not wait for
_SHOWN_PREFIXES: Final = 50

DESCRIPTION: Final = """\
Prints the keys, one to a line, in no order, while the store is walked: each that is there throughout comes exactly
once, and nobody waits.  A key of characters that print stands for itself; any other str is a JSON string in double
quotes, and a bytes key is base64:...; --quoted of other commands takes keys back in this form.

--largest and --by-prefix tell who fills a store: the largest values, or for each prefix (up to the first of the
separators, and with it) how many items there are, the bytes of their keys and values, how many of them expire, and
when the next one does.  The store counts what it evicts as a whole, not for each prefix: that stands at the end.
"""
EXAMPLES: Final = """\
shmkv keys --store sessions --prefix user: | sort
shmkv keys --store sessions -0 | xargs -0 -n 1 echo     # as they are, each ended by NUL
shmkv keys --store sessions --largest 10                # type, bytes, time left, key
shmkv keys --store sessions --by-prefix                 # user:, cart:, page/, ...
shmkv keys --url unix:/run/shop.sock --json             # {"key": ...} or {"key_base64": ...} on each line
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    parser.add_argument("--prefix", metavar="TEXT", help="only str keys that begin so")
    parser.add_argument(
        "-0", "--null", action="store_true", help="unquoted, each ended by NUL (a bytes key looks like a str one then)"
    )
    parser.add_argument("--largest", type=_count, metavar="N", help="the N keys with the largest values, in a table")
    parser.add_argument("--by-prefix", action="store_true", help="what the keys that begin alike take, in a table")
    parser.add_argument(
        "--separators", metavar="CHARS", default=SEPARATORS, help=f"that end a prefix (default: {SEPARATORS})"
    )
    words.add_json_argument(parser, "print a key's form on each line, with its facts; or a prefix with its numbers")


def run(args: argparse.Namespace) -> int:
    """Print them as they come, or what they take."""
    if sum((args.null, args.largest is not None, args.by_prefix)) > 1:
        raise UsageError("of --null, --largest and --by-prefix one is enough")
    if args.null and args.json:
        raise UsageError("--null and --json exclude each other")
    if not args.separators:
        raise UsageError("--separators wants at least one character")
    prefix = None if args.prefix is None else str(words.key_of(args.prefix))
    with open_target(where_of(args), readonly=True) as target:
        if args.largest is not None:
            _print_largest(target, prefix, args.largest, as_json=args.json)
        elif args.by_prefix:
            _print_prefixes(target, prefix, args.separators, as_json=args.json)
        else:
            _print_keys(target, prefix, null=args.null, as_json=args.json)
    return EXIT_DONE


def _print_keys(target: Target, prefix: str | None, *, null: bool, as_json: bool) -> None:
    from shmkv.forms import key_form

    for key in target.keys(prefix):
        if null:
            out.write((key.encode() if isinstance(key, str) else key) + b"\0")
        elif as_json:
            out.json_line(key_form(key))
        else:
            out.line(quoted(key))


def _print_largest(target: Target, prefix: str | None, count: int, *, as_json: bool) -> None:
    from shmkv.filling import largest
    from shmkv.forms import key_form

    facts = largest(target.facts(prefix), count)
    if as_json:
        for fact in facts:
            left = {} if fact.ttl is None else {"ttl": fact.ttl}
            out.json_line({**key_form(fact.key), "type": fact.type, "bytes": fact.size, **left})
    elif facts:
        out.line(render.format_largest([(quoted(fact.key), fact.type, fact.size, fact.ttl) for fact in facts]))


def _print_prefixes(target: Target, prefix: str | None, separators: str, *, as_json: bool) -> None:
    from shmkv.filling import Prefixes

    shares = Prefixes(separators)
    for fact in target.facts(prefix):
        shares.add(fact.key, fact.size, fact.ttl)
    rows = shares.told(_SHOWN_PREFIXES)
    if as_json:
        for row in rows:
            out.json_line(row)
    elif rows:
        out.line(render.format_prefixes([(_name_of(row), row) for row in rows], target.stats()["evicted"]))


def _name_of(row: dict[str, Any]) -> str:
    """A prefix as keys are printed; what is none, in brackets."""
    if "prefix_base64" in row:
        return f"base64:{row['prefix_base64']}"
    return (
        {"without": "(no prefix)", "others": "(other prefixes)"}[row["which"]]
        if "which" in row
        else quoted(row["prefix"])
    )


def _count(text: str) -> int:
    count = words.integer(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"1 or more, not {text}")
    return count

"""`shmkv get`: values, as bytes or as forms."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

if TYPE_CHECKING:
    from shmkv._core import Record
    from shmkv.forms import Key

DESCRIPTION: Final = """\
Prints what is stored under each key: of one key exactly its bytes (and a line end on a terminal), of several keys
one value after the other, each with a line end, as they were at one instant.  bytes are printed as they are, str
as UTF-8, what else has JSON as JSON, the rest (a tuple, a set, a date) as Python writes it.  What a pickle or a codec
object made is refused, as only Python reads it; --json shows its bytes.  A key that is missing is named on standard
error, and the exit status is 1.
"""
EXAMPLES: Final = """\
shmkv get --store sessions user:1              # the value, byte for byte
shmkv get --store sessions logo > logo.png     # binary values as well
shmkv get --url http://shop:8003 a b --json    # {"items": [...], "missing": [...]}, of a server
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEY", nargs="+", help="which")
    add_where_arguments(parser)
    words.add_quoted_argument(parser)
    words.add_json_argument(parser, 'print {"items": [form, ...], "missing": [key, ...]}')


def run(args: argparse.Namespace) -> int:
    """Print the values; 1 if one is missing."""
    keys = words.keys_of(args.keys, is_quoted=args.quoted)
    where = where_of(args)
    # Another user's store may let others read, and no more; of one's own a read counts as one.
    with open_target(where, readonly=where.foreign) as target:
        found = target.fetch(keys)
        now_ms = target.now_ms()
    missing = [key for key in keys if key not in found]
    present = {key: found[key] for key in keys if key in found}
    if args.json:
        _print_forms(present, missing, now_ms)
    else:
        _print_bodies(present, alone=len(keys) == 1)
        for key in missing:
            _complain_of(key)
    return EXIT_CONDITION if missing else EXIT_DONE


def _print_forms(present: dict[Key, Record], missing: list[Key], now_ms: int) -> None:
    from shmkv.forms import form_of, key_form

    items = [form_of(key, record, now_ms) for key, record in present.items()]
    out.json_line({"items": items, "missing": [key if isinstance(key, str) else key_form(key) for key in missing]})


def _print_bodies(present: dict[Key, Record], *, alone: bool) -> None:
    """All of them or, where one has no form that a shell takes, none."""
    bodies = [_body_of(key, record) for key, record in present.items()]
    end = b"" if alone and not sys.stdout.isatty() else b"\n"
    for body in bodies:
        out.write(body + end)


def _body_of(key: Key, record: Record) -> bytes:
    from shmkv.cli.text import quoted
    from shmkv.forms import NoFormError, is_of_python_alone, python_of, shown

    try:
        return shown(record)[0]
    except NoFormError as error:
        if is_of_python_alone(record):
            raise NoFormError(f"{quoted(key)}: {error}: --json shows its bytes") from error
        return python_of(record).encode()


def _complain_of(key: Key) -> None:
    from shmkv.cli.text import quoted

    out.complain("get", f"there is no key {quoted(key)}")

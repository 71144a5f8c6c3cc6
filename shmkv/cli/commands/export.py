"""`shmkv export`: every item, as a line of JSON each."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints every item as a line of JSON, from which `shmkv import` stores the same one again: the key, every byte of the
value under its type, content type, and the seconds it has left.  In no order, while the store is walked: exact for
each bucket, and nobody waits.  A pickle is carried like any other value, and loaded by nobody.

  {"key": "text"} or {"key_base64": "..."}        a str key, or a bytes key
  "value": any JSON                               str, int, finite float, bool, None, list, dict of those
  "base64": "...", "content_type": "image/png"    bytes, and their content type if they have one
  "safe": "..."                                   any other value (a tuple, a set, a date): its type and bytes
  "codec": "pickle", "stored": "..."              what a codec made: "pickle", "json", "object"; in base64
  "ttl": 12.5                                     seconds left; not there: no expiry
"""
EXAMPLES: Final = """\
shmkv export --store sessions > sessions.jsonl
shmkv export --store sessions | shmkv import - --store copy     # the same store again
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    words.add_json_argument(parser, "as without: what is printed is JSON")


def run(args: argparse.Namespace) -> int:
    """Print the items as they come."""
    with open_target(where_of(args), readonly=True) as target:
        for line in target.export():
            out.write(line + b"\n")
    return EXIT_DONE

"""`shmkv metrics`: the numbers of a store, as Prometheus reads them."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE
from shmkv.cli.where import add_where_arguments, open_target, where_of

DESCRIPTION: Final = """\
Prints the numbers of a store in the text format of Prometheus.  What `GET /metrics` of a server says of its store
has the same names; the server adds what it counts itself.
"""
EXAMPLES: Final = """\
shmkv metrics --store sessions > /var/lib/node_exporter/shmkv.prom     # for its textfile collector
shmkv metrics --url http://shop:8003 | grep shmkv_items
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_where_arguments(parser)
    words.add_json_argument(parser, 'print [{"name", "labels", "value"}, ...] instead')


def run(args: argparse.Namespace) -> int:
    """Print them."""
    with open_target(where_of(args), readonly=True) as target:
        text = target.metrics()
    if args.json:
        from shmkv.exposition import samples_in

        out.json_line([{"name": name, "labels": labels, "value": value} for name, labels, value in samples_in(text)])
    else:
        out.write(text.encode())
    return EXIT_DONE

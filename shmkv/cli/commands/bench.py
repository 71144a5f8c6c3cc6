"""`shmkv bench`: the main job on this machine, measured."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Final

from shmkv.cli import render
from shmkv.cli.main import EXIT_CONDITION, EXIT_DONE, UsageError
from shmkv.workload.keys import DISTRIBUTIONS
from shmkv.workload.mixes import MIXES

if TYPE_CHECKING:
    from shmkv.workload.runner import Config

QUICK_KEYS = 100_000
QUICK_SECONDS = 0.7  # ten workloads, loading and checking end within 20 s
TABLE_KEYS = (100_000, 500_000, 1_000_000, 5_000_000, 10_000_000)

DESCRIPTION: Final = """\
Creates a store, starts the workers (spawned; they attach by name), loads the keys, runs each mix with each
distribution for --seconds, and checks at the end that nothing was lost: every key holds the last value that
one of the workers wrote, whole.  Exit status 1 if not.  The store is removed.

Keys are `user:%08d`, made anew for each call, as are the values; making them is not timed.
"""
EXAMPLES: Final = """\
shmkv bench --quick                              # less than 20 s
shmkv bench --workers 8 --value-size 16-512
shmkv bench --table --keys 1000000 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_KEYS:,} keys and short runs: less than 20 s")
    parser.add_argument("--workers", type=int, default=2, metavar="W", help="processes (default: 2)")
    parser.add_argument("--keys", type=int, metavar="N", help="default: 1,000,000")
    parser.add_argument(
        "--value-size", type=_value_size, default=(16, 16), metavar="B|B-B", help="bytes: 16 (default), or 16-512"
    )
    parser.add_argument("--mix", action="append", choices=tuple(MIXES), help="may be repeated (default: all)")
    parser.add_argument(
        "--distribution", action="append", choices=DISTRIBUTIONS, help="may be repeated (default: both)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="for each workload (default: 3)")
    parser.add_argument("--seed", type=int, default=1, help="of all random choices (default: 1)")
    parser.add_argument(
        "--table",
        action="store_true",
        help="instead: average, p95 and p99 of single writes and reads, and memory, for "
        f"{', '.join(f'{n:,}' for n in TABLE_KEYS)} keys (or those of --keys), one process",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 if something was lost."""
    from shmkv.workload import runner

    if args.table:
        sizes = TABLE_KEYS if args.keys is None else (args.keys,)
        rows = runner.run_table(sizes, _step)
        print(json.dumps({"machine": runner.machine(), "rows": rows}) if args.json else render.format_bench_table(rows))
        return EXIT_DONE
    report = runner.run(_config(args), _step)
    print(json.dumps(report) if args.json else render.format_bench(report))
    return EXIT_DONE if report["checks"]["ok"] else EXIT_CONDITION


def _config(args: argparse.Namespace) -> Config:
    from shmkv.workload.runner import Config

    try:
        return Config(
            keys=args.keys if args.keys is not None else QUICK_KEYS if args.quick else 1_000_000,
            workers=args.workers,
            value_size=args.value_size,
            mixes=tuple(args.mix or MIXES),
            distributions=tuple(args.distribution or DISTRIBUTIONS),
            seconds=args.seconds if args.seconds is not None else QUICK_SECONDS if args.quick else 3.0,
            seed=args.seed,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


def _step(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def _value_size(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)

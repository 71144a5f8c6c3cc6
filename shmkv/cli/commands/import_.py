"""`shmkv import`: load key/value pairs from a file, with threads."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli import render
from shmkv.cli.main import (
    EXIT_CONDITION,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UsageError,
    status_of,
)
from shmkv.cli.where import Where, add_where_arguments, open_target, where_of
from shmkv.cli.words import seconds

if TYPE_CHECKING:
    from shmkv.cli.loading import Options, Report
    from shmkv.cli.source import Source

MAX_THREADS = 256

DESCRIPTION: Final = """\
Loads items from a file:

  tsv    key TAB value LF, both UTF-8; \\t \\n \\r \\\\ stand for TAB, LF, CR, backslash, and no other
         backslash is allowed; values become str.  Into a store of this machine the engine parses and stores it,
         without the GIL.
  csv    RFC 4180: two columns, key and value, no header; with --key-field or --value-field the first
         row names the columns.  Values become str.
  jsonl  {"key": "k", "value": ANY, "ttl": SECONDS} (ttl may be missing) or ["k", ANY] on each line, or
         what `shmkv export` prints: any key, value and content type, with the seconds it had left then
  auto   by the file's suffix (.tsv .tab .csv .jsonl .ndjson), else by its first line

A store of this machine that does not exist is created (with --size).  Empty lines are passed over.  Whatever was
stored before an error stays.  Of two lines with the same key the later wins; with several threads either may, if
they are far apart.  Lines that --on-error skip passes over are no error: exit status 0; 1: it stopped at one.

An export may hold pickles, which run as code in whoever reads them with codec="pickle": import what you trust.  A
server takes them only if it was started with --allow-pickle.
"""
EXAMPLES: Final = """\
shmkv import pairs.tsv --store prices --size 4GiB --threads 4
shmkv export --store sessions | shmkv import - --store copy        # a copy, ttls included
shmkv export --url http://old:8003 | shmkv import - --url http://new:8003
shmkv import users.csv --store users --key-field id --value-field name --on-error skip
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="what to load; - is standard input")
    add_where_arguments(parser)
    parser.add_argument("--size", help="the most memory that the store may take, such as 4GiB (default: 1GiB)")
    parser.add_argument("--threads", type=_thread_count, default=1, metavar="N", help="threads that store (default: 1)")
    parser.add_argument("--format", choices=("auto", "tsv", "csv", "jsonl"), default="auto", help="default: auto")
    parser.add_argument("--key-field", metavar="NAME", help="csv, jsonl: the key's field (default: key)")
    parser.add_argument("--value-field", metavar="NAME", help="csv, jsonl: the value's field (default: value)")
    parser.add_argument(
        "--on-error", choices=("stop", "skip"), default="stop", help="at a malformed line (default: stop)"
    )
    parser.add_argument("--ttl", type=seconds, metavar="SECONDS", help="all pairs expire after so long")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--no-progress", action="store_true", help="show no progress on standard error")


def run(args: argparse.Namespace) -> int:
    """Load the file and report; the exit status tells how it ended."""
    from shmkv.cli.loading import load
    from shmkv.cli.progress import progress
    from shmkv.cli.source import Source

    where = where_of(args)
    try:
        source = Source.open(args.file)
    except OSError as error:
        raise UsageError(f"cannot read {args.file}: {error.strerror}") from error
    with source:
        options = _options(args, source)
        target = open_target(where, create=True, size=args.size)
        with target, progress(source.size, wanted=not args.no_progress) as show:
            report = load(target, source, options, show)
        told = _told(where, source, options, report)
    if args.json:
        print(json.dumps(told))
    else:
        print(render.format_import(told))
    if told["malformed_count"]:
        print(render.format_malformed(told), file=sys.stderr)
    return _exit_status(report)


def _options(args: argparse.Namespace, source: Source) -> Options:
    from shmkv.cli.loading import Options
    from shmkv.cli.rows import Fields
    from shmkv.cli.source import guess_format

    chosen = args.format if args.format != "auto" else guess_format(source)
    if chosen is None:
        if source.first_line():
            raise UsageError(f"cannot tell the format of {source.name}: say --format tsv, csv or jsonl")
        chosen = "tsv"  # nothing to load is the same in every format
    fields = Fields(args.key_field, args.value_field, args.ttl)
    if fields.named and chosen == "tsv":
        raise UsageError("--key-field and --value-field belong to csv and jsonl: a TSV line is key and value")
    return Options(chosen, args.threads, args.on_error == "skip", fields)


def _told(where: Where, source: Source, options: Options, report: Report) -> dict[str, Any]:
    """The report as plain values, as `--json` prints it."""
    return {
        "store": where.label,
        "source": source.name,
        "format": options.format,
        "threads": options.threads,
        "pairs": report.stored,
        "lines": report.lines,
        "bytes": report.size,
        "seconds": round(report.seconds, 6),
        "pairs_per_second": round(report.stored / report.seconds) if report.seconds else 0,
        "malformed_count": report.malformed_count,
        "malformed": [{"line": line, "reason": reason} for line, reason in report.malformed],
        "stopped_at": report.stopped_at,
        "error": str(report.error) or type(report.error).__name__ if report.error else None,
    }


def _exit_status(report: Report) -> int:
    error = report.error
    if error is None:
        return EXIT_DONE if report.stopped_at is None else EXIT_CONDITION
    if isinstance(error, KeyboardInterrupt):
        print("shmkv import: interrupted; what was stored stays", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(f"shmkv import: {error or type(error).__name__}", file=sys.stderr)
    status = status_of(error)
    if status is not None:
        return status
    return EXIT_USAGE if isinstance(error, OSError) else EXIT_FAILED


def _thread_count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_THREADS:
        raise argparse.ArgumentTypeError(f"1 to {MAX_THREADS} threads, not {count}")
    return count

"""Writes docs/benchmarks.md from bench/results/*.json.

    python -m bench.report [--check]

`--check` writes nothing and ends with 1 if the page is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from bench.harness import HEADER, RESULTS, ROOT, Row, row_cells
from shmkv.cli.render import format_ns, format_table

PAGE: Final = ROOT / "docs" / "benchmarks.md"
ORDER: Final = ("compare", "memory", "churn", "reuse", "eviction", "import_speed", "durable", "serving", "startup")

HEAD: Final = """\
# Benchmarks

<!-- Written by `python -m bench.report` from bench/results/*.json: do not edit. -->

**Read this first.**

- Ratios are what counts, and only those of one run: absolute figures move by 15 % and more with the machine, its
  clock and its neighbours. Both sides run in turns, pinned to the same core; the rounds' medians are compared.
- The machine is a small virtual one. On more cores more readers run at once; on other memory, misses cost otherwise,
  and at ten million entries misses are most of what there is to measure.
- The peer is a `dict`, the fastest thing that Python has. It lives in one process and forgets everything at its end.
  What else can be shared between processes (a server, a manager, a file) is not measured here, but for the hit rates of
  caches.
- Keys are new `str` objects for each call, made just before the timed loop and not timed. A program that asks again
  with the very key object that it stored finds a dict faster than here (its hash is cached), and a store the same.
- Values are `bytes`. Decoding a `list` or `dict` costs extra, which a dict of objects does not pay.
- The time of the empty loop is subtracted on both sides. *floor* is what is left of it with a method in C that does
  nothing: no call from Python can be cheaper. Latencies of single calls include the timing itself.
- *rounds* is the spread of the figure over the rounds.
"""

TITLES: Final = {
    "compare": "Against a dict",
    "memory": "Memory per entry",
    "churn": "Overwrites of mixed sizes, then compact()",
    "reuse": "Room after a change of sizes",
    "eviction": "Which items a full store keeps",
    "import_speed": "`shmkv import`",
    "durable": "Durable stores and `DataStore`",
    "serving": "`shmkv serve`",
    "startup": "Commands from a shell",
}


def page(directory: Path) -> str:
    """The whole page, from the results in `directory`."""
    return "\n".join([HEAD, *(_section(told) for told in _results(directory))])


def _results(directory: Path) -> list[dict[str, Any]]:
    found = {path.stem: path for path in directory.glob("*.json") if "." not in path.stem}
    names = [*(name for name in ORDER if name in found), *sorted(found.keys() - set(ORDER))]
    return [json.loads(found[name].read_text()) for name in names]


def _section(told: dict[str, Any]) -> str:
    machine = told["machine"]
    rows = [Row(**{name: value for name, value in row.items() if name != "met"}) for row in told["rows"]]
    missed = sum(row.met is False for row in rows)
    barred = sum(row.met is not None for row in rows)
    parts = [
        f"## {TITLES.get(told['name'], told['name'])}",
        f"{barred - missed} of {barred} bars met. Nanoseconds per call or key, where no other unit stands.",
        format_table(HEADER, [row_cells(row) for row in rows], markdown=True),
    ]
    notes = [f"- {row.what}: {row.note}" for row in rows if row.note]
    if notes:
        parts.append("\n".join(notes))
    parts += [
        _latencies(name, percentiles) for name, percentiles in told["details"].items() if name.startswith("latency")
    ]
    parts += [
        format_table(table["header"], table["rows"], markdown=True)
        for name, table in told["details"].items()
        if name.startswith("table")
    ]
    parts.append(
        f"`{told['command']}`, {told['when']}, commit `{told['commit'][:12]}`; {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['system']}, {machine['python']} ({machine['compiler']})."
    )
    return "\n\n".join(parts) + "\n"


def _latencies(name: str, percentiles: dict[str, dict[str, int]]) -> str:
    points = ("p50", "p95", "p99", "p99.9", "max")
    labels = {"calls": name.removeprefix("latency of "), "empty": "an empty loop, timed the same way"}
    rows = [[labels[which], *(format_ns(ns[point]) for point in points)] for which, ns in percentiles.items()]
    return format_table(("single calls", *points), rows, markdown=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results are (default: bench/results)")
    parser.add_argument("--output", type=Path, default=PAGE, help="where to write (default: docs/benchmarks.md)")
    args = parser.parse_args()
    text = page(args.results)
    if args.check:
        return 0 if args.output.exists() and args.output.read_text() == text else 1
    args.output.parent.mkdir(exist_ok=True)
    args.output.write_text(text)
    print(f"wrote {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

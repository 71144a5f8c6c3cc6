"""What the scripts share: rows with bars, result files, child processes that take turns.

How a comparison is made: each peer lives in a process of its own, both pinned to the same core.  The
parent has them run in turns (A B A B ...), so that whatever else the machine does meets both alike, and
takes medians over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from shmkv.cli.render import format_table
from shmkv.workload.runner import machine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = Path(__file__).resolve().parent / "results"
REGIONS: Final = Path("/dev/shm")


# ---- Rows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a result: what was measured, and the bar that it is held against.

    `figure` is what the bar is about, in `unit` ("x" is a ratio to the peer).  `ours`, `peer` and `floor`
    are what it was made of: nanoseconds per call or key, with the empty loop subtracted.
    """

    what: str
    figure: float
    unit: str = "x"
    bar: float | None = None
    at_least: bool = False
    ours: float | None = None
    peer: float | None = None
    floor: float | None = None
    lowest: float | None = None  # of the figure's rounds
    highest: float | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """None where there is no bar."""
        if self.bar is None:
            return None
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar


def ratio_row(
    what: str,
    ours: Sequence[float],
    peer: Sequence[float],
    bar: float | None,
    *,
    floor: Sequence[float] = (),
    at_least: bool = False,
    in_ns: bool = True,
    note: str = "",
) -> Row:
    """A row whose figure is the ratio of two medians; the spread is that of the rounds' own ratios.

    Args:
        in_ns: both are times, and are shown; else (they are ratios themselves, or rates) they are not.
    """
    ratios = [a / b for a, b in zip(ours, peer, strict=True)]
    mine, other = median(ours), median(peer)
    return Row(
        what,
        mine / other,
        bar=bar,
        at_least=at_least,
        ours=mine if in_ns else None,
        peer=other if in_ns else None,
        floor=median(floor) if floor else None,
        lowest=min(ratios),
        highest=max(ratios),
        note=note,
    )


HEADER: Final = ("what", "shmkv", "peer", "floor", "figure", "rounds", "bar", "verdict")


def row_cells(row: Row) -> list[str]:
    """A row as text, in the columns of HEADER."""
    return [
        row.what,
        *("" if ns is None else f"{ns:,.0f}" for ns in (row.ours, row.peer, row.floor)),
        figure_text(row.figure, row.unit),
        "" if row.lowest is None or row.highest is None else f"{_plain(row.lowest)} .. {_plain(row.highest)}",
        "" if row.bar is None else f"{'>=' if row.at_least else '<='} {figure_text(row.bar, row.unit)}",
        "" if row.met is None else "met" if row.met else "MISSED",
    ]


def figure_text(figure: float, unit: str) -> str:
    """A figure with its unit.

    >>> figure_text(0.5312, "x"), figure_text(49.96, "B"), figure_text(800_000, "pairs/s")
    ('0.53 x', '50.0 B', '800,000 pairs/s')
    """
    if unit == "x":
        return f"{figure:.2f} x"
    return f"{figure:,.1f} {unit}" if abs(figure) < 1000 else f"{figure:,.0f} {unit}"


def _plain(figure: float) -> str:
    return f"{figure:.2f}" if abs(figure) < 1000 else f"{figure:,.0f}"


# ---- Results -------------------------------------------------------------------------------


@dataclass
class Result:
    """What a script writes."""

    name: str
    whole: bool  # not scaled down
    directory: Path = RESULTS
    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)  # rounds, percentiles, whatever a reader may ask for

    def add(self, row: Row) -> None:
        """Keep a row and print it at once: a long run shows how it goes."""
        self.rows.append(row)
        cells = dict(zip(HEADER, row_cells(row), strict=True))
        print(f"{cells['what']:<62} {cells['figure']:>18}  {cells['bar']:>18}  {cells['verdict']}", flush=True)

    def write(self) -> Path:
        """Write the JSON and print the whole table."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{self.name}{'' if self.whole else '.scaled'}.json"
        told = {
            "name": self.name,
            "whole": self.whole,
            "when": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "commit": commit(),
            "command": " ".join(["python -m", f"bench.{self.name}", *sys.argv[1:]]),
            "machine": machine(),
            "rows": [{**asdict(row), "met": row.met} for row in self.rows],
            "details": self.details,
        }
        path.write_text(json.dumps(told, indent=1) + "\n")
        print("\n" + format_table(HEADER, [row_cells(row) for row in self.rows]))
        print(f"\nns per call or key, the empty loop subtracted; written to {path}")
        return path


def commit() -> str:
    """The commit that is checked out, read without git; "unknown" outside a repository."""
    git = ROOT / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).exists():
            return (git / name).read_text().strip()
        packed = (git / "packed-refs").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), "unknown")


def arguments(description: str | None, keys: int, rounds: int) -> argparse.ArgumentParser:
    """A parser with what every script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=keys, help=f"the largest number of keys (default: {keys:,})")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"default: {rounds}")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="where to write (default: bench/results)"
    )
    return parser


# ---- Child processes -----------------------------------------------------------------------


def pin_to() -> tuple[int, int]:
    """Two cores of this process, the first one for comparisons; the same one twice if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1], cores[0]


class Child:
    """A process that holds one object and does what it is asked, pinned to a core.

    `target` is "module:Class"; the object is made in the child.  A context manager that ends the process.
    """

    def __init__(self, target: str, core: int, *args: object) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(target, core, args, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.ask("ready")

    def tell(self, what: str, *args: object) -> None:
        """Have it do `what`; `answer` waits for the end."""
        self._connection.send((what, args))

    def answer(self) -> Any:
        """What came of the last `tell`."""
        good, answer = self._connection.recv()
        if not good:
            raise RuntimeError(f"in a child process:\n{answer}")
        return answer

    def ask(self, what: str, *args: object) -> Any:
        """`tell` and `answer`."""
        self.tell(what, *args)
        return self.answer()

    def stop(self) -> None:
        """End it; idempotent."""
        self._connection.close()
        self._process.join(timeout=120)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _serve(target: str, core: int, args: tuple[object, ...], connection: Connection) -> None:
    os.sched_setaffinity(0, {core})
    module, _, name = target.partition(":")
    held = getattr(importlib.import_module(module), name)(*args)
    try:
        while True:
            what, arguments = connection.recv()
            try:
                connection.send((True, None if what == "ready" else getattr(held, what)(*arguments)))
            except Exception:
                connection.send((False, traceback.format_exc()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        held.close()
        gc.freeze()  # millions of objects: the process ends faster if nobody looks at them again
        os._exit(0)


# ---- Memory --------------------------------------------------------------------------------


def region_blocks(store_name: str) -> int:
    """Bytes of memory that a store's region takes, as the file system counts (st_blocks)."""
    from shmkv.region import object_name

    return os.stat(f"{REGIONS}{object_name(store_name)}").st_blocks * 512


def private_bytes() -> int:
    """Bytes of this process's own memory: anonymous pages, in whatever mapping.

    Not "Private_Dirty" and "Private_Clean", which change as others come and go: a page that a forked child or
    another user of the same library has mapped too counts as shared there until that one has ended, and a
    region's page that nobody else has mapped as private.  Regions are counted by `region_blocks`.
    """
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/smaps_rollup does not tell the anonymous memory")

"""How fast `shmkv import` loads a TSV file: one thread and four.

    python -m bench.import_speed [--keys N] [--rounds R] [--threads T]

Writes a file of 10,000,000 lines (`user:%08d` TAB 16 digits LF), then runs the command as a user would, with
one thread and with four in turns, each into a new store; what counts is the time that the command itself
reports for loading.  The file is in the page cache: this measures parsing and storing, not the disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.harness import Result, Row, arguments, ratio_row
from shmkv.workload.keys import KEY_FORMAT

KEYS: Final = 10_000_000
ROUNDS: Final = 3
THREADS: Final = 4
ENTRY_BYTES: Final = 100
SPARE_BYTES: Final = 64 << 20
BATCH: Final = 100_000


def write_file(path: Path, keys: int) -> None:
    """`keys` lines, by number."""
    with path.open("w") as file:
        for begin in range(0, keys, BATCH):
            end = min(begin + BATCH, keys)
            file.write("".join(f"{KEY_FORMAT % i}\t{i:016d}\n" for i in range(begin, end)))


def import_once(path: Path, keys: int, threads: int) -> dict[str, Any]:
    """Run the command; answers its report and the seconds that the whole process took."""
    from shmkv import Store

    name = f"import.{os.getpid()}.{os.urandom(4).hex()}"
    size = keys * ENTRY_BYTES + SPARE_BYTES
    command = [sys.executable, "-m", "shmkv", "import", str(path), "--store", name, "--size", str(size)]
    began = time.perf_counter()
    try:
        done = subprocess.run([*command, "--threads", str(threads), "--json"], capture_output=True, text=True)
        wall = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(f"shmkv import ended with status {done.returncode}: {done.stderr}")
        with Store.attach(name, readonly=True) as store:
            assert len(store) == keys, "every line is a pair in the store"
    finally:
        Store.unlink_name(name)
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "wall_seconds": wall}


def main() -> None:
    parser = arguments(__doc__, KEYS, ROUNDS)
    parser.add_argument("--threads", type=int, default=THREADS, help=f"default: {THREADS}")
    args = parser.parse_args()
    result = Result("import_speed", args.keys == KEYS and args.rounds >= ROUNDS, args.results, details={"runs": []})
    one: list[float] = []
    many: list[float] = []
    with tempfile.TemporaryDirectory(prefix="shmkv-import-") as directory:
        path = Path(directory) / "pairs.tsv"
        write_file(path, args.keys)
        for _ in range(args.rounds):
            for threads, kept in ((1, one), (args.threads, many)):
                told = import_once(path, args.keys, threads)
                result.details["runs"].append(told)
                kept.append(float(told["pairs_per_second"]))
    what = f"shmkv import, {args.keys:,} lines TSV"
    for threads, rates, bar in ((1, one, 500_000), (args.threads, many, None)):
        label = f"{what}, {threads} thread{'s' if threads > 1 else ''}"
        result.add(Row(label, median(rates), "pairs/s", bar, at_least=True, lowest=min(rates), highest=max(rates)))
    what = f"{args.threads} threads against one ({os.cpu_count()} cores)"
    result.add(ratio_row(what, many, one, 1.5, at_least=True, in_ns=False))
    result.write()


if __name__ == "__main__":
    main()

"""`shmkv bench`, the workloads under it, and the scripts in bench/ (scaled down)."""

from __future__ import annotations

import doctest
import json
import mmap
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import psutil
import pytest
from helpers import MIB, ROOT, Forked, python_environment, store_names
from test_cli import run_cli

from shmkv import Store
from shmkv.cli import main as cli
from shmkv.workload import keys, runner
from shmkv.workload.mixes import MIXES
from shmkv.workload.percentiles import Histogram, bar_of, highest_in
from shmkv.workload.values import make_value, read_value

pytestmark = pytest.mark.slow


def bench_stores() -> set[str]:
    """Those whose process has ended: another benchmark may run on this machine."""
    names = {
        name
        for name in store_names()
        if name.startswith(("bench.", "compare.", "memory.", "churn.", "reuse.", "startup."))
    }
    return {name for name in names if not any(map(psutil.pid_exists, map(int, re.findall(r"\b\d+\b", name))))}


# ---- The command -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_every_workload_runs_and_nothing_is_lost(workers: int) -> None:
    before = bench_stores()
    words = ["bench", "--keys", "3000", "--seconds", "0.3", "--value-size", "16-200", "--workers", str(workers)]
    out, err, status = run_cli(*words, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert [(mix["mix"], mix["distribution"]) for mix in told["mixes"]] == [
        (name, distribution) for name in MIXES for distribution in ("uniform", "zipfian")
    ]
    for mix in told["mixes"]:
        assert mix["calls"] > 0
        kinds = {"read-only": {"get"}, "write-only": {"put"}, "read-modify-write": {"rmw"}}
        assert mix["ns"].keys() - {"empty"} == kinds.get(mix["mix"], {"get", "put"})
        for ns in mix["ns"].values():
            assert 0 <= ns["p50"] <= ns["p95"] <= ns["p99"] <= ns["p99.9"] <= ns["max"]
    checks = told["checks"]
    assert checks["ok"]
    assert checks["keys"] == checks["length"] == 3_000
    assert checks["rmw_acknowledged"] == checks["rmw_counted"] > 0
    assert told["memory"]["used"] <= told["memory"]["committed"] <= told["config"]["store_size"]
    assert bench_stores() == before


def test_quick() -> None:
    out, err, status = run_cli("bench", "--quick")
    assert status == 0, err
    assert out.count("uniform") == out.count("zipfian") == len(MIXES)
    assert "nothing was lost: 100,000 keys read back" in out
    assert "bytes per key" in out


def test_the_table_of_the_readme() -> None:
    out, err, status = run_cli("bench", "--table", "--keys", "20000")
    assert status == 0, err
    header, rule, row = out.splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") == 10
    assert row.startswith("| 20,000 |")


@pytest.mark.parametrize(
    "words", [["--keys", "1"], ["--workers", "0"], ["--value-size", "8"], ["--seconds", "0"], ["--value-size", "99-20"]]
)
def test_what_cannot_be_run_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert capsys.readouterr().err.startswith("shmkv bench: ")


# ---- The check that nothing was lost ---------------------------------------------------------


def test_reading_back_finds_what_is_wrong(store: Store, tmp_path: Path) -> None:
    config = runner.Config(keys=10, workers=1)
    worker = runner._Worker(store, config, 0)
    worker.load()
    old = store[keys.key_of(3)]
    worker.load()
    worker.save_notes(str(tmp_path))
    assert worker.verify(str(tmp_path)) == runner.Verified(keys=10)
    del store[keys.key_of(1)]
    assert worker.verify(str(tmp_path)) == runner.Verified(keys=9, missing=1)
    store[keys.key_of(2)] = b"torn"
    store[keys.key_of(3)] = old
    store[keys.key_of(4)] = store[keys.key_of(5)]
    assert worker.verify(str(tmp_path)) == runner.Verified(keys=9, missing=1, torn=2, stale=1)


def test_read_modify_write_counts(store: Store, tmp_path: Path) -> None:
    worker = runner._Worker(store, runner.Config(keys=10, workers=1), 0)
    worker.load()
    measured = worker.mix("read-modify-write", "zipfian", 0.0, time.monotonic() + 0.05)
    worker.save_notes(str(tmp_path))
    found = worker.verify(str(tmp_path))
    assert found == runner.Verified(keys=10, counts=measured.rmw_done)
    assert measured.rmw_done == measured.calls > 0


def test_a_worker_that_dies_is_an_error(store: Store) -> None:
    workers = runner.Workers(store.name, runner.Config(keys=10, workers=2))
    try:
        with pytest.raises(runner.WorkerFailedError, match="no such mix"):
            workers.ask("mix", "no such mix", "uniform", 0.0, 0.0)
        workers._processes[1].kill()
        workers._processes[1].join()
        with pytest.raises(runner.WorkerFailedError, match="ended"):
            workers.ask("load")
    finally:
        workers.stop()


# ---- Keys, values, percentiles ---------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["cli.main", "workload.keys", "workload.mixes", "workload.percentiles", "workload.values"]
)
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(import_module(f"shmkv.{module}")).failed == 0


@pytest.mark.parametrize("distribution", keys.DISTRIBUTIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 1_000_003, 10_000_000])
def test_streams_stay_inside_and_repeat_by_seed(distribution: keys.Distribution, n: int) -> None:
    first = keys.stream_of(distribution, n, seed=7)(3_000)
    assert all(0 <= index < n for index in first)
    assert first == keys.stream_of(distribution, n, seed=7)(3_000)
    if n > 10:
        assert first != keys.stream_of(distribution, n, seed=8)(3_000)


def test_uniform_is_even_and_zipfian_is_not() -> None:
    even = Counter(keys.uniform(100, 1)(100_000))
    assert min(even.values()) > 800
    assert max(even.values()) < 1_200
    skewed = [count for _, count in Counter(keys.zipfian(100, 1)(100_000)).most_common()]
    total = keys.zeta(100, 0.99)
    for rank in (1, 2, 10):
        assert skewed[rank - 1] / 100_000 == pytest.approx(1 / rank**0.99 / total, rel=0.2)


def test_every_key_has_13_bytes() -> None:
    assert {len(key.encode()) for key in keys.keys_of([0, 1, 99_999_999])} == {keys.KEY_BYTES}


def test_percentiles_against_a_sorted_list(rng: random.Random) -> None:
    values = [int(rng.lognormvariate(6, 2)) for _ in range(20_000)]
    histograms = [Histogram() for _ in range(3)]
    for number, histogram in enumerate(histograms):
        histogram.record(values[number::3])
    whole = histograms[0]
    whole.merge(histograms[1])
    whole.merge(histograms[2])
    values.sort()
    assert (whole.count, whole.max, whole.total) == (len(values), values[-1], sum(values))
    for percent in (1, 50, 95, 99, 99.9, 100):
        exact = values[max(0, -(-len(values) * percent // 100) - 1).__int__()]
        assert exact <= whole.percentile(percent) <= exact * 1.01 + 1
    assert whole.summary()["p50"] == whole.percentile(50)


def test_a_histogram_takes_anything() -> None:
    histogram = Histogram()
    histogram.record([-5, 0, 1 << 60])
    assert (histogram.count, histogram.percentile(1)) == (3, 0)
    assert highest_in(bar_of(1 << 43)) >= 1 << 43


@pytest.mark.parametrize("size", [16, 17, 31, 32, 100, 1024])
def test_values_tell_whether_they_are_whole(size: int, rng: random.Random) -> None:
    value = make_value(5, 6, 7 << 32 | 8, size)
    head = read_value(value)
    assert head is not None
    assert (len(value), *head, head.writer, head.sequence) == (size, 5, 6, 7 << 32 | 8, 7, 8)
    if size > 16:
        at = rng.randrange(16, size)
        assert read_value(value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]) is None
    assert read_value(value[:15]) is None


# ---- The scripts -----------------------------------------------------------------------------


def run_script(name: str, directory: Path, *words: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", "--results", str(directory), *words],
        capture_output=True,
        text=True,
        env=python_environment(),
        cwd=ROOT,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads((directory / f"{name}.scaled.json").read_text())
    assert told["rows"]
    assert told["machine"]
    return told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("compare", ["--keys", "20000", "--rounds", "1", "--batches", "2"]),
        ("memory", ["--keys", "60000"]),
        ("churn", ["--keys", "5000", "--overwrites", "50000"]),
        ("reuse", ["--mib", "1", "--latency-mib", "4"]),
        ("eviction", ["--mib", "2", "--requests", "20000"]),
        ("import_speed", ["--keys", "50000", "--rounds", "1"]),
        ("startup", ["--rounds", "2"]),
    ],
)
def test_scripts_scaled_down(name: str, words: list[str], tmp_path: Path) -> None:
    before = bench_stores()
    run_script(name, tmp_path, *words)
    assert bench_stores() == before
    # As a whole result, it makes a section of the page.
    (tmp_path / f"{name}.scaled.json").rename(tmp_path / f"{name}.json")
    report = [sys.executable, "-m", "bench.report", "--results", str(tmp_path), "--output", str(tmp_path / "page.md")]
    subprocess.run(report, check=True, env=python_environment(), cwd=ROOT, capture_output=True)
    page = (tmp_path / "page.md").read_text()
    assert page.index("Read this first") < page.index("## ") < page.index("verdict")
    assert subprocess.run([*report, "--check"], env=python_environment(), cwd=ROOT).returncode == 0


def test_the_page_is_what_the_results_say() -> None:
    if not [path for path in (ROOT / "bench" / "results").glob("*.json") if "." not in path.stem]:
        pytest.skip("no results yet")
    command = [sys.executable, "-m", "bench.report", "--check"]
    assert subprocess.run(command, env=python_environment(), cwd=ROOT).returncode == 0


def test_what_a_process_holds_for_itself() -> None:
    """With some room: a few megabytes of the heap become 2 MiB pages, or are kept, whenever it suits the system."""
    from bench.harness import private_bytes, region_blocks

    with Store(size="256MiB") as store:
        other = Forked(signal.pause)  # shares all the memory of this process, until it ends
        before, blocks = private_bytes(), region_blocks(store.name)
        other.kill()
        store.update((f"k{i}", b"v" * 10_000) for i in range(10_000))
        assert region_blocks(store.name) - blocks > 90 * MIB
        assert private_bytes() - before < 24 * MIB
        before = private_bytes()
        with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
            for at in range(0, 64 * MIB, MIB):
                held[at : at + MIB] = b"x" * MIB
            assert private_bytes() - before > 48 * MIB

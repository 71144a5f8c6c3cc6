"""Damaged and hostile regions, and text of any kind, under libFuzzer: a hundredth of campaigns/fuzz.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import fuzz

pytestmark = pytest.mark.slow

missing = fuzz.is_missing()
needs_clang = pytest.mark.skipif(bool(missing), reason=missing)
PARTS = 10  # of 10,000 executions each, so that a slow machine can finish one
EXECUTIONS = 10_000


@needs_clang
def test_the_programs_are_built() -> None:
    """Of its own, because it takes as long as all the rest on a busy machine."""
    assert fuzz.engine()
    for program in ("fuzz_region", "fuzz_import", "fuzz_log"):
        assert fuzz.built(program).exists()


@needs_clang
@pytest.mark.parametrize("part", range(PARTS))
def test_damaged_regions(part: int, tmp_path: Path, seed: int) -> None:
    figures = fuzz.fuzz(fuzz.built("fuzz_region"), EXECUTIONS, seed % 1_000_000 * PARTS + part, tmp_path)
    assert figures["fuzz_region_executions"] >= EXECUTIONS
    assert figures["fuzz_region_opened"] > figures["fuzz_region_executions"] / 3
    assert figures["longest_fuzz_region_ms"] < 1000


@needs_clang
@pytest.mark.parametrize("part", range(PARTS))
def test_text_of_any_kind(part: int, tmp_path: Path, seed: int) -> None:
    figures = fuzz.fuzz(fuzz.built("fuzz_import"), EXECUTIONS, seed % 1_000_000 * PARTS + part, tmp_path)
    assert figures["fuzz_import_executions"] >= EXECUTIONS * 0.99, "empty inputs do not count"
    assert figures["fuzz_import_opened"] > figures["fuzz_import_executions"] / 10
    assert figures["longest_fuzz_import_ms"] < 1000


@needs_clang
@pytest.mark.parametrize("part", range(PARTS))
def test_files_that_were_changed(part: int, tmp_path: Path, seed: int) -> None:
    figures = fuzz.fuzz(fuzz.built("fuzz_log"), EXECUTIONS, seed % 1_000_000 * PARTS + part, tmp_path)
    assert figures["fuzz_log_executions"] >= EXECUTIONS * 0.99, "empty inputs do not count"
    assert figures["fuzz_log_opened"] > figures["fuzz_log_executions"] / 20
    assert figures["longest_fuzz_log_ms"] < 1000


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in fuzz.CORPUS.iterdir()) < 200_000

"""Damaged and hostile regions, and malformed text, under libFuzzer: a hundredth of the campaign (campaigns/fuzz.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import fuzz

missing = fuzz.is_missing()
pytestmark = pytest.mark.skipif(bool(missing), reason=missing)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def test_damaged_regions(folder: Path, tmp_path: Path, seed: int) -> None:
    figures = fuzz.fuzz(fuzz.build("fuzz_region", folder), 100_000, seed % 1_000_000, tmp_path)
    assert figures["fuzz_region_executions"] >= 100_000
    assert figures["fuzz_region_opened"] > figures["fuzz_region_executions"] / 3
    assert figures["longest_fuzz_region_ms"] < 1000


def test_text_of_any_kind(folder: Path, tmp_path: Path, seed: int) -> None:
    figures = fuzz.fuzz(fuzz.build("fuzz_import", folder), 100_000, seed % 1_000_000, tmp_path)
    assert figures["fuzz_import_executions"] >= 99_000, "inputs that are empty do not count"
    assert figures["fuzz_import_opened"] > figures["fuzz_import_executions"] / 10
    assert figures["longest_fuzz_import_ms"] < 1000


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in fuzz.CORPUS.iterdir()) < 200_000

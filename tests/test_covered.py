"""The command that measures coverage: it counts what runs, and insists on a true reason for what does not."""

from __future__ import annotations

import json
from pathlib import Path

import covering
import pytest
from campaigns.covered import CAMPAIGN
from covering import File

pytestmark = pytest.mark.slow

SOURCE = "shmkv/_core/hash.c"


@pytest.fixture
def reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(covering, "REASONS", tmp_path / "reasons.json")
    return tmp_path / "reasons.json"


def counted(**times: int) -> dict[str, File]:
    """Counts of lines of SOURCE, by line1=times, ..."""
    file = File()
    for name, count in times.items():
        file.lines[int(name.removeprefix("line"))] = count
        file.functions[int(name.removeprefix("line"))] = "f"
    return {SOURCE: file}


def name_of(line: int) -> str:
    return covering.named(SOURCE, counted(line1=0)[SOURCE], line).replace(": ", "f: ", 1)


def test_each_line_that_is_not_run_needs_a_reason(reasons: Path) -> None:
    reasons.write_text("{}")
    assert covering.judge_reasons(counted(line1=5)) == []
    (fault,) = covering.judge_reasons(counted(line1=5, line3=0))
    assert fault.startswith(f"{SOURCE}:3: not run")


def test_a_reason_whose_line_is_run_is_stale(reasons: Path) -> None:
    reasons.write_text(json.dumps({SOURCE: {name_of(3): "for this test"}}))
    assert covering.judge_reasons(counted(line3=0)) == []
    (fault,) = covering.judge_reasons(counted(line3=1))
    assert "is run or gone" in fault
    (fault,) = covering.judge_reasons({})
    assert "is no file" in fault
    reasons.write_text(json.dumps({SOURCE: {name_of(3): f"{covering.BY_CHANCE}two processes have to meet there"}}))
    assert covering.judge_reasons(counted(line3=0)) == covering.judge_reasons(counted(line3=1)) == []


def test_the_bars(reasons: Path) -> None:
    reasons.write_text("{}")
    low, high = counted(line1=1, line3=0), counted(line1=1, line3=1)
    assert covering.Result(high, low, high, []).faults() == []
    assert covering.Result(high, low, high, ["it failed"]).faults() == ["it failed"]
    (fault,) = covering.Result(high, high, low, []).faults()
    assert fault == "python_lines_percent is 50.0, not 95.0 or more"


def test_spans() -> None:
    assert covering.spans([3, 4, 5, 9]) == ["3-5", "9"]
    assert covering.spans([]) == []


@pytest.mark.skipif(bool(CAMPAIGN.missing()), reason=f"apt-get install {' '.join(CAMPAIGN.missing())}")
def test_what_runs_is_counted(tmp_path: Path) -> None:
    """One program of C, one file of tests."""
    pytest.importorskip("coverage", reason="pip install coverage")
    result = covering.measure(tmp_path, ["test_hash"])
    assert not result.failures
    assert covering.lines_percent([result.engine[SOURCE]]) == 100
    assert result.engine["shmkv/_core/import.c"].uncovered()
    assert 0 < covering.lines_percent([result.python["shmkv/store.py"]]) < 100
    assert covering.lines_percent([result.binding["shmkv/_core/binding/encode.c"]]) < 50

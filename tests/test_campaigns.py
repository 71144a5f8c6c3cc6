"""The frame of the long run: figures are joined, promises are kept in view, the page says what the results say."""

from __future__ import annotations

from pathlib import Path

import pytest
from campaigns import page, results
from campaigns.campaign import Campaign, Figures, join, shortfalls
from campaigns.catalogue import NAMES, campaigns


def nothing(part: int, scratch: Path) -> Figures:
    return {}


def campaign(**changes: object) -> Campaign:
    told: dict[str, object] = {"name": "a", "claim": "c", "how": "h", "parts": 2, "run": nothing, **changes}
    return Campaign(**told)  # type: ignore[arg-type]


def test_counts_are_added_and_worst_cases_kept() -> None:
    total = join({"kills": 3, "longest_wait_ms": 7}, {"kills": 4, "longest_wait_ms": 2, "reads": 1})
    assert total == {"kills": 7, "longest_wait_ms": 7, "reads": 1}


def test_a_promise_that_is_not_kept_is_told() -> None:
    promised = campaign(at_least={"kills": 10}, at_most={"longest_wait_ms": 100})
    assert shortfalls(promised, {"kills": 10, "longest_wait_ms": 100}) == []
    told = shortfalls(promised, {"kills": 9, "longest_wait_ms": 100.5})
    assert len(told) == 2
    assert "kills" in told[0]
    assert "longest_wait_ms" in told[1]


def test_a_figure_that_was_never_counted_is_a_promise_not_kept() -> None:
    assert shortfalls(campaign(at_least={"kills": 1}), {})


def test_results_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    one = campaign()
    result = results.load(one)
    assert result.parts_done == 0
    result.add({"kills": 2}, 1.5)
    results.save(one, result)
    again = results.load(one)
    again.add({"kills": 3}, 1.5)
    assert (again.parts_done, again.seconds, again.figures) == (2, 3.0, {"kills": 5})
    assert sum(again.commits.values()) == 2


def test_the_page_tells_which_commits_were_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    done = results.Result()
    for commit in ("first", "second", "second"):
        monkeypatch.setattr(results, "_commit", lambda commit=commit: commit)
        done.add({"kills": 1}, 1.0)
        told = page.page([(campaign(), done)])
        assert ("commit `first`;" in told) == (done.parts_done == 1)
    assert "1 of `first`, 2 of `second`" in told


def test_the_page_shows_what_is_short_and_what_was_violated() -> None:
    promised = campaign(at_least={"kills": 10})
    done = results.Result(parts_done=2, figures={"kills": 9})
    assert "| short |" in page.page([(promised, done)])
    assert "| holds |" in page.page([(promised, results.Result(parts_done=2, figures={"kills": 10}))])
    assert "not run yet" in page.page([(promised, results.Result())])
    done.violations.append("part 1: lost a key")
    assert "lost a key" in page.page([(promised, done)])
    assert "| **1 violations** |" in page.page([(promised, done)])


def test_the_page_is_what_the_results_say() -> None:
    told = [(one, results.load(one)) for one in campaigns()]
    assert page.PAGE.read_text() == page.page(told), "run `python -m tests.campaigns --page`"


def test_every_campaign_is_in_the_catalogue() -> None:
    folder = Path(page.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if "CAMPAIGN = Campaign(" in path.read_text()}
    assert found == set(NAMES)
    assert [one.name for one in campaigns()] == list(NAMES)

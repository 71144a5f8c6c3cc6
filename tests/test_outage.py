"""Power cuts under whole processes, a `DataStore` and a durable `Store` (campaign `power` has the long run)."""

from __future__ import annotations

import dataclasses

import pytest
from outage import datastore, durable
from outage.trial import Subject, judge_runs

pytestmark = pytest.mark.slow

SUBJECTS = {"datastore": (datastore.SUBJECT, 70), "durable": (durable.SUBJECT, 30)}


@pytest.mark.parametrize("sync", ["always", "interval", "none"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_was_acknowledged_comes_back(subject: str, sync: str) -> None:
    which, steps = SUBJECTS[subject]
    figures = judge_runs(which, 1, sync, steps)
    assert figures[f"{subject}_states"] > 100
    assert figures[f"{subject}_went_on"] > 10


@pytest.mark.parametrize(
    ("fault", "subject", "sync"),
    [
        ("acknowledge_too_early", datastore.SUBJECT, "always"),
        ("remove_before_the_sync", datastore.SUBJECT, "none"),
        ("write_settings_in_place", durable.SUBJECT, "always"),
    ],
)
def test_a_fault_is_found(fault: str, subject: Subject, sync: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMKV_TEST_FAULT", fault)
    with pytest.raises(AssertionError, match="the power is cut after event"):
        judge_runs(dataclasses.replace(subject, module="outage.faulty"), 1, sync, 150)

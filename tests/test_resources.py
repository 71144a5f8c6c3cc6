"""Whatever runs out: an error that names it, and a store that is as it was (campaigns/resources.py)."""

from __future__ import annotations

import pytest
from building import PROGRAMS
from campaigns import resources

pytestmark = pytest.mark.slow

NAMES = resources.OPERATIONS.findall((PROGRAMS / "resources.c").read_text())
# Steps and calls of an operation from one that is tried to the next, after the first twenty.
STRIDE = 40


def test_every_operation_is_there() -> None:
    wanted = "create attach put overwrite growth put_many delete_many clear scan compact check import"
    assert set(wanted.split()) <= set(NAMES)


@pytest.mark.parametrize("operation", NAMES)
def test_the_nth_call_fails(operation: str) -> None:
    figures = resources.run_program("nth", 1, operation)
    assert figures["nth_tries"] >= 20, "each of ten functions, once and for good"


def test_the_nth_call_of_the_extension_fails() -> None:
    figures = resources.run_python(STRIDE)
    assert figures["python_tries"] > 200
    assert figures["python_failures"] > 150


@pytest.mark.skipif(
    not resources.small_dev_shm(), reason="mounting a small /dev/shm needs root and unshare (util-linux)"
)
@pytest.mark.parametrize("operation", NAMES)
def test_the_file_system_fills_up(operation: str) -> None:
    figures = resources.run_program("full", STRIDE, operation, before=resources.small_dev_shm())
    assert figures["full_tries"] >= 2
    assert figures["full_failures"] or operation not in ("create", "growth", "put_many", "regrowth")

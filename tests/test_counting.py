"""Counting for the shell and HTTP: in ints, and in decimal digits."""

from __future__ import annotations

import threading

import pytest

from shmkv import Store
from shmkv.counting import incr


def test_a_missing_key_is_created_with_its_ttl(store: Store) -> None:
    assert incr(store, "n", 5, 10, ttl=60) == 15
    assert store["n"] == 15
    assert 59 < (store.ttl("n") or 0) <= 60


@pytest.mark.parametrize(("before", "after"), [(b"41", b"42"), ("41", "42"), (b"-1", b"0"), (41, 42)])
def test_numbers_of_each_kind_stay_what_they_are(store: Store, before: object, after: object) -> None:
    store.put("n", before, ttl=60)
    assert incr(store, "n") == int(str(after if not isinstance(after, bytes) else after.decode()))
    assert store["n"] == after
    assert 59 < (store.ttl("n") or 0) <= 60


def test_a_content_type_stays(store: Store) -> None:
    store.put("n", b"1", content_type="text/plain")
    assert incr(store, "n", -3) == -2
    assert store.content_type("n") == "text/plain"


@pytest.mark.parametrize("value", [b"", b"1.5", b"0x10", b" 1", "\u0661", b"--1", b"1" * 21, 1.5, True, None, [1]])
def test_what_is_no_number_is_refused(store: Store, value: object) -> None:
    store["n"] = value
    with pytest.raises(TypeError, match="no number"):
        incr(store, "n")
    assert store["n"] == value


@pytest.mark.parametrize(
    ("value", "delta"), [(b"9223372036854775807", 1), (b"9999999999999999999", -1), ("-9", -(1 << 63))]
)
def test_sixty_four_bits_are_the_limit(store: Store, value: object, delta: int) -> None:
    store["n"] = value
    with pytest.raises(OverflowError):
        incr(store, "n", delta)
    assert store["n"] == value


def test_no_increment_of_digits_is_lost(store: Store) -> None:
    store["n"] = b"0"

    def count() -> None:
        for _ in range(500):
            incr(store, "n")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store["n"] == b"2000"

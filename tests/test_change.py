"""change: read, think, write as one step, whoever else writes to the item meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Clock
from helpers import Forked, copy_of, durable_folder

from shmkv import (
    ClosedStoreError,
    KeyTooLargeError,
    LockTimeoutError,
    ReadOnlyStoreError,
    Store,
    ValueTooLargeError,
)


def one_more(value: int) -> int:
    return value + 1


def appended(value: list[Any]) -> list[Any]:
    value.append(len(value))
    return value


def expires(store: Store, key: str) -> int:
    record = store._fetch(key)
    assert record is not None
    return record[4]


# ---- What it does ------------------------------------------------------------------------------


def test_the_new_value_is_stored_and_returned(store: Store) -> None:
    store["n"] = 5
    assert store.change("n", one_more) == 6
    assert store["n"] == 6
    assert store.change(b"bytes", lambda value: value + b"!", default=b"") == b"!"
    assert store[b"bytes"] == b"!"


def test_a_missing_item_needs_a_default(store: Store) -> None:
    with pytest.raises(KeyError) as error:
        store.change("missing", one_more)
    assert error.value.args == ("missing",)
    assert "missing" not in store
    assert store.change("missing", one_more, default=0) == 1
    assert store.change("none", lambda value: [value], default=None) == [None]


def test_each_call_has_a_default_of_its_own(store: Store) -> None:
    given: list[Any] = []
    assert store.change("a", appended, default=given) == [0]
    assert given == []
    seen = []

    def is_overtaken(value: list[Any]) -> list[Any]:
        seen.append(list(value))
        if len(seen) == 1:
            store["b"] = [7]
        elif len(seen) == 2:
            store.delete("b")
        return appended(value)

    assert store.change("b", is_overtaken, default=given) == [0]
    assert seen == [[], [7], []]
    assert given == []


def test_what_a_dict_would_lose(store: Store) -> None:
    """The habits that lose data between processes, in the form that does not."""
    store.update({"n": 0, "settings": {}})

    def work(me: int) -> None:
        for i in range(500):
            store.change("n", one_more)
            store.change("settings", lambda value, i=i: {**value, f"{me}.{i % 50}": i})
            store.change("list", lambda value, i=i: [*value, (me, i)] if i % 10 == 0 else value, default=[])

    workers = [Forked(work, me) for me in range(3)]
    threads = [threading.Thread(target=work, args=(3,)), threading.Thread(target=work, args=(4,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for worker in workers:
        worker.result()
    assert store["n"] == 5 * 500
    assert store["settings"] == {f"{me}.{i % 50}": i for me in range(5) for i in range(500)}
    assert sorted(store["list"]) == [(me, i) for me in range(5) for i in range(0, 500, 10)]


# ---- Expiry -------------------------------------------------------------------------------------


def test_the_item_keeps_its_expiry(store: Store, clock: Clock) -> None:
    store.put("a", 1, ttl=100)
    at = expires(store, "a")
    clock.advance(40)
    store.change("a", one_more)
    assert expires(store, "a") == at
    assert store.change("a", one_more, ttl=7) == 3
    assert store.ttl("a") == 7
    store["for good"] = 1
    store.change("for good", one_more)
    assert store.ttl("for good") is None
    store.change("new", one_more, default=0, ttl=5)
    assert store.ttl("new") == 5
    store.change("new for good", one_more, default=0)
    assert store.ttl("new for good") is None


@pytest.mark.parametrize("had_ttl", [True, False])
@pytest.mark.parametrize("how", ["touch", "persist"])
def test_an_expiry_that_is_changed_meanwhile_stays(store: Store, clock: Clock, had_ttl: bool, how: str) -> None:
    """touch and persist leave the version as it is: the version alone would not tell."""
    store.put("a", 1, ttl=100 if had_ttl else None)
    calls = []

    def function(value: int) -> int:
        calls.append(value)
        if len(calls) == 1:
            store.touch("a", 50) if how == "touch" else store.persist("a")
        return value + 1

    assert store.change("a", function) == 2
    assert store.ttl("a") == (50 if how == "touch" else None)
    assert len(calls) == (1 if how == "persist" and not had_ttl else 2)


def test_with_a_ttl_only_the_value_counts(store: Store, clock: Clock) -> None:
    store.put("a", 1, ttl=100)
    calls = []

    def function(value: int) -> int:
        calls.append(store.touch("a", 50))
        return value + 1

    assert store.change("a", function, ttl=9) == 2
    assert (store.ttl("a"), calls) == (9, [True])


def test_an_item_that_expires_meanwhile_is_missing(store: Store, clock: Clock) -> None:
    def function(value: int) -> int:
        clock.advance(2)
        return value + 1

    store.put("a", 1, ttl=1)
    with pytest.raises(KeyError):
        store.change("a", function)
    store.put("a", 1, ttl=1)
    assert store.change("a", function, default=10) == 11


# ---- Errors, which change nothing ---------------------------------------------------------------


def test_an_exception_of_the_function_reaches_the_caller(store: Store) -> None:
    store["a"] = [1]
    version = store.gets("a")

    def function(value: list[int]) -> list[int]:
        value.append(2)
        raise ZeroDivisionError

    for key, options in {"a": {}, "new": {"default": []}}.items():
        with pytest.raises(ZeroDivisionError):
            store.change(key, function, **options)
    assert store.gets("a") == version
    assert "new" not in store


def test_a_function_that_returns_nothing_is_refused(store: Store) -> None:
    """Or `change(key, lambda value: value.append(x))` would lose all that there was."""
    store["a"] = [1]
    with pytest.raises(TypeError, match="return the new value"):
        store.change("a", lambda value: value.append(2))
    assert store["a"] == [1]


@pytest.mark.parametrize("result", [1j, object(), {"deep": [print]}], ids=lambda value: type(value).__name__)
def test_a_result_that_the_codec_refuses(store: Store, result: Any) -> None:
    store["a"] = 1
    with pytest.raises(TypeError):
        store.change("a", lambda _: result)
    assert store["a"] == 1


def test_other_wrong_arguments(store: Store) -> None:
    store["a"] = 1
    wrong: list[tuple[type[Exception], Callable[[], Any]]] = [
        (TypeError, lambda: store.change("a", 5)),  # type: ignore[arg-type]
        (TypeError, lambda: store.change("a")),  # type: ignore[call-arg]
        (TypeError, lambda: store.change("a", one_more, 0)),  # type: ignore[misc]
        (TypeError, lambda: store.change("a", one_more, other=0)),  # type: ignore[call-arg]
        (TypeError, lambda: store.change(5, one_more)),  # type: ignore[arg-type]
        (TypeError, lambda: store.change([], one_more)),  # type: ignore[arg-type]
        (KeyTooLargeError, lambda: store.change("k" * 65_536, one_more, default=1)),
        (ValueError, lambda: store.change("a", one_more, ttl=0)),
        (TypeError, lambda: store.change("a", one_more, ttl="1")),
        (TypeError, lambda: store.change("new", one_more, default=1j)),
        (ValueTooLargeError, lambda: store.change("a", lambda _: bytes(store.size // 4 + 1))),
    ]
    for error, call in wrong:
        with pytest.raises(error):
            call()
    assert dict(store) == {"a": 1}


def test_no_function_is_called_where_nothing_could_be_stored(store: Store) -> None:
    store["a"] = 1
    with Store.attach(store.name, readonly=True) as reader, pytest.raises(ReadOnlyStoreError):
        reader.change("a", lambda _: pytest.fail("called"))
    with pytest.raises(ClosedStoreError):
        reader.change("a", lambda _: pytest.fail("called"))


# ---- Inside the function ------------------------------------------------------------------------


def test_the_function_may_use_the_store(store: Store) -> None:
    store.update(a=1, b=10)
    assert store.change("a", lambda value: value + store.change("b", one_more)) == 12
    assert (store["a"], store["b"]) == (12, 11)


def test_the_function_is_called_again_if_the_item_was_changed(store: Store) -> None:
    store["a"] = 1
    seen = []

    def function(value: int) -> int:
        seen.append(value)
        if len(seen) < 4:
            store["a"] = value + 10
        return value + 1

    assert store.change("a", function) == 32
    assert seen == [1, 11, 21, 31]


def test_a_function_that_always_changes_the_item_itself_comes_to_an_end(store: Store) -> None:
    store["a"] = 0
    with Store.attach(store.name, lock_timeout=0.05) as handle:
        with pytest.raises(LockTimeoutError, match="the item itself"):
            handle.change("a", lambda _: handle.incr("a"))
        assert handle["a"] >= 64
    with Store.attach(store.name, lock_timeout=0) as handle:  # an overtaken call is no call that waits
        store["b"] = 0
        tries = iter(range(100))
        assert handle.change("b", lambda value: store.incr("b") if next(tries) < 60 else value + 1) == 61


def test_a_function_that_closes_the_store(store: Store) -> None:
    store["a"] = 1
    handle = Store.attach(store.name)
    with pytest.raises(ClosedStoreError):
        handle.change("a", lambda value: handle.close() or value)
    assert store["a"] == 1


def test_a_function_that_removes_the_item(store: Store) -> None:
    store["a"] = 1
    with pytest.raises(KeyError):
        store.change("a", lambda value: store.pop("a"))
    assert "a" not in store


# ---- On disk ------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def test_a_change_of_a_durable_store_is_in_its_log_with_its_expiry(folder: Path) -> None:
    with Store.open(folder, sync="always", size="16MiB") as store:
        store.put("a", [1], ttl=1000)
        store.change("a", appended)
        store.change("b", appended, default=[])
        copy = copy_of(folder)
        left = store.ttl("a")
    with Store.open(copy) as store:
        assert dict(store) == {"a": [1, 1], "b": [0]}
        assert store.ttl("a") == pytest.approx(left, abs=20)
        assert store.ttl("b") is None

"""A store that exists and is not what is asked for: refused with advice, kept, resized or replaced."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import time
from typing import Any

import pytest
from helpers import MIB, ChildFailed, Forked, in_fork, region_path, store_names

from shmkv import (
    LockTimeoutError,
    Store,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    region,
)

OTHER: dict[str, dict[str, Any]] = {
    "larger": {"size": "8MiB"},
    "smaller": {"size": "3MiB"},
    "evict": {"on_full": "evict"},
    "both": {"size": "8MiB", "on_full": "evict"},
}


def fill(store: Store) -> dict[Any, tuple[Any, int, bool]]:
    """Items of every kind; what is to be seen of them later."""
    store.update({f"k{number}": b"x" * (number % 300) for number in range(2000)})
    store.update({b"bytes": [1, {"a": (2, 3)}], "": "empty", "large": b"L" * 300_000, "x" * 65_535: None})
    store.put("typed", b"<p>", content_type="text/html")
    store.put("soon", 1, ttl=1000)
    store.put("gone", 1, ttl=0.001)
    for number in range(50):
        store["often"] = number
    del store["k7"]
    time.sleep(0.002)
    return facts(store)


def facts(store: Store) -> dict[Any, tuple[Any, int, bool]]:
    return {key: (*store.gets(key), store.ttl(key) is not None) for key in store}


def is_as_wanted(store: Store, want: dict[str, Any]) -> bool:
    header = region.parse_header(os.pread(store._opened().fd, 256, 0), store.size, store.name)
    return not region.differences(header, region.wanted(want.get("size"), None, want.get("on_full")))


# ---- error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", OTHER.values(), ids=OTHER)
def test_the_error_says_what_to_do(name: str, want: dict[str, Any]) -> None:
    Store(name, size="4MiB").close()
    for call in (Store, lambda *args, **options: Store.create(*args, exist_ok=True, **options)):
        with pytest.raises(StoreExistsError, match=r"keep.*resize.*replace") as refused:
            call(name, **want)
        for word in ("keep", "resize", "replace"):
            assert f"'{word}'" in str(refused.value)
            call(name, **want, existing=word).close()  # and each of them is true
            Store.unlink_name(name)
            Store(name, size="4MiB").close()


def test_a_word_that_there_is_not(name: str) -> None:
    for call in (Store, Store.create):
        with pytest.raises(ValueError, match="'resize'"):
            call(name, existing="grow")
    assert name not in store_names()


def test_another_mode_is_an_error_but_for_replace(name: str) -> None:
    with Store(name, size="4MiB"):
        for word in ("error", "keep"):
            with pytest.raises(StoreExistsError, match="mode 0o600"):
                Store(name, size="8MiB", mode=0o640, existing=word)
        with Store(name, mode=0o640, existing="replace") as other:
            assert region_path(name).stat().st_mode & 0o777 == 0o640
            assert len(other) == 0


# ---- keep ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", OTHER.values(), ids=OTHER)
def test_keep(name: str, want: dict[str, Any]) -> None:
    with Store(name, size="4MiB") as old:
        old["k"] = 1
        with Store(name, existing="keep", **want) as kept:
            assert (kept["k"], kept.size, kept.uuid) == (1, 4 * MIB, old.uuid)
        assert not old.stale


def test_a_new_store_is_as_asked_for_whatever_existing_says(name: str) -> None:
    for word in ("error", "keep", "resize", "replace"):
        with Store(name, size="2MiB", on_full="evict", existing=word) as store:
            assert is_as_wanted(store, {"size": "2MiB", "on_full": "evict"})
            store.unlink()


# ---- replace -------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", OTHER.values(), ids=OTHER)
def test_replace(name: str, want: dict[str, Any]) -> None:
    with Store(name, size="4MiB") as old:
        old["k"] = 1
        with Store(name, existing="replace", **want) as other:
            assert is_as_wanted(other, want)
            assert (len(other), old["k"], old.stale) == (0, 1, True)
            other["k"] = 2
            with Store(name, existing="replace", **want) as same:  # it is as wanted now
                assert same["k"] == 2


@pytest.mark.parametrize("word", ["replace", "resize"])
def test_of_many_that_start_at_once_one_does_it(name: str, word: str) -> None:
    """No worker ends up with a store of its own."""
    for _ in range(5):
        with Store(name, size="4MiB") as old:
            old["old"] = 1

        def start(worker: int) -> tuple[str, int]:
            with Store(name, size="8MiB", existing=word) as store:
                store[f"worker {worker}"] = worker
                return str(store.uuid), store.size

        workers = [Forked(start, worker) for worker in range(8)]
        assert len({worker.result() for worker in workers}) == 1
        with Store(name) as store:
            assert store.size == 8 * MIB
            assert [store[f"worker {worker}"] for worker in range(8)] == list(range(8))
            assert ("old" in store) == (word == "resize")
            store.unlink()


# ---- resize --------------------------------------------------------------------------------------


@pytest.mark.parametrize("want", OTHER.values(), ids=OTHER)
def test_resize_keeps_everything(name: str, want: dict[str, Any]) -> None:
    with Store(name, size="4MiB") as old:
        before, counted, uuid = fill(old), old.stats(), old.uuid
        pickled = pickle.dumps(old)
        ttl = old.ttl("soon")
    Store.resize(name, want.get("size"), on_full=want.get("on_full"))
    with Store(name, **want) as store:
        assert facts(store) == before
        after = store.stats()
        assert (after.sets, after.deletes, after.hits) == (counted.sets, counted.deletes, after.hits)
        assert after.hits >= counted.hits
        assert store.content_type("typed") == "text/html"
        assert ttl is not None
        assert ttl - 30 < (store.ttl("soon") or 0) <= ttl
        assert store.uuid == uuid
        assert pickle.loads(pickled)["often"] == 49
        assert store.check().ok


def test_versions_go_on_where_they_were(name: str) -> None:
    """A version that somebody remembers never belongs to another value later."""
    with Store(name, size="2MiB") as old:
        for number in range(300):
            old["often"] = number
        old["k"] = "first"
        remembered = old.gets("k").version
        seen = {old.gets("often").version}
    Store.resize(name, "64MiB")
    with Store(name) as store:
        assert store.cas("k", "second", remembered)
        for number in range(300):
            store["often"] = number
            version = store.gets("often").version
            assert version not in seen
            seen.add(version)


def test_resize_while_in_use(name: str) -> None:
    with Store(name, size="4MiB") as old:
        old["k"] = 1
        with pytest.raises(StoreLockedError, match="in use"):
            Store.resize(name, "8MiB")
        with Store(name, size="8MiB", existing="resize") as kept:
            assert (kept.size, kept["k"]) == (4 * MIB, 1)
        with pytest.raises(ChildFailed, match="StoreLockedError"):
            in_fork(Store.resize, name, "8MiB")
    with Store.attach(name, readonly=True), pytest.raises(StoreLockedError):
        Store.resize(name, "8MiB")
    Store.resize(name, "8MiB")
    with Store(name, size="8MiB") as store:
        assert store["k"] == 1
    assert not [left for left in store_names() if left.startswith(f"private.{os.getpid()}.")]


def test_what_does_not_fit_stays(name: str) -> None:
    with Store(name, size="8MiB") as old:
        old.update({f"k{number}": b"x" * 10_000 for number in range(400)})
        before = facts(old)
    with pytest.raises(StoreFullError, match="do not fit"):
        Store.resize(name, "1MiB")
    with Store(name, size="8MiB") as store:
        assert facts(store) == before
        store.clear()
        store["large"] = b"x" * 1_500_000
    with pytest.raises(StoreFullError, match="do not fit"):
        Store.resize(name, "4MiB")  # of which one value takes at most a quarter
    with Store(name) as store:
        assert len(store["large"]) == 1_500_000


def test_a_smaller_cache_keeps_what_fits(name: str) -> None:
    with Store(name, size="8MiB", on_full="evict") as old:
        old.update({f"k{number}": b"x" * 1000 for number in range(4000)})
    Store.resize(name, "1MiB")
    with Store(name) as store:
        assert 100 < len(store) < 4000
        assert store.size == MIB
        assert store.check().ok


def test_resizing_nothing(name: str) -> None:
    with pytest.raises(StoreNotFoundError):
        Store.resize(name, "4MiB")
    with Store(name, size="4MiB") as store:
        Store.resize(name, "4MiB")  # it is as wanted: nobody has to close it
        assert not store.stale
    with pytest.raises(ValueError, match="size"):
        Store.resize(name, "1KiB")


@pytest.mark.slow
def test_killed_anywhere_it_is_the_one_or_the_other(name: str) -> None:
    with Store(name, size="8MiB") as old:
        old.update({f"k{number}": number for number in range(20_000)})
        before = dict(old)
    sizes = {8 * MIB}
    for attempt in range(25):
        with Store(name) as store:
            size = 16 * MIB if store.size == 8 * MIB else 8 * MIB
        child = Forked(Store.resize, name, size)
        time.sleep(0.004 * attempt)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        with Store(name) as store:
            assert dict(store) == before
            assert store.check().ok
            sizes.add(store.size)
    Store().close()  # collects what they left
    assert not [left for left in store_names() if region.is_dead_private(left)]
    Store.resize(name, 12 * MIB)
    with Store(name) as store:
        assert dict(store) == before


def test_a_stopped_replacer_is_waited_for_and_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from shmkv import replacing

    Store(name, size="4MiB").close()
    monkeypatch.setattr(replacing, "_PATIENCE_S", 0.3)

    def stop_inside() -> None:
        with replacing._sole_replacer(region.object_name(name), foreign=False):
            os.kill(os.getpid(), signal.SIGSTOP)

    child = Forked(stop_inside)
    os.waitpid(child.pid, os.WUNTRACED)
    try:
        for word in ("replace", "resize"):
            with pytest.raises(LockTimeoutError, match="stopped"):
                Store(name, size="8MiB", existing=word)
        Store(name, size="4MiB", existing="replace").close()  # which needs no replacing
    finally:
        os.kill(child.pid, signal.SIGCONT)
        child.wait()


def test_a_reader_keeps_what_there_is(name: str) -> None:
    with Store(name, size="4MiB") as old:
        for word in ("keep", "resize", "replace"):
            with Store(name, size="8MiB", readonly=True, existing=word) as reader:
                assert reader.size == 4 * MIB
        assert not old.stale


def test_a_fork_in_the_middle(name: str) -> None:
    """A child that is born while a thread resizes has nothing of it, and attaches like anybody; both always end."""
    with Store(name, size="8MiB") as old:
        old.update({f"k{number}": number for number in range(20_000)})

    def resize(size: str) -> None:
        with contextlib.suppress(StoreLockedError):  # a child was attached first
            Store.resize(name, size)

    for size in ("16MiB", "8MiB", "16MiB"):
        thread = threading.Thread(target=resize, args=(size,))
        thread.start()
        children = []
        while thread.is_alive():
            children.append(Forked(lambda: len(Store(name))))
            time.sleep(0.02)
        thread.join()
        assert {child.result() for child in children} <= {20_000}
        Store.resize(name, size)
        with Store(name) as store:
            assert (store.size, len(store)) == (region.parse_size(size), 20_000)

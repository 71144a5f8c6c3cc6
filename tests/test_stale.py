"""A handle whose name leads elsewhere by now: it can be asked, it tells, and with `reattach` it follows."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import Forked, region_path
from serving import serving
from shell import run

from shmkv import ClosedStoreError, CorruptStoreError, ReadOnlyStoreError, Store, outside, region

SIZE = "1MiB"


@pytest.fixture
def follower(name: str) -> Iterator[Store]:
    """A handle that follows its name."""
    with Store(name, size=SIZE, reattach=True) as follower:
        yield follower


def made_again(name: str, **items: Any) -> Store:
    """The name is removed, and another store gets it."""
    Store.unlink_name(name)
    release = Store(name, size="2MiB")
    release.update(items)
    return release


# ---- stale ---------------------------------------------------------------------------------------


def removed_by_rm(name: str) -> None:
    region_path(name).unlink()


def renamed(name: str) -> None:
    region_path(name).rename(region_path(name + "-elsewhere"))


def replaced(name: str) -> None:
    Store.create(name + "-elsewhere", size=SIZE).close()
    region_path(name + "-elsewhere").rename(region_path(name))


@pytest.mark.parametrize("change", [removed_by_rm, Store.unlink_name, renamed, replaced, made_again])
def test_every_way_to_lose_the_name_is_told(name: str, change: Callable[[str], Any]) -> None:
    with Store(name, size=SIZE) as old, Store.attach(name, readonly=True) as reader:
        assert not old.stale
        assert not reader.stats().stale
        old["k"] = 1
        made = change(name)
        assert old.stale
        assert reader.stale
        assert old.stats().stale
        assert old["k"] == 1  # it goes on
        if isinstance(made, Store):
            assert not made.stale
            made.close()
    region_path(name + "-elsewhere").unlink(missing_ok=True)


def test_a_forked_child_is_told_too(name: str) -> None:
    with Store(name, size=SIZE) as store:
        assert Forked(lambda: store.stale).result() is False
        store.unlink()
        assert Forked(lambda: store.stale).result() is True


def test_private_stores_are_never_stale() -> None:
    with Store() as store:
        assert not store.stale
        region_path(store.name).unlink()
        assert not store.stale


def test_a_closed_handle_cannot_be_asked(name: str) -> None:
    store = Store(name, size=SIZE)
    store.close()
    with pytest.raises(ClosedStoreError):
        _ = store.stale


def test_closed_descriptors_do_not_matter(name: str) -> None:
    """User code that closes all descriptors (a daemon does) changes nothing of what the name means."""

    def closed_all() -> tuple[bool, bool]:
        os.close(store._opened().fd)
        before = store.stale
        store.unlink()
        return before, store.stale

    with Store(name, size=SIZE) as store:
        assert Forked(closed_all).result() == (False, True)


# ---- Who tells -----------------------------------------------------------------------------------


def test_doctor_names_the_processes_of_the_store_before(name: str) -> None:
    with Store(name, size=SIZE) as old:
        assert name not in outside.users_of_removed()
        with made_again(name):
            told = run("doctor", "--store", name, "--json")
            [finding] = [one for one in told.json["findings"] if one["kind"] == "orphaned-processes"]
            assert str(os.getpid()) in finding["what"]
            assert outside.users_of_removed()[name] == [os.getpid()]
        del old


@pytest.mark.slow
def test_a_server_says_so(name: str) -> None:
    with serving("--store", name, "--size", SIZE) as server:
        assert server.http.get("/readyz").status_code == 200
        assert server.http.get("/stats").json()["stale"] is False
        with made_again(name):
            answer = server.http.get("/readyz")
            assert answer.status_code == 503
            assert "restart" in answer.json()["detail"]
            assert server.http.get("/stats").json()["stale"] is True
            assert f'\nshmkv_stale{{store="{name}"}} 1\n' in server.http.get("/metrics").text
            assert server.http.get("/healthz").status_code == 200
            assert b"another store" in run("stats", "--url", server.url).out


# ---- reattach ------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Store], Any]] = {
    "get": lambda s: s.get("k"),
    "getitem": lambda s: s["k"],
    "gets": lambda s: s.gets("k").value,
    "get_many": lambda s: s.get_many(["k"])["k"],
    "in": lambda s: "k" in s and "new",
    "len": lambda s: len(s) == 1 and "new",
    "iter": lambda s: list(s) == ["k"] and "new",
    "items": lambda s: dict(s.items())["k"],
    "values": lambda s: next(iter(s.values())),
    "range": lambda s: s.range("a")[0][1],
    "scan": lambda s: list(s.scan("k")) == ["k"] and "new",
    "pop": lambda s: s.pop("k"),
    "popitem": lambda s: s.popitem()[1],
    "setdefault": lambda s: s.setdefault("k", "old"),
    "replace": lambda s: s.replace("k", "new") and s["k"],
    "add": lambda s: not s.add("k", "old") and s["k"],
    "delete": lambda s: s.delete("k") and "new",
    "touch": lambda s: s.touch("k", 100) and "new",
    "update": lambda s: (s.update(other=1), s["k"])[1],
    "delete_many": lambda s: s.delete_many(["k"]) == 1 and "new",
    "stats": lambda s: s.stats().size == 2 << 20 and "new",
    "check": lambda s: s.check().items == 1 and "new",
    "compact": lambda s: (s.compact(), s["k"])[1],
    "incr": lambda s: s.incr("n", 1, 7) == 8 and s["k"],
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_follows(name: str, follower: Store, operation: str) -> None:
    follower.update({"k": "old", "n": 1, **{str(number): "old" for number in range(20)}})
    with made_again(name, k="new") as release:
        before = follower.uuid
        assert OPERATIONS[operation](follower) == "new"
        assert follower.uuid == release.uuid != before
        assert (follower.size, follower.stale) == (2 << 20, False)
        follower["from the follower"] = 1
        assert release["from the follower"] == 1


def test_without_the_option_nothing_is_followed(name: str) -> None:
    with Store(name, size=SIZE) as old:
        old["k"] = "old"
        with made_again(name, k="new"):
            assert old["k"] == "old"


def test_a_name_that_leads_nowhere_is_not_followed(name: str, follower: Store) -> None:
    follower["k"] = 1
    follower.unlink()
    assert follower["k"] == 1
    assert follower.incr("k") == 2
    assert follower.stale


def test_a_walk_stays_in_its_store(name: str, follower: Store) -> None:
    follower.update((f"old {number}", number) for number in range(1000))
    walk = iter(follower.items())
    seen = [next(walk)]
    with made_again(name, new=1):
        assert follower["new"] == 1
        seen += walk
        assert dict(seen) == {f"old {number}": number for number in range(1000)}
        assert dict(follower) == {"new": 1}


def test_what_cannot_be_attached_to_raises(name: str, follower: Store) -> None:
    follower["k"] = 1
    Store.unlink_name(name)
    region_path(name).write_bytes(b"no store" * 1000)
    with pytest.raises(CorruptStoreError):
        follower.get("k")
    region_path(name).unlink()
    assert follower["k"] == 1


def test_a_read_only_handle_follows_and_stays_read_only(name: str) -> None:
    with Store(name, size=SIZE), Store.attach(name, readonly=True, reattach=True) as reader, made_again(name, k="new"):
        assert reader["k"] == "new"
        with pytest.raises(ReadOnlyStoreError):
            reader["k"] = 1


def test_a_forked_child_follows(name: str, follower: Store) -> None:
    with made_again(name, k="new"):
        assert Forked(lambda: follower["k"]).result() == "new"
        assert follower["k"] == "new"


def test_a_pickled_handle_follows(name: str, follower: Store) -> None:
    follower["k"] = "old"
    data = pickle.dumps(follower)
    with made_again(name, k="new"), pickle.loads(data) as loaded:
        assert loaded["k"] == "new"
    with made_again(name, k="newer"):
        assert pickle.loads(data)["k"] == "newer"


def test_threads_change_over_between_two_calls(name: str, follower: Store) -> None:
    """Each batch lands whole in one store, whatever is replaced meanwhile."""
    keys = [f"k{number}" for number in range(50)]
    over = threading.Event()
    torn: list[Any] = []

    def write(number: int) -> None:
        while not over.is_set():
            follower.put_many(dict.fromkeys(keys, number))
            found = follower.get_many(keys)
            if found and (len(found) != len(keys) or len(set(found.values())) != 1):
                torn.append(found)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        made_again(name).close()
    over.set()
    for thread in threads:
        thread.join()
    assert torn == []
    assert not follower.stale
    assert len(follower.get_many(keys)) in (0, len(keys))
    assert mappings_of(name) == 1


def mappings_of(name: str) -> int:
    """Regions of this name that this process has mapped: their bytes from the first one on."""
    path = os.fsdecode(region.path_of(region.object_name(name)))
    with open("/proc/self/maps", encoding="utf-8") as maps:
        inodes = {line.split()[4] for line in maps if f"{path}\n" in line or f"{path} (deleted)\n" in line}
    return len(inodes)


def test_a_second_closing_is_as_of_any_handle(name: str) -> None:
    store = Store(name, size=SIZE, reattach=True)
    store.close()
    with pytest.raises(ClosedStoreError):
        store.get("k")
    with pytest.raises(ClosedStoreError):
        store.put("k", 1)
    assert store.closed
    store.close()

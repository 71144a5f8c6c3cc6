"""A handle pickles as name, uuid and options, so that it can be an argument of a task."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from helpers import check

from shmkv import ClosedStoreError, CodecError, ReadOnlyStoreError, Store, StoreNotFoundError

METHODS = ["fork", "spawn", "forkserver"]


def test_round_trip(store: Store) -> None:
    store["k"] = b"secret value"
    data = pickle.dumps(store)
    assert b"secret value" not in data
    assert len(data) < 1000
    with pickle.loads(data) as again:
        assert type(again) is Store
        assert again.name == store.name
        again["k"] = 2
    assert store["k"] == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(store: Store, protocol: int) -> None:
    store["k"] = 1
    with pickle.loads(pickle.dumps(store, protocol)) as again:
        assert again["k"] == 1


def test_options_of_the_handle_go_along(store: Store) -> None:
    with Store.attach(store.name, codec="pickle", lock_timeout=0.25) as pickled:
        pickled["k"] = {1j}
        with pickle.loads(pickle.dumps(pickled)) as again:
            assert again["k"] == {1j}
            assert again.__reduce__() == pickled.__reduce__()
            assert 0.25 in pickled.__reduce__()[1]
    reader = Store.attach(store.name, readonly=True)
    with reader, pickle.loads(pickle.dumps(reader)) as again, pytest.raises(ReadOnlyStoreError):
        again["k"] = 1
    with pickle.loads(pickle.dumps(store)) as again, pytest.raises(CodecError):
        again["k"]


def test_copy_is_another_handle(store: Store) -> None:
    twin = copy.copy(store)
    twin["k"] = 1
    twin.close()
    assert store["k"] == 1
    with copy.deepcopy(store) as twin:
        assert twin["k"] == 1


def test_another_store_of_the_same_name_is_not_found(name: str) -> None:
    store = Store.create(name, size="2MiB")
    data = pickle.dumps(store)
    store.unlink()
    with pytest.raises(StoreNotFoundError):
        pickle.loads(data)
    with Store.create(name, size="2MiB"), pytest.raises(StoreNotFoundError):
        pickle.loads(data)
    store.close()


def test_a_closed_handle(name: str) -> None:
    store = Store.create(name, size="2MiB")
    store.close()
    with pytest.raises(ClosedStoreError):
        pickle.dumps(store)


def test_a_private_store_stays_its_creators() -> None:
    with Store() as store:
        store["k"] = 1
        pickle.loads(pickle.dumps(store)).close()
        assert store["k"] == 1
        assert any(True for _ in store)
        Store.attach(store.name).close()


# ---- As an argument --------------------------------------------------------------------------


def _add(store: Store, number: int) -> int:
    store[f"{number}"] = number
    store.incr("sum", number)
    return os.getpid()


_global: Store


def _initialize(store: Store) -> None:
    global _global
    _global = store


def _add_to_global(number: int) -> int:
    return _add(_global, number)


@pytest.mark.parametrize("method", METHODS)
def test_process_with_the_handle_as_argument(store: Store, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=_add, args=(store, 7))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert store["7"] == 7


@pytest.mark.parametrize("method", METHODS)
def test_pool_with_the_handle_as_argument(store: Store, method: str) -> None:
    with multiprocessing.get_context(method).Pool(2) as pool:
        pids = pool.starmap_async(_add, [(store, i) for i in range(200)], chunksize=5).get(60)
        pool.close()
        pool.join()
    assert os.getpid() not in pids
    assert store["sum"] == sum(range(200))
    assert len(store) == 201
    check(store)


@pytest.mark.parametrize("method", METHODS)
def test_pool_with_the_handle_in_its_initializer(store: Store, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context, initializer=_initialize, initargs=(store,)) as pool:
        list(pool.map(_add_to_global, range(200), timeout=60))
    assert store["sum"] == sum(range(200))


def _forward(store: Store, levels: int) -> None:
    store.incr("levels")
    if levels:
        child = multiprocessing.get_context("spawn").Process(target=_forward, args=(store, levels - 1))
        child.start()
        child.join(60)
        assert child.exitcode == 0


def test_a_handle_is_passed_on(store: Store) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_forward, args=(store, 2))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    assert store["levels"] == 3


def _hand_back(store: Store) -> Store:
    store["k"] = os.getpid()
    return store


def test_a_handle_as_a_result(store: Store) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        back = pool.apply_async(_hand_back, (store,)).get(60)
    assert back["k"] == store["k"]
    back.close()

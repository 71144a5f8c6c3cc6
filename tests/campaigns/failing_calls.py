"""Calls of the extension module fail, the first, then the second, ..., in each method of a store.

Run by resources.py in a process that has tests/core/fail_calls.c preloaded.  Arguments: the path of that library; how
many calls are passed over between two that fail, after the first twenty; operations (none = all).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shmkv import ShmkvError, Store, StoreFullError, _core

KINDS = {"malloc": 1, "fallocate": 2, "mmap": 3, "open": 4, "madvise": 5, "fcntl": 6}
MOST_CALLS = 3000
ITEMS = {f"k{i}": b"v" * (i % 90) for i in range(400)}
LONG = {f"long{i}": b"x" * 300_000 for i in range(10)}
MANY = {f"m{i}": "y" * 50 for i in range(3000)}
LINES = b"".join(b"line%d\\ta\ta\\\\tvalue\n" % i for i in range(100))

calls: ctypes.CDLL
tries = failures = 0


def code_of(path: str) -> tuple[int, int]:
    """Where the code of a loaded library lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, flags, *_, name = line.split(maxsplit=5)
        if name.strip() == path and "x" in flags:
            low, high = span.split("-")
            return int(low, 16), int(high, 16)
    raise SystemExit(f"{path} is not loaded")


def right_error(kind: str, error: BaseException) -> bool:
    if kind == "malloc":
        return type(error) is MemoryError
    if kind == "fallocate":
        return isinstance(error, StoreFullError)
    return isinstance(error, (StoreFullError, OSError)) and (isinstance(error, ShmkvError) or type(error) is OSError)


def name() -> str:
    return f"shmkv-test-{os.getpid()}-failing"


def filled() -> Store:
    store = Store.create(name(), size="32MiB")
    store.put_many(ITEMS)
    store.put("ttl", 1, ttl=1000)
    return store


def create(store: Store) -> None:
    other = name() + "-other"
    try:
        Store.create(other, size="8MiB").close()
    finally:
        calls.fail_disarm()
        with contextlib.suppress(FileNotFoundError):
            Store.unlink_name(other)


def attach(store: Store) -> None:
    Store.attach(name(), readonly=True).close()


def growth(store: Store) -> None:
    for key, value in LONG.items():
        store[key] = value


def removed(model: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in keys}


Operation = tuple[Callable[[Store], Any], Callable[[dict[str, Any]], dict[str, Any]]]
SOME = [f"k{i}" for i in range(0, 200, 2)]

# What is called, and what a dict would hold after it.
OPERATIONS: dict[str, Operation] = {
    "create": (create, lambda m: m),
    "attach": (attach, lambda m: m),
    "put": (lambda s: s.put("new", b"n" * 100), lambda m: m | {"new": b"n" * 100}),
    "long key": (lambda s: s.put("n" * 9000, 1), lambda m: m | {"n" * 9000: 1}),
    "overwrite": (lambda s: s.put("k1", b"n" * 5000), lambda m: m | {"k1": b"n" * 5000}),
    "nested": (lambda s: s.put("new", {"a": [1, 2.5, {3}]}), lambda m: m | {"new": {"a": [1, 2.5, {3}]}}),
    "get": (lambda s: s["k7"], lambda m: m),
    "get_many": (lambda s: s.get_many(list(ITEMS)), lambda m: m),
    "incr": (lambda s: s.incr("n", 2), lambda m: m | {"n": 2}),
    "pop": (lambda s: s.pop("k3"), lambda m: removed(m, ["k3"])),
    "touch": (lambda s: s.touch("k5", 1000), lambda m: m),
    "growth": (growth, lambda m: m | LONG),
    "put_many": (lambda s: s.put_many(MANY), lambda m: m | MANY),
    "put_many of pairs": (lambda s: s.put_many(iter(MANY.items())), lambda m: m | MANY),
    "update": (lambda s: s.update(iter(MANY.items())), lambda m: m | MANY),
    "delete_many": (lambda s: s.delete_many(SOME), lambda m: removed(m, SOME)),
    "clear": (lambda s: s.clear(), lambda m: {}),
    "items": (lambda s: list(s.items()), lambda m: m),
    "range": (lambda s: list(s.range("k1", "k2")), lambda m: m),
    "len": (len, lambda m: m),
    "stats": (lambda s: s.stats(), lambda m: m),
    "compact": (lambda s: s.compact(), lambda m: m),
    "check": (lambda s: s.check(), lambda m: m),
}


def require_model(store: Store, model: dict[str, Any], what: str) -> None:
    assert dict(store) == model, f"{what}: another content"
    report = store.check()
    assert report.ok, f"{what}: {report.problems}"


def after_growth(store: Store, model: dict[str, Any]) -> dict[str, Any]:
    """Each of these puts is one of its own: those before the one that failed are there."""
    done = [key for key in LONG if key in store]
    assert done == list(LONG)[: len(done)]
    return model | {key: LONG[key] for key in done}


def fail_nth(what: str, kind: str, nth: int, for_good: bool) -> bool:
    """False: there was no n-th call."""
    global tries, failures
    act, on_model = OPERATIONS[what]
    words = f"{what}, {kind} number {nth} fails{', and all after it' if for_good else ''}"
    with filled() as store:
        model = dict(store)
        raised = None
        calls.fail_arm(KINDS[kind], nth, for_good)
        try:
            act(store)
        except Exception as error:
            raised = error
        fired = calls.fail_disarm()
        failed = raised is not None
        assert raised is None or right_error(kind, raised), f"{words}: {raised!r}"
        tries += 1
        failures += failed
        assert fired or not failed, f"{words}: failed without a reason"
        model = model if not failed else after_growth(store, model) if what == "growth" else model
        require_model(store, model if failed else on_model(model), words)
        if failed:
            act(store)
            require_model(store, on_model(model), f"{words}, then once more")
        store["usable"] = 1
        store.unlink()
    return bool(fired)


def fail_all(what: str, kind: str, for_good: bool, stride: int) -> None:
    nth = 1
    while fail_nth(what, kind, nth, for_good):
        nth += 1 if nth < 20 else stride
        assert nth < MOST_CALLS, f"{what} calls {kind} for ever"


def main(library: str, stride: int, chosen: list[str]) -> None:
    global calls
    calls = ctypes.CDLL(library)
    calls.fail_set_range.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
    calls.fail_arm.argtypes = [ctypes.c_int, ctypes.c_uint32, ctypes.c_bool]
    calls.fail_set_range(*code_of(str(_core.__file__)))
    for what in chosen or OPERATIONS:
        for kind in KINDS:
            for for_good in (False, True):
                before = tries
                fail_all(what, kind, for_good, stride)
                print(f"ok {what}, {kind}{' for good' if for_good else ''}: {tries - before} tries")
    print(f"tries={tries} failed={failures}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])

"""Fixtures: a store of its own for each test, checked and removed after it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
HANG_SECONDS = 150  # no test takes half of it on an idle machine: past that, tracebacks of all threads and the end

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ  # or started by one: it must not start more

sys.path.insert(0, str(HERE))
sys.path.append(str(HERE.parent))  # for `bench`, which is not installed


import extension  # noqa: E402

if not IS_WORKER:
    extension.bring_up_to_date()
_fault = extension.fault()
if _fault:
    pytest.exit(_fault, returncode=4)

import helpers  # noqa: E402
import hypothesis  # noqa: E402
from building import object_cache  # noqa: E402
from shell import Server, Shell  # noqa: E402

from shmkv import Store, StoreNotFoundError  # noqa: E402

hypothesis.settings.register_profile(
    "shmkv",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("shmkv")

MOST_WORKERS = 4  # of pytest-xdist, when nothing is said
_stderr = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="every test, also those that take long (marked `slow`)")
    parser.addoption(
        "--seed", type=int, default=None, help="seed of all random choices (default: a new one, which is printed)"
    )


def pytest_configure(config: pytest.Config) -> None:
    global _stderr
    _stderr = os.dup(2)  # now, while it is not captured
    object_cache()  # now, so that the workers of pytest-xdist share it
    # A shell ignores SIGINT for what it starts in the background, and all children would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python >= 3.12 warns of what these tests do on purpose.
    config.addinivalue_line("filterwarnings", "ignore:This process .* is multi-threaded:DeprecationWarning")
    if config.option.seed is None:
        config.option.seed = getattr(config, "workerinput", {}).get("seed", secrets.randbits(32))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest` alone uses the processors; a test that is named runs in this process, as debuggers want it."""
    option = config.option
    if IS_WORKER or _named(config) or option.usepdb or option.collectonly:
        return
    if getattr(option, "numprocesses", 1) is None:
        option.numprocesses = min(os.cpu_count() or 1, MOST_WORKERS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what takes long, unless everything was asked for, or just that page or test."""
    named = _named(config)
    left_out = [
        item for item in items if item.get_closest_marker("slow") and not (config.option.all or _is_named(item, named))
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _named(config: pytest.Config) -> list[str]:
    """Pages and tests of the command line; folders are none."""
    return [word for word in config.args if Path(word.partition("::")[0]).suffix == ".py"]


def _is_named(item: pytest.Item, named: list[str]) -> bool:
    paths = [Path(word.partition("::")[0]).resolve() for word in named]
    return item.path in paths


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_configure_node(node: Any) -> None:
    """Workers of one run share its seed."""
    node.workerinput["seed"] = node.config.option.seed


def pytest_report_header(config: pytest.Config) -> str:
    return f"shmkv: seed {config.option.seed} (the same run again: --seed {config.option.seed})"


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.option.seed)


@pytest.fixture
def rng(request: pytest.FixtureRequest, seed: int) -> random.Random:
    """Random choices that depend on the seed and the test alone."""
    own = f"{seed}:{request.node.nodeid}"
    print(f"random.Random({own!r})")
    return random.Random(own)


@pytest.fixture(autouse=True)
def ends_in_time_and_alone() -> Iterator[None]:
    """A hang shows where, and children that a test forgot end with it."""
    faulthandler.dump_traceback_later(HANG_SECONDS * helpers.PATIENCE, exit=True, file=_stderr)
    yield
    helpers.end_all_children()
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session", autouse=True)
def leaves_no_store_behind() -> Iterator[None]:
    yield
    left = [name for name in helpers.store_names() if name.startswith(f"{helpers.NAME_PREFIX}-{os.getpid()}-")]
    for name in left:
        Store.unlink_name(name)
    assert not left, "tests left stores behind"


def _verify_and_remove(name: str) -> None:
    try:
        handle = Store.attach(name)
    except StoreNotFoundError:
        return
    try:
        helpers.check(handle)
    finally:
        handle.unlink()
        handle.close()


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no other test has; the store under it, if there is one, is checked and removed."""
    name = helpers.unique_name()
    yield name
    helpers.end_all_children()
    _verify_and_remove(name)


@pytest.fixture
def make_store() -> Iterator[Callable[..., Store]]:
    """`make_store(size=..., ...)`: stores of the test's own; each is checked and removed after it."""
    made: list[Store] = []

    def make(**options: Any) -> Store:
        options.setdefault("size", 64 * helpers.MIB)
        made.append(Store.create(helpers.unique_name(), **options))
        return made[-1]

    yield make
    helpers.end_all_children()
    faults = []
    for store in made:
        try:
            if store.closed:
                _verify_and_remove(store.name)
            else:
                try:
                    helpers.check(store)
                finally:
                    with contextlib.suppress(StoreNotFoundError):
                        store.unlink()
                    store.close()
        except AssertionError as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store()


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.now_ms = store._now_ms()
        store._set_clock(self.now_ms)

    def advance(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)
        self._store._set_clock(self.now_ms)


@pytest.fixture
def clock(store: Store) -> Iterator[Clock]:
    """The store's clock in the test's hand."""
    yield Clock(store)
    if not store.closed:
        store._set_clock(0)


# ---- Commands in a shell -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shell_store() -> Iterator[Store]:
    """One store for the commands of a module, which finds it empty in each test."""
    with helpers.temporary_store() as store:
        yield store


@pytest.fixture(scope="module")
def server(shell_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`shmkv serve` of that store."""
    server = Server(shell_store, tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(params=["local", "remote"])
def shell(request: pytest.FixtureRequest, shell_store: Store) -> Shell:
    """`shmkv` as a shell runs it, on an empty store: here, and behind a server."""
    shell_store.clear()
    if request.param == "local":
        return Shell("local", shell_store, "--store", shell_store.name)
    return Shell("remote", shell_store, "--url", request.getfixturevalue("server").url)

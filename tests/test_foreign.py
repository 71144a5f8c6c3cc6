"""Regions that are not to be trusted: other users', other boots', other versions', damaged, hostile.

Each is refused with an error of its own kind, or gives wrong values; none makes a process that attaches
crash or hang.  What might crash runs in a process of its own, with a time limit.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import json
import os
import pkgutil
import random
import re
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from helpers import MIB, in_fork, region_path, run_python, store_names

import shmkv
from shmkv import (
    CorruptStoreError,
    ForeignStoreError,
    LayoutVersionError,
    ShmkvError,
    StaleStoreError,
    Store,
    StoreFullError,
    StoreNotFoundError,
)
from shmkv.cli import main as cli

pytestmark = pytest.mark.slow

# Offsets in the header (docs/memory-layout.md).
MAGIC, VERSION, BYTE_ORDER, SIZE, UUID, BOOT_ID, CHECKSUM, STATE = 0, 8, 12, 16, 32, 48, 248, 256
PROCS_OFFSET, PAGES, TIME_NAMESPACE = 88, 128, 136

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act for another user")
NOBODY = 65534


@functools.cache
def load_all_modules() -> None:
    """For who can load none: the source and the interpreter may lie in a directory of root's."""
    import psutil  # noqa: F401  # which is imported where it is needed

    for module in pkgutil.walk_packages(shmkv.__path__, "shmkv."):
        if module.name != "shmkv.__main__":
            importlib.import_module(module.name)


def as_user(uid: int, function: Callable[..., Any], *args: Any) -> Any:
    load_all_modules()

    def change_and_run() -> Any:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        return function(*args)

    return in_fork(change_and_run)


# ---- Other users -------------------------------------------------------------------------------


@pytest.fixture
def made(name: str) -> Iterator[Callable[..., Store]]:
    """Creates the store of this test; other users' regions of the same name are removed after it."""
    yield lambda **options: Store.create(name, size="2MiB", **options)
    for path in Path("/dev/shm").glob(f"shmkv.*.{name}"):
        if path != region_path(name):
            path.unlink()


@needs_root
def test_users_have_names_of_their_own(name: str, made: Callable[..., Store]) -> None:
    with made() as store:
        store["k"] = "root's"

        def create_own() -> Any:
            assert name not in store_names()
            with pytest.raises(StoreNotFoundError):
                Store.attach(name)
            with pytest.raises(StoreNotFoundError):
                Store.unlink_name(name)
            with Store.create(name, size="2MiB") as own:
                own["k"] = "nobody's"
                assert name in store_names()
                return own["k"]

        assert as_user(NOBODY, create_own) == "nobody's"
        assert store["k"] == "root's"


@needs_root
def test_a_private_region_cannot_be_had(name: str, made: Callable[..., Store]) -> None:
    with made() as store:
        store["k"] = 1

        def attach() -> None:
            for options in ({}, {"readonly": True}):
                with pytest.raises(ForeignStoreError) as foreign:
                    Store.attach(name, foreign=True, **options)
                assert isinstance(foreign.value, PermissionError)

        as_user(NOBODY, attach)


WITHOUT_FOREIGN = {"unlink", "bench", "completion"}  # nobody removes another user's stores; the others look at none


def test_every_command_on_a_store_takes_foreign() -> None:
    from shmkv.cli.surface import surfaces

    taking = {each.name for each in surfaces() if any("--foreign" in option.names for option in each.options)}
    assert taking == {each.name for each in surfaces()} - WITHOUT_FOREIGN


@needs_root
@pytest.mark.parametrize(
    "words",
    [
        ("get", "k"), ("set", "k", "v"), ("incr", "n"), ("ttl", "k"), ("keys",), ("range",), ("stats",), ("metrics",),
        ("export",), ("import", "/dev/null", "--format", "jsonl"), ("check",), ("check", "--deep"), ("compact",),
        ("top", "--count", "1", "--interval", "0.05"), ("del", "k"), ("doctor",),
    ],
    ids=" ".join,
)  # fmt: skip
def test_commands_take_a_foreign_store_when_told(name: str, made: Callable[..., Store], words: tuple[str, ...]) -> None:
    from shmkv.cli.main import main

    with made(mode=0o666) as store:
        store["k"] = b"value"

        def run_both() -> list[int]:
            os.chdir("/")
            foreign = main([words[0], "--store", name, "--foreign", *words[1:]])
            own = main([words[0], "--store", name, *words[1:]])
            return [foreign, own]

        foreign, own = as_user(NOBODY, run_both)
        assert foreign == 0
        creates = words[0] in ("set", "import", "incr")
        assert own == (0 if creates else 69)
        if words[0] in ("set", "incr"):
            assert store.get("n" if words[0] == "incr" else "k") in (1, "v")


def said_by_nobody(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status and output of a command that another user gives."""
    from shmkv.cli.main import main

    capfd.readouterr()

    def give() -> int:
        os.chdir("/")
        status = main(list(words))
        sys.stdout.flush()
        return status

    status = as_user(NOBODY, give)
    return status, capfd.readouterr().out


@needs_root
def test_ls_lists_foreign_stores_when_told(
    name: str, made: Callable[..., Store], capfd: pytest.CaptureFixture[str]
) -> None:
    with made(mode=0o644), Store.create(f"{name}-closed", size="1MiB") as closed:
        as_user(NOBODY, lambda: Store.create(name, size="1MiB").close())  # two users, one name
        assert all(
            one["uid"] == NOBODY for one in map(json.loads, said_by_nobody(capfd, "ls", "--json")[1].splitlines())
        )
        listed = map(json.loads, said_by_nobody(capfd, "ls", "--json", "--foreign")[1].splitlines())
        found = {(one["uid"], one["name"]): one for one in listed}
        assert found[0, name]["size"] == 2 * MIB
        assert found[0, name]["processes"] == 1
        assert found[NOBODY, name]["size"] == MIB
        assert found[0, closed.name]["size"] is None
        assert "does not let user 65534 read it" in found[0, closed.name]["problem"]
        table = said_by_nobody(capfd, "ls", "--foreign")[1]
        assert re.search(rf"^{re.escape(name)} +root +2\.0 MiB", table, re.MULTILINE)
        assert re.search(rf"^{re.escape(name)} +nobody +1\.0 MiB", table, re.MULTILINE)
        assert "root" not in said_by_nobody(capfd, "ls")[1]
        closed.unlink()


@needs_root
def test_doctor_looks_at_foreign_stores_when_told(
    name: str, made: Callable[..., Store], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of two stores of one name each is examined for itself; the remedy is its user's."""
    with made(mode=0o644) as store, Store.create(f"{name}-closed", size="1MiB") as closed:
        as_user(NOBODY, lambda: Store.create(name, size="1MiB").close())
        with contextlib.suppress(StoreFullError):
            for n in itertools.count():
                store.put(f"k{n}", bytes(100))
        status, told = said_by_nobody(capfd, "doctor", "--foreign", "--json")
        findings = json.loads(told)["findings"]
        assert status == 1
        [full] = [one for one in findings if one["about"] == name]
        assert (full["kind"], full["uid"]) == ("nearly-full", 0)
        assert full["mend"].startswith(f"sudo -u root shmkv keys --store {name} --by-prefix ")
        assert closed.name not in {one["about"] for one in findings}, "that it is closed is no fault"
        assert f"{name} of user root: " in said_by_nobody(capfd, "doctor", "--foreign")[1]

        assert said_by_nobody(capfd, "doctor", "--store", name, "--foreign")[0] == 0, "its own comes first"
        assert said_by_nobody(capfd, "doctor", "--store", closed.name)[0] == 69
        assert said_by_nobody(capfd, "doctor", "--store", closed.name, "--foreign")[0] == 77
        closed.unlink()


def test_foreign_belongs_to_the_name_of_a_store(tmp_path: Path) -> None:
    from shmkv.cli.main import main

    assert main(["doctor", "--foreign", "--path", str(tmp_path)]) == 2
    assert main(["keys", "--foreign", "--path", str(tmp_path)]) == 2
    assert main(["keys", "--foreign", "--url", "http://127.0.0.1:9"]) == 2
    assert main(["serve", "--foreign", "--path", str(tmp_path)]) == 2


@needs_root
@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o606])
def test_its_mode_gives_others_access(name: str, made: Callable[..., Store], mode: int) -> None:
    with made(mode=mode) as store:
        store["k"] = 1

        def attach() -> Any:
            with pytest.raises((ForeignStoreError, StoreNotFoundError)):
                Store.attach(name)
            with Store.attach(name, foreign=True, readonly=True) as reader:
                assert reader["k"] == 1
            if mode & 0o002:
                with Store.attach(name, foreign=True) as writer:
                    writer["k"] += 1
                    writer.put_many({f"{i}": i for i in range(1000)})
            else:
                with pytest.raises(PermissionError):
                    Store.attach(name, foreign=True)

        as_user(NOBODY, attach)
        assert store["k"] == (2 if mode & 0o002 else 1)


@needs_root
def test_the_command_line_reads_what_may_be_read(made: Callable[..., Store], name: str) -> None:
    made(mode=0o644)["a"] = "here"

    def get() -> tuple[int, bytes]:
        with tempfile.TemporaryFile("w+") as output, contextlib.redirect_stdout(output):
            status = cli.main(["get", "a", "--store", name, "--foreign"])
            output.flush()
            output.buffer.seek(0)
            return status, output.buffer.read()

    assert as_user(NOBODY, get) == (0, b"here")
    assert as_user(NOBODY, lambda: cli.main(["set", "a", "1", "--store", name, "--foreign"])) == 77


@needs_root
def test_a_region_that_another_user_put_in_the_place(name: str, made: Callable[..., Store]) -> None:
    """Somebody else's region under this user's name: refused by its owner, whatever it holds."""
    made(mode=0o666).close()
    path = region_path(name)
    os.chown(path, NOBODY, NOBODY)
    try:
        for open_it in (Store.attach, Store):
            with pytest.raises(ForeignStoreError):
                open_it(name)
    finally:
        os.chown(path, 0, 0)


@needs_root
def test_a_link_in_the_place(name: str, made: Callable[..., Store], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(bytes(MIB))
    region_path(name).symlink_to(target)
    try:
        with pytest.raises((ShmkvError, OSError)):
            Store.attach(name)
        with pytest.raises((ShmkvError, OSError)):
            Store.create(name, size="2MiB")
        assert target.read_bytes() == bytes(MIB)
    finally:
        region_path(name).unlink()


# ---- Headers that do not fit ---------------------------------------------------------------------


@pytest.fixture
def region(name: str) -> Iterator[Path]:
    """The file of a closed store with 3,000 items, to be damaged; removed at the end."""
    with Store.create(name, size="4MiB") as store:
        store.update({f"key:{i}": bytes([i % 251]) * (i % 700) for i in range(3000)})
        store["large"] = b"l" * 200_000
        store["nested"] = {"a": [1, (2, {3})], "b": "text"}
        store["n"] = 5
        store.put("soon", 1, ttl=1000)
    path = region_path(name)
    yield path
    path.unlink()


def patch(path: Path, at: int, data: bytes, *, with_checksum: bool = True) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
        if with_checksum:
            file.seek(0)
            fixed = file.read(CHECKSUM)
            file.seek(CHECKSUM)
            file.write(struct.pack("<Q", xxhash.xxh3_64_intdigest(fixed)))


def refuses(name: str, error: type[Exception]) -> None:
    """Attach, open and create all refuse, the name is still listed and can be unlinked."""
    for readonly in (False, True):
        with pytest.raises(error) as refused:
            Store.attach(name, readonly=readonly, lock_timeout=0.2)
        assert name in str(refused.value)
    with pytest.raises(error):
        Store(name, lock_timeout=0.2)
    assert name in store_names()


def test_a_correct_header_is_accepted(name: str, region: Path) -> None:
    patch(region, 0, b"")
    with Store.attach(name) as store:
        assert store["n"] == 5


def test_another_boot(name: str, region: Path) -> None:
    patch(region, BOOT_ID, os.urandom(16))
    refuses(name, StaleStoreError)


def test_another_time_namespace(name: str, region: Path) -> None:
    patch(region, TIME_NAMESPACE, struct.pack("<Q", 12345))
    refuses(name, StaleStoreError)


@pytest.mark.parametrize("version", [0, 2, 99, 2**32 - 1])
def test_another_layout_version(name: str, region: Path, version: int) -> None:
    patch(region, VERSION, struct.pack("<I", version))
    refuses(name, LayoutVersionError)


def test_another_byte_order(name: str, region: Path) -> None:
    patch(region, BYTE_ORDER, struct.pack(">I", 0x01020304))
    refuses(name, LayoutVersionError)


def test_a_header_of_a_machine_of_another_byte_order(name: str, region: Path) -> None:
    fixed = region.read_bytes()[:16]
    patch(region, 0, fixed[7::-1] + fixed[11:7:-1] + fixed[:11:-1])
    refuses(name, LayoutVersionError)


def test_another_magic(name: str, region: Path) -> None:
    patch(region, MAGIC, b"notshmkv")
    refuses(name, CorruptStoreError)


def test_another_checksum(name: str, region: Path) -> None:
    patch(region, CHECKSUM, b"checksum", with_checksum=False)
    refuses(name, CorruptStoreError)


@pytest.mark.parametrize("at", range(16, 248, 8))
def test_any_damaged_word_of_the_header(name: str, region: Path, at: int) -> None:
    patch(region, at, b"damaged!", with_checksum=False)
    refuses(name, CorruptStoreError)


@pytest.mark.parametrize("size", [0, 1, MIB - 1, 5 * MIB, 2**40, 2**63, 2**64 - 1])
def test_a_size_that_is_not_the_regions(name: str, region: Path, size: int) -> None:
    patch(region, SIZE, struct.pack("<Q", size))
    refuses(name, CorruptStoreError)


@pytest.mark.parametrize("at", range(PROCS_OFFSET, TIME_NAMESPACE, 8))
@pytest.mark.parametrize("value", [0, 1, 8, 4 * MIB, 4 * MIB - 8, 2**40, 2**64 - 1, 2**64 - 65_536])
def test_offsets_that_do_not_fit(name: str, region: Path, at: int, value: int) -> None:
    if at == PAGES and 0 < value < 10:
        pytest.skip("fewer pages than fit are no danger")
    patch(region, at, struct.pack("<Q", value))
    refuses(name, CorruptStoreError)


@pytest.mark.parametrize("bits", [0, 1, 25, 26, 27, 63, 64, 255])
def test_bucket_counts_that_do_not_fit(name: str, region: Path, bits: int) -> None:
    patch(region, 25, bytes([bits]))
    refuses(name, CorruptStoreError)


@pytest.mark.parametrize("left", [1, 100, 255, 256, 4096, 100_000, 3 * MIB, 4 * MIB - 1])
def test_a_truncated_region(name: str, region: Path, left: int) -> None:
    os.truncate(region, left)
    refuses(name, CorruptStoreError)


def test_an_empty_file_is_a_store_that_was_never_made(name: str) -> None:
    """As a creator leaves it that was killed at once: nothing to attach to, but the next creator finishes."""
    region_path(name).touch(mode=0o600)
    with pytest.raises(ShmkvError):
        Store.attach(name, lock_timeout=0.2)
    with Store(name, size="2MiB") as store:
        store["k"] = 1


def test_a_creator_that_died_just_before_ready(name: str, region: Path) -> None:
    patch(region, STATE, struct.pack("<I", 0))
    with pytest.raises(StoreNotFoundError):
        Store.attach(name, lock_timeout=0.2)
    with Store(name) as store:
        assert store.check().ok


@pytest.mark.parametrize("kind", ["directory", "text", "zeros"])
def test_things_that_are_no_region(name: str, kind: str) -> None:
    path = region_path(name)
    if kind == "directory":
        path.mkdir(mode=0o700)
    else:
        path.write_bytes({"text": b"just some text\n" * 100_000, "zeros": bytes(2 * MIB)}[kind])
        path.chmod(0o600)
    try:
        with pytest.raises((ShmkvError, OSError)):
            Store.attach(name, lock_timeout=0.2)
        if kind != "zeros":
            with pytest.raises((ShmkvError, OSError)):
                Store(name, lock_timeout=0.2)
        assert name in store_names() or kind == "directory"
    finally:
        if kind == "directory":
            path.rmdir()
        elif path.exists():
            path.unlink()


# ---- Random bytes: no crash, no hang ----------------------------------------------------------------

USE_IT_ALL = """
import faulthandler, os, random, struct, sys, time
from pathlib import Path
import xxhash
import shmkv
from shmkv import Store

FINE = (shmkv.ShmkvError, KeyError, ValueError, TypeError, OverflowError, MemoryError, RecursionError)

def attempt(call):
    started = time.monotonic()
    try:
        return call()
    except FINE:
        return None
    finally:
        assert time.monotonic() - started < 20, "a call took 20 s"

def use(store, rng):
    keys = [f"key:{rng.randrange(3000)}" for _ in range(20)] + ["large", "nested", "n", "soon", "missing"]
    calls = [
        lambda: len(store), lambda: list(store), lambda: list(store.items()), lambda: store.range("key:1", "key:2"),
        lambda: store.stats(), lambda: store.check(), lambda: store.get_many(keys), lambda: list(store.scan("key:1")),
        lambda: store.processes(), lambda: shmkv.list_stores(),
        *[lambda key=key: store.get(key) for key in keys],
        *[lambda key=key: store.gets(key) for key in keys],
        *[lambda key=key: store.ttl(key) for key in keys],
        lambda: store.put("new", b"x" * 1000), lambda: store.put("key:1", b"y" * 100_000),
        lambda: store.put_many({key: 1 for key in keys}), lambda: store.delete_many(keys[:5]),
        lambda: store.incr("n"), lambda: store.touch("key:5", 5), lambda: store.pop("key:7"), lambda: store.popitem(),
        lambda: store.compact(), lambda: [store.put(f"{i}", b"z" * 200) for i in range(300)],
        lambda: store.clear(), lambda: store.put("after", 1),
    ]
    if rng.random() < 0.5:
        rng.shuffle(calls)
    for call in calls:
        attempt(call)

name, original, first, last, what = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]
image = Path(original).read_bytes()
path = Path(f"/dev/shm/shmkv.{os.geteuid()}.{name}")
for seed in range(first, last):
    print("seed", seed, flush=True)
    faulthandler.dump_traceback_later(40, exit=True)
    rng = random.Random(seed)
    data = bytearray(image)
    size = len(data)
    if what == "header":
        for _ in range(rng.choice([1, 3, 30])):
            at = rng.randrange(256)
            data[at] = rng.randrange(256)
        if rng.random() < 0.7:
            data[:8] = image[:8]
        if rng.random() < 0.9:
            data[248:256] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(data[:248])))
    elif what == "behind":          # everything but the fixed header
        data[256:] = rng.randbytes(size - 256)
    elif what == "areas":           # one of the fixed areas, or the rest of the header
        first_page = struct.unpack_from("<Q", image, 120)[0]
        start = rng.choice([256, 4096, *struct.unpack_from("<QQQ", image, 96)])
        length = rng.choice([64, 4096, first_page - start])
        data[start:start + length] = rng.randbytes(length)
        if rng.random() < 0.5:
            data[256:260] = image[256:260]
    else:                           # single words all over the used part
        used = min(size, 2_500_000)
        for _ in range(rng.choice([1, 10, 1000, 30000])):
            at = rng.randrange(256, used) & ~7
            old = struct.unpack_from("<Q", data, at)[0]
            flipped = old ^ 1 << rng.randrange(64)
            new = rng.choice([0, 1, 2**64 - 1, rng.getrandbits(64), flipped, old + 16, rng.getrandbits(40)])
            struct.pack_into("<Q", data, at, new % 2**64)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o600)
    for readonly in (True, False):
        store = attempt(lambda: Store.attach(name, readonly=readonly, lock_timeout=0.05))
        if store is not None:
            use(store, rng)
            attempt(store.close)
    if what == "words" and seed % 3 == 0:    # damaged while it is attached
        path.write_bytes(image)
        store = attempt(lambda: Store.attach(name, lock_timeout=0.05))
        if store is not None:
            with path.open("r+b") as file:
                for _ in range(20):
                    for _ in range(200):
                        file.seek(rng.randrange(256, 2_500_000) & ~7)
                        file.write(rng.randbytes(8))
                    file.flush()
                    use(store, rng)
            attempt(store.close)
print("fine")
"""


@pytest.mark.parametrize(
    ("what", "rounds"), [("header", 150), ("behind", 12), ("areas", 5), ("words", 4)]
)  # fuzzing does far more (test_fuzz.py)
def test_random_bytes(name: str, region: Path, tmp_path: Path, rng: random.Random, what: str, rounds: int) -> None:
    original = tmp_path / "region"
    original.write_bytes(region.read_bytes())
    first = rng.randrange(10**6)
    out = run_python(USE_IT_ALL, name, str(original), str(first), str(first + rounds), what, timeout=110)
    assert out.endswith("fine\n")
    region.touch()

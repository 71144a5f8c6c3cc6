"""`shmkv doctor`: each thing that may be wrong is found, named with the command that mends it, and mended by it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import MIB, Forked, region_path, start_python, wait_until
from shell import Ran, run
from test_outside import stop_in_a_call, stop_inside

from shmkv import LockTimeoutError, Store, list_stores, region
from shmkv.cli import doctor


def found(name: str) -> tuple[Ran, list[dict[str, str]]]:
    """What `shmkv doctor` says of one store, in both forms."""
    told = run("doctor", "--store", name, "--json")
    assert told.err == ""
    assert told.json["stores"] == 1
    findings = told.json["findings"]
    words = run("doctor", "--store", name)
    assert (words.err, words.status) == ("", told.status) == ("", 1 if findings else 0)
    text = without_sizes(words.out.decode())
    assert all(without_sizes(one["what"]) in text and without_sizes(one["mend"]) in text for one in findings)
    return told, findings


def without_sizes(text: str) -> str:
    """What is free on this machine may differ between two calls."""
    return re.sub(r"[\d,.]+( [KMG]iB|m\b)", "so much", text)


def mend(command: str, *statuses: int) -> None:
    """Do what a finding says; it ends with 0, or with one of `statuses`."""
    program, *words = shlex.split(command.partition("   ")[0])
    assert program == "shmkv"
    assert run(*words).status in (statuses or (0,))


def test_a_whole_store(store: Store) -> None:
    told, findings = found(store.name)
    assert (told.status, findings) == (0, [])
    assert run("doctor", "--store", store.name).out == b"1 store looked at: nothing is wrong\n"


def test_all_stores_without_a_name(store: Store, name: str) -> None:
    Store(name, size="1MiB").close()
    stale_as_of_another_boot(name)
    told = run("doctor", "--json", SHMKV_STORE=store.name)  # which is not only about that one
    assert told.json["stores"] >= 2
    about = {one["about"] for one in told.json["findings"]}
    assert name in about
    assert store.name not in about
    assert told.status == 1
    run("unlink", name)


def test_no_such_store_ends_with_69(name: str, tmp_path: Path) -> None:
    for where in (("--store", name), ("--path", str(tmp_path))):
        told = run("doctor", *where)
        assert (told.out, told.status) == (b"", 69)
    assert run("doctor", "--store", "no such/name").status == 2


def test_processes_that_ended_in_the_middle_of_a_call(store: Store) -> None:
    batch = {f"k{i}": i for i in range(500)}

    def write_for_ever() -> None:
        while True:
            with contextlib.suppress(LockTimeoutError):  # behind the one that is stopped first
                store.put_many(batch)

    writers = [Forked(write_for_ever) for _ in range(2)]
    for writer in writers:
        stop_in_a_call(writer, store)
    for writer in writers:
        writer.kill()  # both at once: the next write takes over what the first has left
    _, [finding] = found(store.name)
    assert finding["kind"] == "dead-processes"
    assert finding["what"].startswith("2 processes ended in the middle of a call")
    assert all(str(writer.pid) in finding["what"] for writer in writers)
    mend(finding["mend"])
    assert found(store.name)[1] == []


def test_workers_that_ended_between_two_calls_are_nothing_to_tell(store: Store) -> None:
    def attach_and_die() -> None:
        store["mine"] = 1
        store["mine"] = 2  # now a block is kept for the next write
        os.kill(os.getpid(), signal.SIGKILL)

    for child in [Forked(attach_and_die) for _ in range(2)]:
        child.wait()
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        pool.map(store.incr, ["n"] * 6, chunksize=1)
    assert found(store.name)[1] == []


def stale_as_of_another_boot(name: str) -> None:
    """Make a store look like one that was there before the machine was started."""
    with region_path(name).open("r+b") as file:
        fixed = bytearray(file.read(256))
        fixed[48:64] = bytes(16)
        checksum = region.xxhash.xxh3_64_intdigest(bytes(fixed[:248]))
        file.seek(0)
        file.write(bytes(fixed[:248]) + checksum.to_bytes(8, "little"))


def test_a_store_of_an_earlier_boot(name: str) -> None:
    Store(name, size="1MiB").close()
    stale_as_of_another_boot(name)
    _, [finding] = found(name)
    assert (finding["kind"], "before a reboot" in finding["what"]) == ("unusable", True)
    mend(finding["mend"])
    assert run("doctor", "--store", name).status == 69


def test_a_region_that_is_no_store(name: str) -> None:
    region_path(name).write_bytes(b"\xff" * 8192)
    _, [finding] = found(name)
    assert finding["kind"] == "unusable"
    mend(finding["mend"])
    assert not region_path(name).exists()


def killed_private_store() -> str:
    """The name of a private store whose process was killed; any other process's `Store()` may remove it."""
    process = start_python("from shmkv import Store; s = Store(size='1MiB'); print(s.name, flush=True); input()")
    assert process.stdout is not None
    name = process.stdout.readline().strip()
    assert found(name)[1] == []
    process.kill()
    process.wait()
    return name


def test_a_private_store_whose_process_was_killed() -> None:
    for _ in range(20):  # times that somebody else on this machine was faster
        name = killed_private_store()
        told = run("doctor", "--store", name, "--json")
        if told.status == 69:
            continue
        [finding] = told.json["findings"]
        assert (finding["kind"], "was killed" in finding["what"]) == ("unusable", True)
        mend(finding["mend"], 0, 69)
        assert run("doctor", "--store", name).status == 69
        return
    raise AssertionError("it was always gone before doctor looked")


def test_a_stopped_process_that_holds_a_lock(store: Store) -> None:
    batch = {f"k{i}": i for i in range(500)}

    def write_for_ever() -> None:
        while True:
            store.put_many(batch)

    writer = Forked(write_for_ever)
    stop_inside(writer, store)
    _, [finding] = found(store.name)
    assert finding["kind"] == "stopped-holder"
    assert f"process {writer.pid} " in finding["what"]
    assert finding["mend"].startswith(f"kill -CONT {writer.pid} ")
    writer.resume()
    writer.kill()


def test_a_stopped_process_that_holds_none_is_fine(store: Store) -> None:
    def attach_and_sleep() -> None:
        store["sleeps"] = True
        time.sleep(300)

    sleeper = Forked(attach_and_sleep)
    wait_until(lambda: "sleeps" in store)
    sleeper.stop()
    assert found(store.name)[1] == []
    sleeper.resume()


def test_memory_that_compact_gives_back(name: str) -> None:
    with Store.create(name, size="256MiB") as store:
        for begin in range(0, 60_000, 1_000):
            store.put_many({f"key:{i:06d}": b"v" * 1_000 for i in range(begin, begin + 1_000)})
        store.delete_many([f"key:{i:06d}" for i in range(60_000) if i % 20])
    _, [finding] = found(name)
    assert finding["kind"] == "reclaimable"
    mend(finding["mend"])
    assert found(name)[1] == []
    with Store.attach(name) as store:
        assert len(store) == 3_000
        assert store.stats().committed < 16 * MIB


def test_a_full_store_has_nothing_to_give_back(name: str) -> None:
    with Store.create(name, size="64MiB") as store:
        for size, count in ((10, 50_000), (3_000, 5_000), (100_000, 100)):
            store.update({f"{size}:{i}": b"v" * size for i in range(count)})
    assert found(name)[1] == []


def test_shared_memory_that_is_too_small(name: str) -> None:
    total = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    Store.create(name, size=total * 2).close()
    _, [finding] = found(name)
    assert finding["kind"] == "shm-too-small"
    assert "/dev/shm has " in finding["what"]
    assert "size=" in finding["mend"]


@pytest.mark.parametrize(
    ("container", "command"), [(True, "docker run --shm-size="), (False, "mount -o remount,size=")]
)
def test_how_to_make_shared_memory_larger(store: Store, container: bool, command: str) -> None:
    [info] = [info for info in list_stores() if info.name == store.name]
    memory = doctor.SharedMemory(total=64 * MIB, free=10 * MIB)
    [finding] = doctor._too_small(info, memory, container)
    need = 54 * MIB + store.size - info.committed
    assert finding.mend.startswith(f"{command}{-(-need // MIB)}m")
    assert list(doctor._too_small(info, doctor.SharedMemory(total=1 << 40, free=1 << 39), container)) == []


def test_a_durable_store_is_mended_by_its_directory(tmp_path: Path) -> None:
    folder = tmp_path / "shop"

    def open_and_die() -> None:
        store = Store.open(folder, size="16MiB")
        store["k"] = 1
        os.kill(os.getpid(), signal.SIGKILL)

    Forked(open_and_die).wait()
    told = run("doctor", "--path", str(folder), "--json")
    [finding] = told.json["findings"]
    assert (finding["kind"], finding["mend"], told.status) == ("dead-processes", f"shmkv compact --path {folder}", 1)
    [other] = run("doctor", "--store", finding["about"], "--json").json["findings"]
    assert other["mend"] == finding["mend"]  # the memory knows where it belongs
    mend(finding["mend"])
    assert run("doctor", "--path", str(folder)).status == 69  # nobody has it open any more


def test_nothing_is_changed(store: Store) -> None:
    store["k"] = 1
    before: Any = store.stats()
    assert found(store.name)[1] == []
    assert store.stats() == before

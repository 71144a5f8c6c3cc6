"""What messages advise: never what destroys the last copy of something, and first what saves it."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import durable_folder, has_memory, killed
from shell import run

from shmkv import DataStore, KeyValueStore, Store, list_stores, region
from shmkv.aio import AsyncStore
from shmkv.errors import CorruptStoreError, StoreExistsError, StoreFullError, ValueTooLargeError

ITEMS = {f"k{i}": i for i in range(50)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


def _leave(folder: Path) -> str:
    """A durable store whose processes were killed; the name of its memory."""
    kept = []

    def fill() -> None:
        kept.append(Store.open(folder, size="16MiB"))
        kept[0].update(ITEMS)

    killed(fill)
    facts = folder.stat()
    return region.durable_name(facts.st_dev, facts.st_ino)


def _saved_by(command: str) -> dict[str, Any]:
    """What the first `shmkv ...` of an advice writes, up to its redirection."""
    words = re.search(r"shmkv (export [^>]+) > FILE", command)
    assert words, command
    told = run(*words[1].split())
    assert told.status == 0, told.err
    return {item["key"]: item["value"] for item in map(json.loads, told.out.splitlines())}


def test_memory_whose_directory_is_gone_is_saved_first(folder: Path) -> None:
    name = _leave(folder)
    folder.rename(
        folder.parent / "elsewhere"
    )  # not removed, or another test's directory may get its inode, and its name
    try:
        [finding] = [one for one in run("doctor", "--json").json["findings"] if one["about"] == name]
        assert finding["kind"] == "directory-gone"
        assert _saved_by(finding["mend"]) == ITEMS
        assert f"shmkv export --store {name}" in run("ls").out.decode()
        assert run("unlink", name).status == 0
    finally:
        if name in {info.name for info in list_stores()}:
            region.unlink(region.object_name(name))


@pytest.mark.parametrize("damage", ["settings", "no settings", "log"])
def test_memory_beside_damaged_files_is_saved(folder: Path, damage: str) -> None:
    name = _leave(folder)
    if damage == "settings":
        (folder / "store.json").write_text("[" * 5_000)
    elif damage == "no settings":
        (folder / "store.json").unlink()
    else:
        for log in folder.glob("*.log"):
            log.unlink()
    with pytest.raises(CorruptStoreError) as told:
        Store.open(folder)
    assert len(str(told.value)) < 800
    assert _saved_by(str(told.value)) == ITEMS
    [finding] = [one for one in run("doctor", "--json").json["findings"] if one["about"] == name]
    assert _saved_by(finding["why"]) == ITEMS
    assert has_memory(folder), "nothing was changed"


def test_without_memory_nothing_is_promised(folder: Path) -> None:
    with Store.open(folder, size="16MiB") as store:
        store["a"] = 1
    (folder / "store.json").write_text("{")
    with pytest.raises(CorruptStoreError, match="restore it from a copy") as told:
        Store.open(folder)
    assert "export" not in str(told.value)


@pytest.mark.parametrize("make", [Store.open, DataStore])
@pytest.mark.parametrize("content", [b"precious", b"4711\nprecious", b"x" * 10_000])
def test_a_file_of_somebody_else_is_not_written_over(folder: Path, make: Callable[[Path], Any], content: bytes) -> None:
    folder.mkdir()
    (folder / "lock").write_bytes(content)
    with pytest.raises(StoreExistsError, match="that is no store's, nothing was changed"):
        make(folder)
    assert [(each.name, each.read_bytes()) for each in folder.iterdir()] == [("lock", content)]


@pytest.mark.parametrize("make", [Store.open, DataStore])
@pytest.mark.parametrize("content", [b"", b"4711\n", bytes(52), None])
def test_what_a_store_left_of_its_lock(folder: Path, make: Callable[[Path], Any], content: bytes | None) -> None:
    """Killed before there was a log, or a power cut."""
    make(folder).close()
    for each in folder.iterdir():
        if each.name != "lock":
            each.unlink()
        elif content is not None:
            each.write_bytes(content)
    make(folder).close()


def test_doctor_names_who_uses_a_store_without_a_name(tmp_path: Path) -> None:
    name = f"advice-{os.getpid()}"
    with Store(name, size="1MiB") as store:
        assert not [one for one in run("doctor", "--json").json["findings"] if one["about"] == name]
        store.unlink()
        [finding] = [one for one in run("doctor", "--json").json["findings"] if one["about"] == name]
        assert finding["kind"] == "removed-in-use"
        assert str(os.getpid()) in finding["mend"]
    assert not [one for one in run("doctor", "--json").json["findings"] if one["about"] == name]


def test_doctor_of_no_directory(tmp_path: Path) -> None:
    told = run("doctor", "--path", str(tmp_path / "nowhere"))
    assert (told.status, told.out) == (69, b"")
    assert "there is no directory" in told.err


def test_a_full_store_names_what_makes_it_larger() -> None:
    with Store(size="1MiB") as store:
        with pytest.raises(StoreFullError, match=r"Store\.resize"):
            store.update((f"k{i}", bytes(1000)) for i in range(10_000))
        with pytest.raises(ValueTooLargeError, match=r"Store\.resize"):
            store["long"] = bytes(300_000)


@pytest.mark.parametrize("wrong", ["name", None, KeyValueStore, {}])
def test_what_is_no_store(wrong: Any) -> None:
    async def make() -> None:
        AsyncStore(wrong)

    with pytest.raises(TypeError, match="must be a Store, not"):
        asyncio.run(make())
    app = pytest.importorskip("shmkv.server.app", reason="the extra `server` is not installed")
    with pytest.raises(TypeError, match="takes a Store or a DataStore, not"):
        app.create_app(wrong)


def test_settings_that_would_mean_something_else() -> None:
    from shmkv.server.settings import Settings

    with pytest.raises(TypeError, match=r"say hosts=\('shop.example',\)"):
        Settings(hosts="shop.example")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"token is bytes, not str"):
        Settings(token="a secret of many letters")  # type: ignore[arg-type]
    assert Settings(hosts=("shop.example",), token=b"a secret").hosts == ("shop.example",)

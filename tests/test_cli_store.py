"""Commands about a whole store, each through a real process: numbers, export and import, check, ls, unlink, compact,
top; and what holds of all commands: closed pipes, interrupts, tokens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import MIB, PATIENCE, Forked, python_environment, region_path
from prometheus_client.parser import text_string_to_metric_families
from shell import Server, Shell, environment, run, start_cli
from test_outside import stop_inside

from shmkv import Store

pytestmark = pytest.mark.slow

EVERY_KIND: dict[str | bytes, Any] = {
    "bytes": bytes(range(256)),
    b"bytes key \0\xff": b"",
    "str": "ünïcödé \0 \n \U0001f600",
    "": "the empty key",
    "int": -7,
    "large": 1 << 4000,
    "huge": 1 << 5000,
    "float": 0.1,
    "inf": float("-inf"),
    "bool": True,
    "none": None,
    "list": [1, [2.5, {"a": None}]],
    "tuple": (1, (2, [3])),
    "set": {b"a set of one has one order"},
    "frozen": frozenset({1}),
    "dict": {"a": {"b": [1]}},
    "odd dict": {1: 2, (1,): b"x"},
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
    "date": date(2026, 1, 2),
    "span": timedelta(days=1, microseconds=1),
}


# ---- stats, metrics, check ----------------------------------------------------------------------------


def test_stats(shell: Shell) -> None:
    shell.store.update(a=b"123", b="45")
    told = shell("stats", "--json")
    assert (told.err, told.status) == ("", 0)
    stats = shell.store.stats()
    for name in ("items", "value_bytes", "sets", "deletes", "size", "committed", "used", "buckets", "table_bytes"):
        assert told.json[name] == getattr(stats, name), name
    assert told.json["attached"] == len(told.json["processes"]) == stats.processes
    assert told.json["uuid"] == str(shell.store.uuid)
    assert os.getpid() in [process["pid"] for process in told.json["processes"]]
    words = shell("stats")
    assert (words.err, words.status) == ("", 0)
    assert re.search(r"^items +2 with 5 B of values$", words.out.decode(), re.MULTILINE)
    assert f" {os.getpid()} (" in words.out.decode()


def test_metrics_have_the_same_names_here_and_there(shell: Shell) -> None:
    from shmkv.exposition import store_families

    shell.store["a"] = b"1"
    told = shell("metrics")
    assert (told.err, told.status) == ("", 0)
    found = {family.name: family for family in text_string_to_metric_families(told.out.decode())}
    for family in store_families(shell.store.stats()):
        samples = found[family.name.removesuffix("_total")].samples
        own = {"store": shell.store.name}
        assert [sample.labels for sample in samples] == [{**own, **sample.labels} for sample in family.samples]
    as_json = shell("metrics", "--json").json
    assert {"name": "shmkv_items", "labels": {"store": shell.store.name}, "value": 1.0} in as_json
    assert all(one["labels"]["store"] == shell.store.name for one in as_json), "of requests too"
    assert {sample.name for family in found.values() for sample in family.samples} <= {one["name"] for one in as_json}


def test_metrics_of_two_stores_make_one_page(name: str, tmp_path: Path) -> None:
    """As a directory of node_exporter's textfile collector holds them."""
    with Store.create(name, size="4MiB") as store, Store.open(tmp_path / 'a "durable" one', size="4MiB") as durable:
        store["a"], durable["a"], durable["b"] = 1, 2, 3
        pages = [run("metrics", "--store", name).out, run("metrics", "--path", str(durable.path)).out]
        samples: dict[tuple[str, str], float] = {}
        for page in pages:
            for family in text_string_to_metric_families(page.decode()):
                for sample in family.samples:
                    place = (sample.name, str(sorted(sample.labels.items())))
                    assert place not in samples
                    samples[place] = sample.value
        items = {labels: value for (name, labels), value in samples.items() if name == "shmkv_items"}
        assert items == {str([("store", name)]): 1, str([("store", str(durable.path))]): 2}
        store.unlink()


def test_check(shell: Shell) -> None:
    shell.store.update({f"k{i}": i for i in range(100)})
    told = shell("check")
    assert (told.err, told.status) == ("", 0)
    assert b"all is well" in told.out
    told = shell("check", "--json")
    assert (told.json["ok"], told.json["items"], told.json["problems"], told.status) == (True, 100, [], 0)


def test_a_deep_check_is_for_stores_of_this_machine(shell: Shell) -> None:
    shell.store["a"] = 1
    told = shell("check", "--deep", "--json")
    if shell.kind == "local":
        assert (told.json["ok"], told.json["records"], told.status) == (True, 1, 0)
    else:
        assert (told.out, told.status) == (b"", 2)
        assert "say --store" in told.err


# ---- export and import ----------------------------------------------------------------------------------


def test_export_and_import_reproduce_a_store(shell: Shell, name: str) -> None:
    store = shell.store
    store.update(EVERY_KIND)
    store.put("typed", b"<p>", ttl=200, content_type="text/html")
    store.put("short", (1, 2), ttl=100)
    exported = shell("export")
    assert (exported.err, exported.status) == ("", 0)
    assert shell("export", "--json").lines != []
    told = run("import", "-", "--store", name, "--size", "16MiB", "--json", stdin=exported.out)
    assert (told.err, told.status, told.json["pairs"]) == ("", 0, len(store))
    with Store.attach(name) as copy:
        assert dict(copy) == dict(store)
        assert {key: type(value) for key, value in copy.items()} == {key: type(value) for key, value in store.items()}
        assert repr(copy["datetime"]) == repr(store["datetime"])
        assert copy.content_type("typed") == "text/html"
        assert 190 < (copy.ttl("typed") or 0) <= 200
        assert 90 < (copy.ttl("short") or 0) <= 100
        assert copy.ttl("str") is None
    again = run("export", "--store", name)
    without_ttl = [re.sub(rb',"ttl":[0-9.]+', b"", export).splitlines() for export in (exported.out, again.out)]
    assert sorted(without_ttl[0]) == sorted(without_ttl[1])
    store.clear()
    told = shell("import", "-", "--json", stdin=again.out)
    assert (told.err, told.status, told.json["pairs"]) == ("", 0, len(EVERY_KIND) + 2)
    with Store.attach(name) as copy:
        assert dict(store) == dict(copy)
        assert 80 < (store.ttl("short") or 0) <= 100


def test_export_and_import_carry_every_value_byte_for_byte(shell: Shell, name: str) -> None:
    store = shell.store
    with (
        Store.attach(store.name, codec="pickle") as pickling,
        Store.attach(store.name, codec="json") as of_json,
        Store.attach(store.name, codec=Reversing()) as by_object,
    ):
        pickling.put("pickle", {1: 4j}, ttl=300)
        of_json["json"] = {"a": [1.0, "\u00e9"]}
        by_object[b"object"] = [1, 2]
    store.update(EVERY_KIND)
    store.put("typed", b"x", content_type="a/b")
    exported = shell("export")
    assert (exported.err, exported.status, b'"python"' in exported.out) == ("", 0, False)
    told = run("import", "-", "--store", name, "--size", "16MiB", "--json", stdin=exported.out)
    assert (told.err, told.status, told.json["pairs"]) == ("", 0, len(store))
    with Store.attach(name, codec="pickle") as copy:
        assert copy["pickle"] == {1: 4j}
        assert 250 < (copy.ttl("pickle") or 0) <= 300
        for key in store:
            kept, carried = store._fetch(key), copy._fetch(key)
            assert kept is not None
            assert carried is not None
            assert carried[:3] == kept[:3], key


class Reversing:
    """A codec of one's own."""

    def encode(self, value: Any) -> bytes:
        return repr(value).encode()[::-1]

    def decode(self, data: bytes) -> Any:
        return data[::-1].decode()


def test_a_server_takes_no_code_unless_it_was_told_to(name: str, tmp_path: Path) -> None:
    line = b'{"key":"p","codec":"pickle","stored":"gARLBy4="}\n{"key":"j","codec":"json","stored":"WzFd"}\n'
    for options, pairs in (((), 1), (("--allow-pickle",), 2)):
        (tmp_path / str(pairs)).mkdir()
        with Store.create(name, size="4MiB", codec="pickle") as store:
            server = Server(store, tmp_path / str(pairs), *options)
            told = run("import", "-", "--url", server.url, "--json", "--on-error", "skip", stdin=line)
            server.stop()
            store.unlink()
            assert (told.json["pairs"], len(store)) == (pairs, pairs)
            assert ("--allow-pickle" in told.err) == (pairs == 1)
            assert store.get("p") == (None if pairs == 1 else 7)


OLD_EXPORT = b"""\
{"key":"int","value":7,"ttl":500.5}
{"key_base64":"aw==","base64":"AP8=","content_type":"a/b"}
{"key":"tuple","safe":"CgIDAQAAAAAAAAADAgAAAAAAAAA="}
{"key":"json codec","value":{"a":[1.5,null]}}
"""


def test_exports_of_earlier_releases_are_imported(shell: Shell) -> None:
    told = shell("import", "-", "--json", stdin=OLD_EXPORT)
    assert (told.err, told.status, told.json["pairs"]) == ("", 0, 4)
    assert dict(shell.store) == {"int": 7, b"k": b"\0\xff", "tuple": (1, 2), "json codec": {"a": [1.5, None]}}
    assert shell.store.content_type(b"k") == "a/b"
    assert 490 < (shell.store.ttl("int") or 0) <= 500.5


@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("x.tsv", rb"a" + b"\t" + rb"1\t\n\\" + b"\n\xc3\xa9\tb\r\n\n"),
        ("x.csv", 'a,"1\t\n\\"\né,b\n'.encode()),
        ("x.jsonl", '{"key": "a", "value": "1\\t\\n\\\\"}\n["é", "b"]\n'.encode()),
    ],
)
def test_import_of_each_format(shell: Shell, file: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(data)
    told = shell("import", str(tmp_path / file), "--ttl", "100", "--no-progress")
    assert (told.err, told.status) == ("", 0)
    assert told.out.startswith(b"2 pairs from ")
    assert dict(shell.store) == {"a": "1\t\n\\", "é": "b"}
    assert 90 < (shell.store.ttl("a") or 0) <= 100


MALFORMED_TSV = [b"no tab", b"a\tb\tc", b"\xff\tb", b"a\t\xff", rb"a\x" + b"\tb", b"a\tb\\", b"k" * 65_536 + b"\tb"]


@pytest.mark.parametrize("line", MALFORMED_TSV, ids=lambda line: repr(line[:12]))
def test_malformed_lines_are_told_alike(shell: Shell, line: bytes, name: str) -> None:
    """The engine's loader and the one for servers are two: they say the same of the same line."""
    data = b"good\t1\n\n" + line + b"\nbehind\t2\n"
    told = shell("import", "-", "--format", "tsv", "--json", "--no-progress", stdin=data)
    here = run("import", "-", "--format", "tsv", "--json", "--no-progress", "--store", name, stdin=data)
    assert (told.status, told.err) == (here.status, here.err) == (1, here.err)
    assert told.json["malformed"] == here.json["malformed"]
    assert told.json["stopped_at"] == 3
    assert dict(shell.store) == {"good": "1"}


def test_import_of_many_with_threads(shell: Shell) -> None:
    lines = b"".join(b"user:%06d\t%d\n" % (i, i) for i in range(20_000))
    told = shell("import", "-", "--format", "tsv", "--threads", "3", "--json", "--no-progress", stdin=lines)
    assert (told.err, told.status, told.json["pairs"], told.json["lines"]) == ("", 0, 20_000, 20_000)
    assert len(shell.store) == 20_000
    assert shell.store["user:012345"] == "12345"


def test_a_refused_item_is_a_malformed_line(shell: Shell) -> None:
    lines = [json.dumps(["a", 1]), json.dumps(["k" * 65_536, 1]), json.dumps(["b", 2])]
    data = "\n".join(lines).encode()
    told = shell("import", "-", "--on-error", "skip", "--json", "--no-progress", stdin=data)
    assert ([bad["line"] for bad in told.json["malformed"]], told.json["pairs"], told.status) == ([2], 2, 0)
    assert dict(shell.store) == {"a": 1, "b": 2}


def test_a_size_is_for_stores_that_are_made_here(server: Server) -> None:
    told = run("import", "-", "--url", server.url, "--size", "1GiB", stdin=b"a\tb\n")
    assert (told.out, told.status) == (b"", 2)
    assert "--size" in told.err


# ---- top --------------------------------------------------------------------------------------------------


def test_top_in_lines(shell: Shell) -> None:
    shell.store["a"] = 1
    told = shell("top", "--count", "2", "--interval", "0.1")
    assert (told.err, told.status, len(told.lines)) == ("", 0, 2)
    assert all(re.match(r"1 items  [\d,]+ gets/s \([\d.]+ % hits\)  \d+ sets/s  ", line) for line in told.lines)


def test_top_as_json_sees_what_happens(shell: Shell) -> None:
    shell.store["a"] = 1
    process = start_cli("top", *shell.where, "--json", "--interval", "0.2", "--count", "8")
    for _ in range(100):
        shell.store.get("a"), shell.store.get("b"), shell.store.put("a", 2)
        time.sleep(0.02)
    out, err = process.communicate(timeout=60 * PATIENCE)
    assert (err, process.returncode) == (b"", 0)
    views = [json.loads(line) for line in out.splitlines()]
    assert len(views) == 8
    assert max(view["gets_per_s"] for view in views) > 10
    assert max(view["sets_per_s"] for view in views) > 5
    assert any(0.4 < view["hit_rate"] < 0.6 for view in views)
    assert views[-1]["stats"]["items"] == 1


def test_only_the_living_are_attached(shell: Shell) -> None:
    def attach_and_die() -> None:
        shell.store["mine"] = 1
        os.kill(os.getpid(), signal.SIGKILL)

    dead = Forked(attach_and_die)
    dead.wait()
    living = len(shell.store.processes())
    told = shell("top", "--count", "1", "--interval", "0.05")
    assert (told.err, told.status) == ("", 0)
    assert told.out.endswith(f" {living} processes\n".encode())
    told = shell("stats", "--json").json
    assert told["attached"] == len(told["processes"]) == living
    assert dead.pid not in {process["pid"] for process in told["processes"]}
    if shell.kind == "local":
        lines = map(json.loads, run("ls", "--json").out.splitlines())
        [listed] = [each for each in lines if each["name"] == shell.store.name]
        assert listed["processes"] == living


def test_the_screen_of_top(store: Store) -> None:
    from rich.console import Console

    from shmkv.cli.render import rates
    from shmkv.cli.screen import frame

    stats = run("stats", "--store", store.name, "--json").json
    stats["processes"].append({"pid": 999_999, "name": None, "status": "stopped"})
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(frame(store.name, {**rates(stats, stats, 1.0), "stats": stats}))
    told = console.export_text()
    assert store.name in told
    assert re.search(rf"{os.getpid()} +{re.escape(psutil.Process().name())} +\w+", told)
    assert re.search(r"999999 +\? +stopped", told)


def test_top_on_a_terminal_draws_until_it_is_interrupted(store: Store) -> None:
    import pty

    controller, terminal = pty.openpty()
    process = start_cli("top", "--store", store.name, "--interval", "0.1", stdout=terminal)
    os.close(terminal)
    shown = b""
    while b"Ctrl-C ends" not in shown:
        shown += os.read(controller, 4096)
    assert store.name.encode() in shown
    process.send_signal(signal.SIGINT)
    assert process.wait(20 * PATIENCE) == 130
    assert b"Traceback" not in process.communicate()[1]
    os.close(controller)


# ---- ls, unlink, compact: stores of this machine ------------------------------------------------------------


def test_ls(make_store: Callable[..., Store]) -> None:
    small, cache = make_store(size="1MiB"), make_store(size="2MiB", on_full="evict")
    told = run("ls")
    assert (told.err, told.status) == ("", 0)
    assert re.search(rf"^{re.escape(small.name)} +1\.0 MiB +[\d.]+ KiB +1 +error ", told.out.decode(), re.MULTILINE)
    facts = {one["name"]: one for one in map(json.loads, run("ls", "--json").lines)}
    assert (facts[cache.name]["size"], facts[cache.name]["on_full"]) == (2 * MIB, "evict")
    assert facts[small.name]["uuid"] == str(small.uuid)
    names = run("ls", "--names").lines
    assert {small.name, cache.name} <= set(names)
    assert names == sorted(names)


def test_unlink(make_store: Callable[..., Store], name: str) -> None:
    one, other = make_store(size="1MiB"), make_store(size="1MiB")
    told = run("unlink", one.name, name, other.name, "--json")
    assert (told.json, told.status) == ({"unlinked": [one.name, other.name]}, 69)
    assert told.err == f"shmkv unlink: there is no store {name!r}\n"
    Store(name, size="1MiB").close()
    assert run("unlink", name) == (b"", "", 0)
    assert run("unlink", "no such/name").status == 2
    assert run("unlink", SHMKV_STORE=name).status == 2  # never from the environment


def test_compact(store: Store) -> None:
    store.put("short", 1, ttl=0.001)
    time.sleep(0.01)
    told = run("compact", "--store", store.name, "--json")
    assert (told.err, told.status, told.json["leaks"]) == ("", 0, 0)
    assert store.stats().expired == 1
    told = run("compact", "--store", store.name)
    assert (told.err, told.status) == ("", 0)
    assert told.out.startswith(b"0 expired items dropped, ")
    assert run("compact", "--store", f"{store.name}-not").status == 69


def test_a_durable_store_by_its_directory(tmp_path: Path) -> None:
    where = ("--path", str(tmp_path / "shop"))
    assert run("set", *where, "a", "1", "b", "2", "--ttl", "100") == (b"", "", 0)
    assert run("get", *where, "a", "b") == (b"1\n2\n", "", 0)
    assert run("stats", *where, "--json").json["path"] == str(tmp_path / "shop")
    assert run("check", *where).status == 0
    assert len(run("export", *where).lines) == 2
    assert run("compact", *where).status == 0
    told = run("check", *where, "--deep")
    assert (told.out, told.status) == (b"", 2)
    (tmp_path / "file").write_bytes(b"")
    assert run("get", "--path", str(tmp_path / "file"), "a").status == 69


# ---- Errors of the store ------------------------------------------------------------------------------------


def test_a_region_that_is_no_store_ends_with_69(name: str) -> None:
    region_path(name).write_bytes(b"\xff" * 8192)
    try:
        told = run("get", "k", "--store", name)
        assert (told.out, told.status) == (b"", 69)
        assert "no store of shmkv" in told.err
    finally:
        region_path(name).unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_region_that_may_not_be_read_ends_with_77(store: Store) -> None:
    region_path(store).chmod(0)
    assert run("get", "k", "--store", store.name).status == 77


def test_a_stopped_writer_ends_with_75(shell: Shell) -> None:
    """Whoever needs a lock that a stopped process holds is told so in time, here and through the server."""
    batch = {f"k{i}": i for i in range(200)}
    shell.store.update(batch)

    def write_for_ever() -> None:
        while True:
            shell.store.put_many(batch)

    writer = Forked(write_for_ever)
    stop_inside(writer, shell.store)
    told = shell("set", *(word for key in batch for word in (key, "new")))
    assert (told.out, told.status) == (b"", 75)
    assert str(writer.pid) in told.err
    writer.resume()
    writer.kill()


def test_a_full_store_ends_with_73(name: str) -> None:
    with Store.create(name, size="1MiB") as store:
        told = run(
            "import",
            "-",
            "--store",
            name,
            "--format",
            "tsv",
            stdin=b"".join(b"k%d\t%090d\n" % (i, i) for i in range(9_000)),
        )
        assert told.status == 73
        assert len(store) > 1_000


# ---- Tokens -------------------------------------------------------------------------------------------------


def test_a_token(store: Store, tmp_path: Path) -> None:
    good, bad, empty = (tmp_path / name for name in ("good", "bad", "empty"))
    good.write_text("a-token-of-sixteen-and-more\n")
    bad.write_text("another-token-than-the-other-one\n")
    empty.write_text("\n")
    server = Server(store, tmp_path, "--token-file", str(good))
    try:
        assert run("set", "k", "v", "--url", server.url, "--token-file", str(good)) == (b"", "", 0)
        assert run("get", "k", SHMKV_URL=server.url, SHMKV_TOKEN_FILE=str(good)) == (b"v", "", 0)
        for words in ((), ("--token-file", str(bad))):
            for command in (("get", "k"), ("ttl", "k"), ("keys",), ("export",), ("set", "k", "v", "--if-absent")):
                told = run(*command, "--url", server.url, *words)
                assert (told.out, told.status) == (b"", 77), command
        for file in (str(empty), str(tmp_path / "missing")):
            told = run("get", "k", "--url", server.url, "--token-file", file)
            assert (told.out, told.status) == (b"", 2)
            assert "token file" in told.err
    finally:
        server.stop()


# ---- Closed pipes, interrupts, full disks ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["keys"], ["export"], ["range"], ["get", "large"], ["metrics"], ["stats"]], ids=str
)
def test_an_output_that_nobody_reads_is_no_error(shell: Shell, command: list[str]) -> None:
    shell.store.update({f"key:{i:06d}": "v" * 50 for i in range(5_000)})
    shell.store["large"] = b"v" * (2 * MIB)
    process = start_cli(*command, *shell.where)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(60 * PATIENCE), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_an_output_that_was_closed_before(shell: Shell) -> None:
    shell.store["k"] = b"v"
    reader, writer = os.pipe()
    os.close(reader)
    process = start_cli("get", "k", *shell.where, stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=60 * PATIENCE)[1] == b""
    assert process.returncode == 0


@pytest.mark.parametrize("size", [1, 200_000])  # that fits a buffer, and that does not
def test_a_full_disk_is_an_error(shell: Shell, size: int) -> None:
    shell.store["k"] = b"v" * size
    with open("/dev/full", "wb") as full:
        process = start_cli("get", "k", *shell.where, stdout=full)
    err = process.communicate(timeout=60 * PATIENCE)[1].decode()
    assert (err, process.returncode) == ("shmkv get: [Errno 28] No space left on device\n", 70)


def test_an_interrupt_ends_with_130(shell: Shell) -> None:
    process = start_cli("top", *shell.where, "--json", "--interval", "0.1")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'{"seconds"')
    process.send_signal(signal.SIGINT)
    assert (process.wait(20 * PATIENCE), process.communicate()[1]) == (130, b"")


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_the_locale_changes_nothing(shell: Shell, locale: str) -> None:
    shell.store["ключ"] = "значение"
    options = {"LC_ALL": locale, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert shell("keys", **options).out == "ключ\n".encode()
    assert shell("get", "ключ".encode(), PYTHONUTF8="1").out == "значение".encode()


def test_get_on_a_terminal_ends_the_line(store: Store) -> None:
    import pty

    store["k"] = b"v"
    controller, terminal = pty.openpty()
    subprocess.run(
        [sys.executable, "-m", "shmkv", "get", "k", "--store", store.name],
        stdout=terminal,
        env=environment(),
        check=True,
    )
    os.close(terminal)
    assert os.read(controller, 100) == b"v\r\n"
    os.close(controller)


# ---- Imports ----------------------------------------------------------------------------------------------


def test_get_imports_nothing_that_it_does_not_need(store: Store) -> None:
    store["k"] = b"v"
    code = f"""
import sys
from shmkv.cli.main import main
main(["get", "k", "--store", {store.name!r}])
heavy = "dataclasses inspect shutil random fractions rich psutil msgspec multiprocessing http pathlib tempfile".split()
print([name for name in heavy if name in sys.modules])
"""
    # -S: the site-packages of an editable install import some of these by themselves.
    environment_ = python_environment()
    path = os.pathsep.join([environment_["PYTHONPATH"], *(entry for entry in sys.path if "packages" in entry)])
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env={**environment_, "PYTHONPATH": path}
    )
    assert done.stdout == "v[]\n", done.stderr

"""The command line as a whole: start-up, help, exit statuses, `shmkv check`."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import pytest
from helpers import PATIENCE, python_environment, run_python

from shmkv import Store, errors
from shmkv.cli import main as cli
from shmkv.cli import render
from shmkv.reports import Problem

COMMANDS = sorted(cli.COMMANDS)


def run_cli(*words: str, stdin: bytes = b"", timeout: float = 60.0) -> tuple[str, str, int]:
    """`python -m shmkv ...` in a process of its own: (standard output, standard error, exit status)."""
    done = subprocess.run(
        [sys.executable, "-m", "shmkv", *words],
        input=stdin,
        capture_output=True,
        env=python_environment(),
        cwd=tempfile.gettempdir(),
        timeout=timeout * PATIENCE,
    )
    return done.stdout.decode(), done.stderr.decode(), done.returncode


# ---- Start-up and help -----------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^    {name}\s", told, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--json" in told or command == "serve"  # which prints nothing
    assert "examples:\n  " in told
    assert f"shmkv {command} " in told.partition("examples:")[2] + " "


def test_the_installed_command_is_this_one() -> None:
    command = Path(sysconfig.get_path("scripts")) / "shmkv"
    if not command.exists():
        pytest.skip("shmkv is not installed in this environment")
    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    assert told == run_cli("--version")[0]
    assert told.startswith("shmkv ")


def test_help_loads_neither_the_engine_nor_what_draws() -> None:
    heavy = ("shmkv._core", "shmkv.store", "rich", "psutil", "msgspec", "multiprocessing", "asyncio")
    code = f"""
import sys
from shmkv.cli.main import build_parser
build_parser(None).format_help()
print([name for name in {heavy} if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize(
    "module", ["cli.connection", "cli.main", "cli.render", "cli.rows", "cli.suggest", "cli.text", "outside"]
)
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(import_module(f"shmkv.{module}")).failed == 0


# ---- Exit statuses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.StoreNotFoundError, 69),
        (errors.StaleStoreError, 69),
        (errors.StoreExistsError, 73),
        (errors.StoreFullError, 73),
        (errors.LockTimeoutError, 75),
        (errors.ForeignStoreError, 77),
        (errors.ReadOnlyStoreError, 77),
        (PermissionError, 77),
        (errors.CodecError, 70),
        (KeyError, None),
        (ValueError, None),
    ],
)
def test_errors_have_statuses(error: type[Exception], status: int | None) -> None:
    assert cli.status_of(error("no")) == status


def test_every_error_of_ours_has_a_status() -> None:
    assert all(cli.status_of(getattr(errors, name)("no")) is not None for name in errors.__all__)


@pytest.mark.parametrize("words", [["dance"], ["import"], ["check", "--store"], ["import", "f", "--threads", "0"]])
def test_usage_errors_end_with_2(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHMKV_STORE", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2


def test_without_a_command_it_helps() -> None:
    alone, asked = run_cli(), run_cli("--help")
    assert alone == asked
    assert alone[1:] == ("", 0)
    assert "print values" in alone[0]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["gte", "k"], "get"),
        (["exprot"], "export"),
        (["list"], "ls"),
        (["xyzzy"], None),
        (["get", "k", "--jsno"], "--json"),
        (["keys", "--prefx", "a"], "--prefix"),
        (["keys", "--prefx=a"], "--prefix"),
        (["set", "k", "v", "--tll", "5"], "--ttl"),
        (["serve", "--prot", "8003"], "--port"),
        (["set", "k", "v", "--type", "jsn"], "json"),
        (["completion", "bsh"], "bash"),
        (["keys", "--xyzzy"], None),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_a_word_that_nobody_knows_names_the_one_that_was_meant(words: list[str], meant: str | None) -> None:
    out, err, status = run_cli(*words)
    assert (out, status) == ("", 2)
    assert (f"did you mean {meant}?" in err) if meant else ("did you mean" not in err)


def test_output_that_nobody_reads_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "shmkv", "check", "--store", "nowhere.at.all", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=python_environment(), text=True)
    os.close(writer)
    assert "Traceback" not in done.stderr


# ---- check -----------------------------------------------------------------------------------


def test_check_of_a_whole_store(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.update({f"k{i}": i for i in range(100)})
    assert cli.main(["check", "--store", store.name]) == 0
    told = capsys.readouterr().out
    assert "all is well" in told
    assert "100 items" in told


def test_check_as_json(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store["a"] = 1
    assert cli.main(["check", "--store", store.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["items"], told["problems"], told["deep"]) == (True, 1, [], False)


def test_check_takes_the_store_from_the_environment(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHMKV_STORE", store.name)
    assert cli.main(["check"]) == 0
    assert repr(store.name) in capsys.readouterr().out


def test_check_without_a_store_ends_with_69(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--store", name]) == 69
    assert capsys.readouterr().err.startswith("shmkv check: ")


def test_check_of_an_impossible_name_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--store", "no such/name"]) == 2
    assert "no such/name" in capsys.readouterr().err


def test_check_that_finds_something_ends_with_1(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = tuple(Problem("I2", f"key {i} is in two slots") for i in range(30))
    broken = replace(store.check(), problems=problems)
    found = render.check_dict(store.name, asdict(broken), deep=True)
    assert not found["ok"]
    told = render.format_check(found)
    assert "  I2: key 0 is in two slots" in told
    assert "deep check" in told
    assert "30 problems" in told
    assert "... and 10 more" in told
    monkeypatch.setattr(Store, "check", lambda self: broken)
    assert cli.main(["check", "--store", store.name]) == 1
    capsys.readouterr()


def test_deep_check(make_store: Callable[..., Store], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shmkv.deepcheck")
    store = make_store(size="4MiB")
    store.update({f"k{i}": "v" * i for i in range(500)})
    assert cli.main(["check", "--deep", "--store", store.name]) == 0
    assert "deep check" in capsys.readouterr().out

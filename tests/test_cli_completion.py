"""Completion scripts, in the shells that are here, and docs/cli.md: both are made of the commands themselves."""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from shell import environment, run

from shmkv import Store
from shmkv.cli import main as cli
from shmkv.cli.completion import SHELLS
from shmkv.cli.manual import manual
from shmkv.cli.surface import Surface, surfaces

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


def script(shell: str) -> str:
    told = run("completion", shell)
    assert (told.err, told.status) == ("", 0)
    assert run("completion", shell, "--json").json == {"shell": shell, "script": told.out.decode()}
    return told.out.decode()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str) -> None:
    text = script(shell)
    for surface in surfaces():
        assert re.search(rf"\b{surface.name}\b", text)
        for option in surface.options:
            assert all(name.lstrip("-") in text for name in option.names)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_understands_the_script(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script(shell))
    done = subprocess.run([program, "-n", str(file)], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)


def completed(words: list[str], folder: Path, tmp_path: Path) -> list[str]:
    """What bash offers for the last of these words."""
    program = tmp_path / "shmkv"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, "-m", "shmkv"])} "$@"\n')
    program.chmod(0o755)
    code = f"""
{script("bash")}
COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}
_shmkv
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    variables = environment()
    variables["PATH"] = f"{tmp_path}:{variables['PATH']}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, env=variables, cwd=folder)
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(store: Store, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")

    def complete(*words: str) -> list[str]:
        return completed(["shmkv", *words], tmp_path, tmp_path)

    assert complete("comp") == ["compact", "completion"]
    assert set(complete("")) == {*cli.COMMANDS, "--help", "--version"}
    assert complete("get", "--js") == ["--json"]
    assert complete("set", "k", "v", "--type", "") == ["bytes", "str", "int", "json"]
    assert complete("get", "--store", store.name[:-2]) == [store.name]
    assert complete("unlink", store.name[:-2]) == [store.name]
    assert complete("check", "--path", "") == ["folder"]
    assert complete("set", "k", "v", "--ttl", "") == []
    assert complete("completion", "z") == ["zsh"]


# ---- docs/cli.md --------------------------------------------------------------------------------------


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == manual(), "run: python -m shmkv.cli.manual > docs/cli.md"


@pytest.mark.parametrize("surface", surfaces(), ids=lambda surface: surface.name)
def test_examples_say_what_the_command_takes(surface: Surface) -> None:
    """Each command has an example, and no example an option that is not there."""
    assert f"shmkv {surface.name}" in surface.examples
    options = {surface.name: {name for option in surface.options for name in option.names} for surface in surfaces()}
    for line in surface.examples.splitlines():
        for command, words in re.findall(r"\bshmkv ([a-z]+)([^|#]*)", line):
            known = options[command]
            named = re.findall(r"(?<= )(--?(?:[a-z0]|-)[a-z-]*)", words.partition(" -- ")[0])
            assert set(named) <= known, line


@pytest.mark.parametrize("surface", surfaces(), ids=lambda surface: surface.name)
def test_every_option_says_what_it_does(surface: Surface) -> None:
    silent = [option for option in (*surface.arguments, *surface.options) if not option.help]
    assert not silent
    assert all(len(line) <= 118 for line in surface.description.splitlines())


@pytest.mark.parametrize("module", ["completion", "where", "words", "surface", "manual", "doctor", "remote"])
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(import_module(f"shmkv.cli.{module}")).failed == 0

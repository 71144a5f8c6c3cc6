"""docs/hosting/: the options are those of `shmkv serve`, the unit is one, what is copied into the image is there."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shmkv.cli.commands import serve

ROOT = Path(__file__).resolve().parent.parent
HOSTING = ROOT / "docs" / "hosting"
UNIT = HOSTING / "shmkv.service"
DOCKERFILE = HOSTING / "Dockerfile"
PROXY = HOSTING / "nginx.conf"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def parsed(words: list[str]) -> argparse.Namespace:
    """Options as `shmkv serve` reads them; SystemExit if it would not."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(words)


def logical_lines(path: Path) -> list[str]:
    """Lines without comments; those that end in a backslash joined."""
    kept = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(kept).replace("\\\n", " ").splitlines()


def of_image(instruction: str) -> list[str]:
    """What follows an instruction, once for each time that it stands in the Dockerfile."""
    return [line[len(instruction) + 1 :].strip() for line in logical_lines(DOCKERFILE) if line.startswith(instruction)]


def of_unit() -> dict[str, str]:
    return dict(line.split("=", 1) for line in logical_lines(UNIT) if "=" in line)


# ---- Options --------------------------------------------------------------------------------


def commands_of_pages() -> Iterator[tuple[str, str]]:
    """(where, words behind `shmkv serve`) of each line of code or span of code that says so."""
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"(?:^|[ /`])shmkv serve( --[^`\n#]*)", text, re.MULTILINE):
            yield f"{page.name}:{text[: match.start(1)].count(chr(10)) + 1}", match[1]


@pytest.mark.parametrize(("where", "words"), list(commands_of_pages()))
def test_pages_say_options_that_there_are(where: str, words: str) -> None:
    if "--help" not in words:
        parsed(shlex.split(words))


def test_unit_starts_what_there_is() -> None:
    binary, command, *options = shlex.split(of_unit()["ExecStart"])
    told = parsed(options)
    assert (Path(binary).name, command) == ("shmkv", "serve")
    assert told.path.startswith(f"/var/lib/{of_unit()['StateDirectory']}/")
    assert told.token_file == "${CREDENTIALS_DIRECTORY}/token"
    assert of_unit()["LoadCredential"].startswith("token:")


def test_image_starts_what_there_is() -> None:
    [entry], [rest] = map(json.loads, of_image("ENTRYPOINT")), map(json.loads, of_image("CMD"))
    assert entry[:2] == ["shmkv", "serve"]
    told = parsed(entry[2:] + rest)
    assert told.token_file, "it listens beyond this machine"
    assert [str(told.port)] == of_image("EXPOSE")
    assert f", {told.port}, " in of_image("HEALTHCHECK")[0]
    assert [Path(told.path).parent] == [Path(volume) for volume in of_image("VOLUME")]


def test_proxy_goes_where_the_unit_listens() -> None:
    port = parsed(shlex.split(of_unit()["ExecStart"])[2:]).port
    assert f"server 127.0.0.1:{port};" in PROXY.read_text()
    most = re.search(r"client_max_body_size (\d+)m;", PROXY.read_text())
    assert most
    assert int(most[1]) == parsed(["--store", "x"]).max_body


# ---- The unit ---------------------------------------------------------------------------------


def test_unit_keeps_stores_and_ends_in_order() -> None:
    unit = of_unit()
    assert unit["RemoveIPC"] == "no"
    assert "DynamicUser" not in unit, "it implies RemoveIPC=yes"
    assert unit["KillMode"] == "mixed", "the supervisor ends its workers"
    assert unit["Restart"] == "on-failure"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program that exists in place of the installed one."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/shmkv/bin/shmkv", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60
    )
    # Of other units of the machine it may complain as well.
    assert not [line for line in done.stderr.splitlines() if UNIT.name in line], done.stderr


# ---- The image --------------------------------------------------------------------------------


def test_image_copies_what_there_is() -> None:
    from_here = [line.split() for line in of_image("COPY")]
    assert from_here
    for *sources, _ in from_here:
        assert all((ROOT / source).exists() for source in sources)


def test_image_has_a_python_that_is_supported() -> None:
    versions = re.findall(r"^FROM python:3\.(\d+)-slim", DOCKERFILE.read_text(), re.MULTILINE)
    assert len(versions) == 2
    assert len(set(versions)) == 1
    assert int(versions[0]) >= 10


def test_image_runs_without_rights() -> None:
    [user] = of_image("USER")
    assert user.partition(":")[0] not in ("0", "root")


def test_health_check_says_no_when_nobody_listens() -> None:
    command = of_image("HEALTHCHECK")[0].partition(" CMD ")[2]
    words = json.loads(command)
    words[0] = sys.executable
    words[-1] = words[-1].replace("8003", "1")
    assert subprocess.run(words, capture_output=True, timeout=30).returncode == 1

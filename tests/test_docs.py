"""README and docs/: the examples run, the links lead somewhere, the layout tables are those of layout.h."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "shmkv" / "_core"
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
EXPECTED = {"api", "architecture", "changelog", "cli", "concurrency", "decisions", "development", "glossary"} | {
    "memory-layout",
    "operations",
    "trade-offs",
}
GENERATED = {"benchmarks.md", "reliability.md"}  # by bench/report.py and tests/campaigns/page.py
SCRIPT_SECONDS = 60


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(match[1].strip(), match[2], page.read_text()[: match.start(2)].count("\n"))


def test_every_page_is_there() -> None:
    assert {page.stem for page in PAGES} >= EXPECTED


# ---- Examples -----------------------------------------------------------------------------------


def is_doctest(block: Block) -> bool:
    return block.language == "python" and ">>>" in block.text


def is_script(block: Block) -> bool:
    return block.language == "python" and ">>>" not in block.text


@pytest.mark.parametrize("page", [p for p in PAGES if any(map(is_doctest, blocks(p)))], ids=lambda page: page.name)
def test_examples_run(page: Path) -> None:
    """The `>>>` blocks of a page are one session."""
    names: dict[str, object] = {}
    parser = doctest.DocTestParser()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    for block in filter(is_doctest, blocks(page)):
        test = parser.get_doctest(block.text, names, page.name, str(page), block.line)
        runner.run(test, out=said.append, clear_globs=False)
        names = test.globs
    assert runner.failures == 0, "".join(said)
    assert runner.tries > 0


SCRIPTS = [(page, block) for page in PAGES for block in blocks(page) if is_script(block)]


@pytest.mark.parametrize(("page", "block"), SCRIPTS, ids=[f"{page.name}:{block.line}" for page, block in SCRIPTS])
def test_scripts_run(page: Path, block: Block, tmp_path: Path) -> None:
    """A block without `>>>` is a program; a comment behind a print() is what it prints."""
    script = tmp_path / "example.py"
    script.write_text(block.text)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=SCRIPT_SECONDS, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)\s+# (.*)", block.text)


def test_readme_example_has_ten_lines() -> None:
    [first, *_] = filter(is_script, blocks(README))
    assert 8 <= len([line for line in first.text.splitlines() if line.strip()]) <= 12


# ---- Set-up -------------------------------------------------------------------------------------


def test_readme_has_exactly_two_setup_commands() -> None:
    """`.ci/run` takes the second one from here."""
    text = README.read_text()
    section = text[text.index("\n## Set up\n") :]
    section = section[: section.index("\n## ", 1)]
    commands = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 2
    bench, tests = commands
    assert bench.startswith("python3 -m venv ")
    assert bench.endswith("shmkv bench --quick")
    assert tests.startswith("python3 -m venv ")
    assert tests.endswith("-m pytest --all")


def test_readme_has_the_markers_of_the_table() -> None:
    text = README.read_text()
    assert text.count("<!-- table:begin -->") == text.count("<!-- table:end -->") == 1
    assert text.index("<!-- table:begin -->") < text.index("<!-- table:end -->")


# ---- Links --------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """The fragment that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(match[1]) for match in re.finditer(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.name in GENERATED and not file.exists():
            continue
        assert file.exists(), f"{page.name} links to {target}"
        if fragment:
            assert fragment in anchors(file), f"{page.name} links to {target}"


# ---- The layout ---------------------------------------------------------------------------------

_STRUCT = re.compile(r"^### `(skv_\w+)`\n(.*?)(?=^#|\Z)", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", re.MULTILINE)


def test_layout_tables_are_true(tmp_path: Path) -> None:
    """Every offset and size in docs/memory-layout.md is asserted against layout.h by the compiler."""
    text = (ROOT / "docs" / "memory-layout.md").read_text()
    lines = ['#include "layout.h"']
    for struct, body in _STRUCT.findall(text):
        for offset, size, field in _FIELD.findall(body):
            where = f"{struct}.{field}"
            lines.append(f'static_assert(offsetof({struct}, {field}) == {offset}, "offset of {where}");')
            lines.append(f'static_assert(sizeof((({struct} *)0)->{field}) == {size}, "size of {where}");')
    assert len(lines) > 100, "the tables were not found"
    source = tmp_path / "layout.c"
    source.write_text("\n".join([*lines, "int nothing;\n"]))
    done = subprocess.run(
        ["cc", "-std=c11", "-fsyntax-only", f"-I{CORE}", str(source)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("constant", "said"),
    [
        ("SKV_MAX_KEY", "65,535"),
        ("SKV_MAX_BATCH", "65,536"),
        ("SKV_PROCS", "1,023"),
    ],
)
def test_limits_are_those_of_the_layout(constant: str, said: str) -> None:
    match = re.search(rf"^#define {constant}\s+(\d+)u", (CORE / "layout.h").read_text(), re.MULTILINE)
    assert match, constant
    assert f"{int(match[1]):,}" == said
    for name in ("README.md", "docs/api.md", "docs/memory-layout.md"):
        assert said in (ROOT / name).read_text(), name


def test_every_error_is_explained() -> None:
    from shmkv import errors

    text = (ROOT / "docs" / "api.md").read_text()
    assert not [name for name in errors.__all__ if f"`{name}`" not in text]


def test_every_public_call_is_explained() -> None:
    from shmkv import Store

    text = (ROOT / "docs" / "api.md").read_text()
    public = [name for name in dir(Store) if not name.startswith("_")]
    assert not [name for name in public if not re.search(rf"\b{name}\b", text)]

"""The protocol models (tests/models): each is clean at small bounds, each mutant is found, each speaks of real code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns.models import CAMPAIGN, MODELS, TABLE, Mention, Model, check_caught, check_clean, mentions, stale

pytestmark = pytest.mark.slow

FILES = sorted(path for path in MODELS.iterdir() if path.suffix in (".pml", ".cpp"))
MUTANTS = [(model, mutant) for model in TABLE for mutant in model.mutants]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Model, str], Path]:
    """`folder_of(model, mutant)`: where it is built; a Relacy model and its mutants are one program."""
    missing = CAMPAIGN.missing()
    if missing:
        pytest.skip(f"needs the Debian packages {', '.join(missing)}")
    folders: dict[str, Path] = {}

    def folder(model: Model, mutant: str) -> Path:
        key = f"{model}-{mutant}" if model.uses_spin else str(model)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(key.replace(".", "-"))
        return folders[key]

    return folder


@pytest.mark.parametrize("model", TABLE, ids=str)
def test_protocol_is_clean(model: Model, folder_of: Callable[[Model, str], Path]) -> None:
    assert check_clean(model, model.small, folder_of(model, "")).explored > 0


@pytest.mark.parametrize(("model", "mutant"), MUTANTS, ids=[f"{model}-{mutant}" for model, mutant in MUTANTS])
def test_mutant_is_caught(model: Model, mutant: str, folder_of: Callable[[Model, str], Path]) -> None:
    check_caught(model, mutant, folder_of(model, mutant))


def test_every_model_is_in_the_table() -> None:
    assert {path.name for path in FILES} == {model.file for model in TABLE}
    assert len(MUTANTS) >= 12


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_mutant_is_in_the_table(path: Path) -> None:
    text = path.read_text()
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    in_table = {mutant for model in TABLE if model.file == path.name for mutant in model.mutants}
    assert set(re.findall(r"\bM_[A-Z_]+\b", code)) == in_table
    head = text[: text.index("*/")]
    assert set(re.findall(r"\bM_[A-Z_]+\b", head)) == in_table, "the head of a model explains its mutants"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_models_speak_of_real_code(path: Path) -> None:
    """Every function named is in the engine, and every statement in backquotes is in the function named before it."""
    named = list(mentions(path))
    assert any(mention.statement for mention in named), "a model says which statements its steps are"
    assert not stale(path)


def test_stale_mentions_are_noticed(tmp_path: Path) -> None:
    """The test above can fail: a statement that is in another function, a function that is not there."""
    model = tmp_path / "model.pml"
    model.write_text(
        "/* lock.h:skv_unlock `memory_order_release` */\n"
        "/* lock.h:skv_trylock `memory_order_release` */\n"
        "/* lock.h:skv_lock_away */\n"
    )
    assert next(mentions(model)) == Mention("lock.h", "skv_unlock", "")
    assert stale(model) == ["lock.h:skv_trylock memory_order_release", "lock.h:skv_lock_away"]

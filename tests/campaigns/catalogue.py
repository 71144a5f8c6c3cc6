"""Which campaigns there are, in the order of the page."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from .campaign import Campaign

# Campaigns share modules with the tests, which find them where pytest does.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NAMES = (
    "suite",
    "every_instruction",
    "torture",
    "linearizability",
    "not_atomic",
    "models",
    "mutants",
    "fuzz",
    "resources",
    "machine",
    "power",
    "serving",
    "scale",
    "surroundings",
    "covered",
)


def campaigns() -> list[Campaign]:
    """Each is imported only here: a campaign's module may need what only its tests have."""
    return [importlib.import_module(f".{name}", __package__).CAMPAIGN for name in NAMES]

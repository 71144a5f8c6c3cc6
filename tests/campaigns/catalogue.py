"""Which campaigns there are, in the order of the page."""

from __future__ import annotations

import importlib

from .campaign import Campaign

NAMES = (
    "every_instruction",
    "torture",
    "linearizability",
    "models",
    "mutants",
    "fuzz_region",
    "fuzz_import",
    "resources",
    "machine",
    "covered",
)


def campaigns() -> list[Campaign]:
    """Each is imported only here: a campaign's module may need what only its tests have."""
    return [importlib.import_module(f".{name}", __package__).CAMPAIGN for name in NAMES]

"""All commands as data, read off their parsers: for docs/cli.md and for completion, which nobody writes by hand."""

from __future__ import annotations

import argparse
from typing import Final, NamedTuple

from shmkv.cli.main import COMMANDS, command_module, fill_parser


class Option(NamedTuple):
    """`--name VALUE`, or a word of its own."""

    names: tuple[str, ...]  # ("-0", "--null"); empty for what stands by its place
    value: str | None  # "SECONDS"; None: it takes none
    choices: tuple[str, ...]
    help: str


class Surface(NamedTuple):
    """What a command takes, and what it says of itself."""

    name: str
    help: str
    description: str
    examples: str
    arguments: tuple[Option, ...]  # by their place
    options: tuple[Option, ...]
    usage: str  # of the arguments: "KEY [KEY ...]"


def surfaces() -> list[Surface]:
    """Every command, in the order of `shmkv --help`; imports all of their modules."""
    return [_surface_of(name) for name in COMMANDS]


def _surface_of(name: str) -> Surface:
    module = command_module(name)
    parser = argparse.ArgumentParser(add_help=False)
    fill_parser(parser, module)
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    by_place = [action for action in shown if not action.option_strings]
    return Surface(
        name,
        COMMANDS[name].help,
        module.DESCRIPTION,
        module.EXAMPLES,
        tuple(map(_option_of, by_place)),
        tuple(_option_of(action) for action in shown if action.option_strings),
        " ".join(map(_usage_of, by_place)),
    )


def _option_of(action: argparse.Action) -> Option:
    choices = tuple(map(str, action.choices or ()))
    value = None if action.nargs == 0 else _value_of(action)
    return Option(tuple(action.option_strings), value, choices, (action.help or "").replace("%%", "%"))


def _value_of(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


_USAGES: Final = {"+": "{0} [{0} ...]", "?": "[{0}]", "*": "[{0} ...]"}


def _usage_of(action: argparse.Action) -> str:
    return _USAGES.get(str(action.nargs), "{0}").format(_value_of(action))

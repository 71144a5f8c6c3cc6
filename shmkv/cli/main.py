"""Entry point: finds the command, runs it, turns errors into exit statuses.

This module imports the standard library only, and little of that: `shmkv --help` must not wait
for the engine.  A command's own module (its options, and all that it needs) is imported only when
that command is on the command line.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

EXIT_DONE: Final = 0
EXIT_CONDITION: Final = 1  # a key is missing, a condition did not hold, a line is malformed, a check found something
EXIT_USAGE: Final = 2
EXIT_FAILED: Final = 70  # EX_SOFTWARE of sysexits.h: an error of shmkv that no other status tells
EXIT_NO_STORE: Final = 69
EXIT_NO_ROOM: Final = 73  # cannot create: it exists otherwise, or there is no room for it or in it
EXIT_TIMED_OUT: Final = 75
EXIT_NOT_PERMITTED: Final = 77
EXIT_INTERRUPTED: Final = 130

# Name of an error's class -> status; the first class of its method resolution order that is listed here
# counts.  By name, so that the table costs no import.
_STATUS_OF: Final = {
    "ConditionError": EXIT_CONDITION,
    "UsageError": EXIT_USAGE,
    "RefusedError": EXIT_USAGE,  # by a server, which says why
    "NoServerError": EXIT_NO_STORE,
    "NotADirectoryError": EXIT_NO_STORE,  # --path of a file
    "StoreNotFoundError": EXIT_NO_STORE,
    "CorruptStoreError": EXIT_NO_STORE,
    "LayoutVersionError": EXIT_NO_STORE,
    "StaleStoreError": EXIT_NO_STORE,
    "StoreExistsError": EXIT_NO_ROOM,
    "StoreFullError": EXIT_NO_ROOM,
    "CannotListenError": EXIT_NO_ROOM,
    "TooManyProcessesError": EXIT_TIMED_OUT,
    "LockTimeoutError": EXIT_TIMED_OUT,
    "StoreLockedError": EXIT_TIMED_OUT,
    "ForeignStoreError": EXIT_NOT_PERMITTED,
    "ReadOnlyStoreError": EXIT_NOT_PERMITTED,
    "PermissionError": EXIT_NOT_PERMITTED,
    "TimeoutError": EXIT_TIMED_OUT,
    "NoFormError": EXIT_FAILED,
    "ShmkvError": EXIT_FAILED,
    "OSError": EXIT_FAILED,
}


class UsageError(Exception):
    """What the user asked for makes no sense; the message says why."""


class ConditionError(Exception):
    """What was asked did not hold, and nothing has changed; the message says what."""


class CommandModule(Protocol):
    """What a module in `shmkv.cli.commands` has."""

    DESCRIPTION: str  # sentences, for `shmkv COMMAND --help` and docs/cli.md
    EXAMPLES: str  # lines for a shell, each with a comment

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; answers the exit status."""


class Command(NamedTuple):
    """A command's module, and its line in `shmkv --help`."""

    module: str
    help: str


COMMANDS: Final = {
    "get": Command("get", "print values"),
    "set": Command("set", "store values, all of them or none"),
    "del": Command("del_", "remove keys"),
    "incr": Command("incr", "add to a number"),
    "ttl": Command("ttl", "print the seconds until a key expires"),
    "keys": Command("keys", "print the keys, in no order"),
    "range": Command("range_", "print a span of keys with their values, sorted"),
    "stats": Command("stats", "print the numbers of a store"),
    "metrics": Command("metrics", "print the numbers of a store for Prometheus"),
    "import": Command("import_", "load items from a TSV, CSV or JSON Lines file"),
    "export": Command("export", "print every item, so that `shmkv import` stores it again"),
    "backup": Command("backup", "copy a durable store, as it is at one instant, to another directory"),
    "ls": Command("ls", "list the stores of this machine"),
    "check": Command("check", "walk every invariant of a store; changes nothing"),
    "compact": Command("compact", "drop what has expired, collect after the dead, give memory back"),
    "unlink": Command("unlink", "remove stores"),
    "serve": Command("serve", "serve a store over HTTP"),
    "bench": Command("bench", "measure this machine: throughput, percentiles, memory"),
    "top": Command("top", "watch a store: rates, hit rate, memory, processes"),
    "doctor": Command("doctor", "find what is wrong around the stores here, and how to mend it"),
    "completion": Command("completion", "print a script that completes `shmkv` in a shell"),
}

EXIT_STATUSES: Final = """\
exit status: 0 done, 1 a key is missing or a condition did not hold (a malformed line, a check that found
something), 2 usage, 69 no such store or server, 73 cannot create it or no room, 75 timed out, 77 not
permitted, 70 any other error
"""

_EPILOG: Final = f"""\
`shmkv COMMAND --help` tells a command's options, with examples.  SHMKV_STORE and SHMKV_URL are the defaults
of --store and --url.

{EXIT_STATUSES}"""


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser of one command, as only its module is imported; of none: of what `shmkv --help` shows.

    A parser for each command would be a tenth of what `shmkv get` may take.
    """
    parser = _Parser(
        prog="shmkv", description="A key-value store in shared memory.", epilog=_EPILOG, formatter_class=_Help
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog="shmkv")
    for name in COMMANDS if command is None else (command,):
        sub = commands.add_parser(name, help=COMMANDS[name].help, formatter_class=_Help)
        if name == command:
            fill_parser(sub, command_module(name))
    return parser


def fill_parser(parser: argparse.ArgumentParser, module: CommandModule) -> None:
    """A command's options, description and examples."""
    parser.description = module.DESCRIPTION
    parser.epilog = "examples:\n" + "".join(f"  {line}\n" for line in module.EXAMPLES.splitlines())
    module.add_arguments(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; answers the exit status."""
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    command = words[0] if words[0] in COMMANDS else None
    status = EXIT_DONE
    try:
        try:
            status = _run(_parsed(build_parser(command), words))
        finally:
            # Here, where it can be answered for, and not when the interpreter ends.
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # whoever read our output has gone, and needs no more of it
        return EXIT_DONE
    except OSError as error:
        _drop_output()
        return status or _complain(command or "", error, EXIT_FAILED)  # a command that failed has said why
    return status


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """The arguments; an option that nobody knows is a usage error that names the one which is like it."""
    args, unknown = parser.parse_known_args(words)
    if unknown:
        from shmkv.cli.suggest import unknown_words

        asked = _subparser(parser, args.command)
        asked.error(unknown_words(unknown, list(asked._option_string_actions)))
    return args


def _subparser(parser: argparse.ArgumentParser, command: str) -> argparse.ArgumentParser:
    [commands] = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[command]
    return found


def _run(args: argparse.Namespace) -> int:
    try:
        return command_module(args.command).run(args)
    except BrokenPipeError:
        raise
    except Exception as error:
        status = status_of(error)
        if status is None:
            raise
        return _complain(args.command, error, status)


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the interpreter has nothing to complain of at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def status_of(error: BaseException) -> int | None:
    """The exit status that tells of `error`; None for an error that is a mistake in shmkv itself.

    >>> status_of(PermissionError("no"))
    77
    """
    for cls in type(error).__mro__:
        if cls.__name__ in _STATUS_OF:
            return _STATUS_OF[cls.__name__]
    return None


@contextlib.contextmanager
def arguments_checked() -> Iterator[None]:
    """Around calls that get what the user typed: a `ValueError` or `TypeError` is then a usage error."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if status_of(error) is None:
            raise UsageError(str(error)) from error
        raise


def _complain(command: str, error: BaseException, status: int) -> int:
    print(f"shmkv {command}: {error}", file=sys.stderr)
    return status


def command_module(command: str) -> CommandModule:
    """The module of a command, imported now."""
    return cast(CommandModule, importlib.import_module(f"shmkv.cli.commands.{COMMANDS[command].module}"))


class _Parser(argparse.ArgumentParser):
    """Says of a command or a choice that it does not know which one is like it; so do the parsers of commands."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            from shmkv.cli.suggest import did_you_mean

            hint = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, error.message + hint) from None


class _Help(argparse.RawDescriptionHelpFormatter):
    """argparse makes a formatter for each option that is added, and without a width that imports shutil, which is
    a tenth of what `shmkv get` may take."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """As wide as the terminal, as `shutil.get_terminal_size` finds it."""
    with contextlib.suppress(ValueError, OSError):
        return int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(1).columns or 80
    return 80


class _Version(argparse.Action):
    """`--version`: imports the package for its number only when asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import shmkv

        print(f"shmkv {shmkv.__version__}")
        parser.exit()

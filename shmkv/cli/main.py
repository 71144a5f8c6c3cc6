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
    "StoreNotFoundError": EXIT_NO_STORE,
    "CorruptStoreError": EXIT_NO_STORE,
    "LayoutVersionError": EXIT_NO_STORE,
    "StaleStoreError": EXIT_NO_STORE,
    "StoreExistsError": EXIT_NO_ROOM,
    "StoreFullError": EXIT_NO_ROOM,
    "TooManyProcessesError": EXIT_TIMED_OUT,
    "LockTimeoutError": EXIT_TIMED_OUT,
    "StoreLockedError": EXIT_TIMED_OUT,
    "ForeignStoreError": EXIT_NOT_PERMITTED,
    "ReadOnlyStoreError": EXIT_NOT_PERMITTED,
    "PermissionError": EXIT_NOT_PERMITTED,
    "ShmkvError": EXIT_FAILED,
}


class UsageError(Exception):
    """What the user asked for makes no sense; the message says why."""


class CommandModule(Protocol):
    """What a module in `shmkv.cli.commands` has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; answers the exit status."""


class Command(NamedTuple):
    """A command's module, and its line in `shmkv --help`."""

    module: str
    help: str


COMMANDS: Final = {
    "import": Command("import_", "load key/value pairs from a TSV, CSV or JSON Lines file"),
    "check": Command("check", "walk every invariant of a store; changes nothing"),
    "bench": Command("bench", "measure this machine: throughput, percentiles, memory"),
}

_EPILOG: Final = """\
`shmkv COMMAND --help` tells a command's options.  SHMKV_STORE is the default of --store.

exit status: 0 done, 1 a condition did not hold (a malformed line, a check that found something),
2 usage, 69 no such store, 73 cannot create it or no room, 75 timed out, 77 not permitted,
70 any other error of shmkv
"""


def build_parser(command: str | None) -> argparse.ArgumentParser:
    """The parser; only `command` gets its options, as only its module is imported."""
    parser = argparse.ArgumentParser(
        prog="shmkv",
        description="A key-value store in shared memory.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, help_line) in COMMANDS.items():
        sub = commands.add_parser(
            name, help=help_line, description=help_line, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == command:
            _module(name).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; answers the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in words if word in COMMANDS), None)
    args = build_parser(command).parse_args(words)
    try:
        return _module(args.command).run(args)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except UsageError as error:
        return _complain(args.command, error, EXIT_USAGE)
    except Exception as error:
        status = status_of(error)
        if status is None:
            raise
        return _complain(args.command, error, status)


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


def add_store_argument(parser: argparse.ArgumentParser) -> None:
    """`--store NAME`, with its default from the environment."""
    default = os.environ.get("SHMKV_STORE")
    parser.add_argument(
        "--store", metavar="NAME", default=default, required=default is None, help="the store (default: $SHMKV_STORE)"
    )


def _complain(command: str, error: BaseException, status: int) -> int:
    print(f"shmkv {command}: {error}", file=sys.stderr)
    return status


def _module(command: str) -> CommandModule:
    return cast(CommandModule, importlib.import_module(f"shmkv.cli.commands.{COMMANDS[command].module}"))


class _Version(argparse.Action):
    """`--version`: imports the package for its number only when asked."""

    def __init__(self, **options: Any) -> None:
        super().__init__(nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import shmkv

        print(f"shmkv {shmkv.__version__}")
        parser.exit()

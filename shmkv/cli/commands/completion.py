"""`shmkv completion`: scripts for shells, made of the commands themselves."""

from __future__ import annotations

import argparse
from typing import Final

from shmkv.cli import out, words
from shmkv.cli.main import EXIT_DONE

DESCRIPTION: Final = """\
Prints a script that completes commands, options, and the names of stores.
"""
EXAMPLES: Final = """\
source <(shmkv completion bash)          # in ~/.bashrc
source <(shmkv completion zsh)           # in ~/.zshrc, behind compinit
shmkv completion fish | source           # in ~/.config/fish/config.fish
"""
_SHELLS: Final = ("bash", "zsh", "fish")  # of cli.completion, which imports every command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, metavar="SHELL", help="bash, zsh or fish")
    words.add_json_argument(parser, 'print {"shell": ..., "script": ...}')


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from shmkv.cli.completion import SHELLS
    from shmkv.cli.surface import surfaces

    script = SHELLS[args.shell](surfaces())
    if args.json:
        out.json_line({"shell": args.shell, "script": script})
    else:
        out.write(script.encode())
    return EXIT_DONE

"""docs/cli.md, made of what the commands say of themselves:  python -m shmkv.cli.manual > docs/cli.md"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shmkv.cli.main import EXIT_STATUSES
from shmkv.cli.surface import Option, Surface, surfaces

_HEAD: Final = """\
# The command line

<!-- Made by `python -m shmkv.cli.manual > docs/cli.md` from the commands' own help: edit that. -->

`shmkv COMMAND`, or `python -m shmkv COMMAND`. `pip install "shmkv[cli]"` adds what draws on a terminal.

- **Which store.** `--store NAME` works on a store of this machine, `--path DIR` on a durable one, `--url URL` on
  [a server](server.md), with the same commands and answers. `SHMKV_STORE` and `SHMKV_URL` are the defaults; an option
  beats them. A server that wants a token gets it from `--token-file` or `SHMKV_TOKEN_FILE`.
- **Keys** are text in UTF-8. Where one is printed in a line, one of characters that print stands for itself, any other
  is a JSON string in its double quotes, and a `bytes` key is `base64:...`. With `--quoted` a command takes keys in that
  form.
- **Values.** `set` stores a word as `str`. It reads bytes from standard input for `-` and from a file for `@FILE`,
  unless `--raw` is said; behind `--` words may begin with a dash.
- **`--json`** prints an item's *form*, from which an equal one can be stored: see
  [the server's page](server.md#binary-routes).
- **Exit status.** {statuses}
  What went wrong is a sentence on standard error. An output that nobody reads any more is no error.

| command | |
|---|---|
{table}
"""


def manual() -> str:
    """The page."""
    commands = surfaces()
    table = "\n".join(f"| [`{each.name}`](#shmkv-{each.name}) | {each.help} |" for each in commands)
    statuses = " ".join(EXIT_STATUSES.removeprefix("exit status: ").split()) + "."
    return "\n".join([_HEAD.format(statuses=statuses[0].upper() + statuses[1:], table=table), *map(_section, commands)])


def _section(command: Surface) -> str:
    usage = " ".join(filter(None, ["shmkv", command.name, command.usage, "[OPTION ...]"]))
    return "\n".join(
        [
            f"## shmkv {command.name}",
            "",
            f"    {usage}",
            "",
            command.description.rstrip("\n").replace("\n  ", "\n      "),  # what is indented there is a block here
            "",
            *_options((*command.arguments, *command.options)),
            "",
            "```sh",
            command.examples.rstrip("\n"),
            "```",
            "",
        ]
    )


def _options(options: tuple[Option, ...]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for option in options:
        names = ", ".join(option.names) + (" " if option.names and option.value else "") + (option.value or "")
        yield f"| `{_cell(names)}` | {_cell(option.help)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(manual(), end="")

"""Words that nobody knows, and those that were meant: for usage errors, and not imported before there is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

_ALIKE: Final = 0.6  # of difflib's ratio, from 0 to 1
# What the commands are called elsewhere.
_ELSEWHERE: Final = {
    "backup": "export", "delete": "del", "dump": "export", "info": "stats", "list": "ls", "load": "import",
    "monitor": "top", "put": "set", "remove": "del", "restore": "import", "rm": "del", "scan": "keys", "start": "serve",
}  # fmt: skip


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about `word`: a question, or nothing where no word is like it.

    >>> did_you_mean("exprot", ["get", "export"]), did_you_mean("dance", ["get", "export"])
    ('; did you mean export?', '')
    >>> did_you_mean("list", ["ls", "unlink"])
    '; did you mean ls?'
    """
    names = list(known)
    found = [name for name in (_ELSEWHERE.get(word),) if name in names]
    found += get_close_matches(word, names, n=1, cutoff=_ALIKE)
    return f"; did you mean {found[0]}?" if found else ""


def unknown_words(unknown: Sequence[str], options: Sequence[str]) -> str:
    """The message about words of a command line that no option and no argument took.

    >>> unknown_words(["--jsno", "5"], ["--json", "--store"])
    'unrecognized arguments: --jsno 5; did you mean --json?'
    """
    first = next((word for word in unknown if word.startswith("-")), None)
    hint = "" if first is None else did_you_mean(first.partition("=")[0], options)
    return f"unrecognized arguments: {' '.join(unknown)}{hint}"

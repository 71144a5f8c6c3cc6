"""Keys and values as lines of text that a person reads, and a program reads back.

A text that is *plain* stands for itself.  Any other is quoted: a str as a JSON string in its double quotes, bytes as
`base64:` and their base64.  Plain is a str of characters that are seen, which is not empty, neither begins nor ends
with a blank, and does not begin like a quoted one: so that a line holds exactly one text, a terminal obeys none of it,
and no two texts look alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shmkv._core import Record

_BASE64: Final = "base64:"
# What Python calls printable, and a terminal shows as nothing: the default ignorable code points of Unicode that are
# letters or marks, and the blank of Braille.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def quoted(text: str | bytes) -> str:
    """The line that says this key or value.

    >>> quoted("user:1"), quoted("two\\nlines"), quoted(b"k"), quoted('"'), quoted("")
    ('user:1', '"two\\\\nlines"', 'base64:aw==', '"\\\\""', '""')
    """
    if isinstance(text, bytes):
        from base64 import b64encode

        return _BASE64 + b64encode(text).decode()
    if _is_plain(text):
        return text
    from json import dumps

    return dumps(text)


def _is_plain(text: str) -> bool:
    if not text or text[0] == " " or text[-1] == " " or text.startswith(('"', _BASE64)):
        return False
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)


def unquoted(line: str) -> str | bytes:
    """What `quoted` said.

    Raises:
        ValueError: it begins like a quoted text, and is none.

    >>> unquoted('"two\\\\nlines"'), unquoted("base64:aw=="), unquoted("user:1")
    ('two\\nlines', b'k', 'user:1')
    """
    if line.startswith(_BASE64):
        from base64 import b64decode

        return b64decode(line.removeprefix(_BASE64), validate=True)
    if not line.startswith('"'):
        return line
    from json import loads

    text = loads(line)
    if not isinstance(text, str):
        raise ValueError(f"{line} is no JSON string")
    return text


def shown_value(record: Record) -> str:
    """A value in a line, for people: text, in bytes or str, as it is or quoted; anything else as Python writes it.

    >>> shown_value((1, b"Ada", None, 1, 0)), shown_value((7, b"", None, 1, 0)), shown_value((1, bytes(2), None, 1, 0))
    ('Ada', 'True', '"\\\\u0000\\\\u0000"')
    """
    from shmkv.forms import BYTES, STR, TYPED, python_of

    if record[0] in (BYTES, STR, TYPED):
        try:
            return quoted(record[1].decode())
        except UnicodeDecodeError:
            pass
    return python_of(record)

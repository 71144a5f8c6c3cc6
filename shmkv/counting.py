"""`incr` for the shell and HTTP: it counts in ints as `Store.incr` does, and in decimal digits as Redis does.

A value that was set from a shell is bytes: b"41" counts as 41, and becomes b"42".  Digits keep their kind (bytes or
str), their content type and their expiry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shmkv import forms
from shmkv.errors import LockTimeoutError

if TYPE_CHECKING:
    from shmkv import Store

_MIN: Final = -(1 << 63)
_MAX: Final = (1 << 63) - 1
_THAT_VERSION: Final = 3  # condition of Store._place: that version only
_ROUNDS: Final = 10_000  # of compare and set, each lost to another writer who went on


def incr(store: Store, key: str | bytes, delta: int = 1, initial: int = 0, ttl: float | None = None) -> int:
    """Add to a number; create it at `initial + delta`, with `ttl` seconds, where there is none.

    Atomicity: no increment is lost; of an int one step, of digits compare and set.

    Raises:
        TypeError: the value is neither an int nor decimal digits.
        OverflowError: not in signed 64 bits, before or after; nothing has changed.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     store["visits"] = b"41"
    ...     incr(store, "visits"), store["visits"]
    (42, b'42')
    """
    for _ in range(_ROUNDS):
        try:
            return store.incr(key, delta, initial, ttl)
        except TypeError:
            result = _incr_digits(store, key, delta)
            if result is not None:
                return result
    raise LockTimeoutError(f"others changed {key!r} all the time: try again")


def _incr_digits(store: Store, key: str | bytes, delta: int) -> int | None:
    """None: it is an int by now, or gone, or another writer was faster."""
    record = store._fetch(key)
    if record is None or record[0] == forms.INT:
        return None
    number = _number(record[0], record[1])
    result = number + delta
    if not (_MIN <= number <= _MAX and _MIN <= result <= _MAX):
        raise OverflowError(f"{number} + {delta} does not fit in 64 signed bits")
    digits = str(result)
    value = digits if record[0] == forms.STR else digits.encode()
    ttl = forms.seconds_left(record, store._now_ms())
    placed = store._place(key, value, ttl, record[2], _THAT_VERSION, record[3])
    return None if placed is None else result


def _number(kind: int, payload: bytes) -> int:
    if kind in (forms.BYTES, forms.TYPED, forms.STR) and 0 < len(payload) <= 20:
        digits = payload.removeprefix(b"-")
        if digits.isdigit() and digits.isascii():
            return int(payload)
    raise TypeError(f"the value is no number: it is {forms.type_name(kind)}")

"""What commands work on: a store of this machine and a server's are asked the same, and answer the same.

Items travel as records (`_core.Record`), from which forms.py makes bytes for a shell and forms for `--json`: so
that what a command prints does not depend on where the store is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from typing_extensions import Self

    from shmkv._core import Record
    from shmkv.filling import Fact
    from shmkv.forms import Item, Key

Only = Literal["absent", "present"]

LoadTsv = Callable[[memoryview, int, int, int], tuple[int, int, int, list[tuple[int, str]]]]
"""`Store._load_tsv`."""

BATCH: Final = 1_000  # items to a batch where a command sends many


class Target(Protocol):
    """A store, wherever it is.  A context manager; errors are those of `shmkv.errors` and of `cli.main`."""

    @property
    def label(self) -> str:
        """How the user named it."""

    def now_ms(self) -> int:
        """The time to which `expires_ms` of a record belongs."""

    def fetch(self, keys: Sequence[Key]) -> dict[Key, Record]:
        """Those that are there, in one consistent snapshot."""

    def put(self, items: Sequence[Item]) -> None:
        """All of them or none, seen by every reader at once."""

    def place(self, item: Item, only: Only) -> bool:
        """Store it only if its key is absent, or only if it is present; False: it was not."""

    def delete(self, keys: Sequence[Key]) -> int:
        """Remove keys at one instant; how many there were."""

    def incr(self, key: Key, delta: int, initial: int, ttl: float | None) -> int:
        """Add to a number; ConditionError if it is none."""

    def ttl(self, key: Key) -> float | None:
        """Seconds left, None without an expiry; KeyError."""

    def keys(self, prefix: str | None) -> Iterator[Key]:
        """All keys, or those of type str that begin so; one that is there throughout comes exactly once."""

    def facts(self, prefix: str | None) -> Iterator[Fact]:
        """As `keys`, with what is known of each item without reading its value."""

    def range(
        self, start: str | None, stop: str | None, limit: int | None, reverse: bool
    ) -> Iterable[tuple[Key, Record]]:
        """Items with `start <= key < stop`, sorted by the bytes of their keys; keys of type str alone."""

    def stats(self) -> dict[str, Any]:
        """As `GET /stats` of docs/server.md."""

    def metrics(self) -> str:
        """The text that Prometheus reads."""

    def export(self) -> Iterator[bytes]:
        """The form of each item as a line of JSON."""

    def check(self) -> dict[str, Any]:
        """As `POST /check` of docs/server.md."""

    def size(self) -> int:
        """Bytes, the most that the store may take."""

    @property
    def load_tsv(self) -> LoadTsv | None:
        """The engine's own loader, where it is at hand."""

    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

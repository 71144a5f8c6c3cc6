"""A server's store, as the commands ask it: docs/server.md from the other side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from shmkv import forms
from shmkv.cli.connection import Connection, path_of, understanding, with_query
from shmkv.cli.main import UsageError
from shmkv.filling import Fact

if TYPE_CHECKING:
    from typing_extensions import Self

    from shmkv._core import Record
    from shmkv.cli.target import Only
    from shmkv.forms import Item, Key

_KEYS: Final = ("key", "key_base64")
_PAGE: Final = 1_000  # keys or items to a page
# Records from a server need some time to which their expiry belongs; it never passes, so that a form that is made of
# one again says what the answer said.
_NOW_MS: Final = 1


class RemoteTarget:
    """Over a `Connection`, which it closes."""

    def __init__(self, url: str, token_file: str | None = None) -> None:
        self.label = url
        self._server = Connection(url, token_file)

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now_ms(self) -> int:
        return _NOW_MS

    # ---- Items -----------------------------------------------------------------------------

    def fetch(self, keys: Sequence[Key]) -> dict[Key, Record]:
        answer = self._server.ask_json("POST", "/kv", {"get": [_key_in_batch(key) for key in keys]})
        with understanding():
            return dict(map(_record_of, answer["items"]))

    def put(self, items: Sequence[Item]) -> None:
        self._server.ask_json("POST", "/kv", {"set": [_form_of(item) for item in items]})

    def place(self, item: Item, only: Only) -> bool:
        answer = self._server.ask_json("POST", "/kv", {"set": [_form_of(item)], "only": only})
        with understanding():
            return bool(answer["stored"])

    def delete(self, keys: Sequence[Key]) -> int:
        answer = self._server.ask_json("POST", "/kv", {"delete": [_key_in_batch(key) for key in keys]})
        with understanding():
            return int(answer["deleted"])

    def incr(self, key: Key, delta: int, initial: int, ttl: float | None) -> int:
        body = {"delta": delta, "initial": initial, **({} if ttl is None else {"ttl": ttl})}
        answer = self._server.ask_json("POST", path_of(_in_path(key), behind="/incr"), body)
        with understanding():
            return int(answer["value"])

    def ttl(self, key: Key) -> float | None:
        if isinstance(key, str):
            answer = self._server.ask("HEAD", path_of(key))
            if answer.status == 200:
                left = answer.headers.get("Shmkv-TTL")
                with understanding():
                    return None if left is None else float(left)
        # A bytes key, a value that HTTP has no body for, or a problem: the item's form, or the answer, says it.
        record = self.fetch([key]).get(key)
        if record is None:
            raise KeyError(key)
        return forms.seconds_left(record, _NOW_MS)

    # ---- Many of them ----------------------------------------------------------------------

    def keys(self, prefix: str | None) -> Iterator[Key]:
        return (fact.key for fact in self.facts(prefix))

    def facts(self, prefix: str | None) -> Iterator[Fact]:
        for page in self._pages("/kv", prefix=prefix, limit=_PAGE):
            with understanding():
                facts = list(map(_fact_of, page["keys"]))
            yield from facts

    def range(
        self, start: str | None, stop: str | None, limit: int | None, reverse: bool
    ) -> Iterable[tuple[Key, Record]]:
        if reverse:
            raise UsageError("--reverse works on a store of this machine only: a server gives ranges from the first on")
        return self._range(start, stop, limit)

    def _range(self, start: str | None, stop: str | None, limit: int | None) -> Iterator[tuple[Key, Record]]:
        left = limit
        if left == 0:
            return
        size = _PAGE if left is None else min(left, _PAGE)
        for page in self._pages("/read_key_range/", start=start, end=stop, limit=size):
            with understanding():
                records = list(map(_record_of, page["items"][:left]))
            yield from records
            if left is not None:
                left -= len(records)
                if left <= 0:
                    return

    def _pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._server.ask("GET", with_query(path, **query, cursor=cursor)).json()
            yield page
            with understanding():
                cursor = page["cursor"]
            if cursor is None:
                return

    def export(self) -> Iterator[bytes]:
        return self._server.lines("/export")

    # ---- About the store -------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        return self._object("GET", "/stats", "items", "processes")

    def metrics(self) -> str:
        answer = self._server.ask("GET", "/metrics")
        with understanding():
            return answer.body.decode()

    def check(self) -> dict[str, Any]:
        return self._object("POST", "/check", "problems")

    def _object(self, method: str, path: str, *names: str) -> dict[str, Any]:
        """An answer that has these, and whatever else."""
        answer: dict[str, Any] = self._server.ask(method, path).json()
        with understanding():
            return {**{name: answer[name] for name in names}, **answer}

    # ---- import ----------------------------------------------------------------------------

    load_tsv = None  # it takes the engine to the store

    def size(self) -> int:
        with understanding():
            return int(self.stats()["size"])


# ---- Forms ---------------------------------------------------------------------------------------


def _fact_of(found: dict[str, Any]) -> Fact:
    key = forms.key_of({name: found[name] for name in _KEYS if name in found})
    return Fact(key, found["type"], found["bytes"], found.get("ttl"))


def _key_in_batch(key: Key) -> str | dict[str, str]:
    return key if isinstance(key, str) else forms.key_form(key)


def _in_path(key: Key) -> str:
    if isinstance(key, str):
        return key
    raise UsageError(f"over the network this works with str keys only, and {key!r} is bytes")


def _form_of(item: Item) -> dict[str, Any]:
    """What `forms.item_of` reads as this item."""
    form = forms.exact_form_of(item[0], forms.record_of(item, 0), _NOW_MS)
    return form if item[2] is None else {**form, "ttl": item[2]}


def _record_of(form: dict[str, Any]) -> tuple[Key, Record]:
    """An item as a local store would have given it."""
    item = forms.item_of(form)
    return item[0], forms.record_of(item, _expires_ms(item[2]))


def _expires_ms(ttl: float | None) -> int:
    return 0 if ttl is None else _NOW_MS + round(ttl * 1000)

"""A store of this machine, as the commands ask it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from shmkv.cli.main import ConditionError

if TYPE_CHECKING:
    from typing_extensions import Self

    from shmkv import Store
    from shmkv._core import Record
    from shmkv.cli.target import LoadTsv, Only
    from shmkv.filling import Fact
    from shmkv.forms import Item, Key

_ABSENT, _PRESENT = 1, 2  # conditions of Store._place


class LocalTarget:
    """Over a `Store`, which it closes."""

    def __init__(self, store: Store, label: str) -> None:
        self.store = store
        self.label = label

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def now_ms(self) -> int:
        return self.store._now_ms()

    # ---- Items -----------------------------------------------------------------------------

    def fetch(self, keys: Sequence[Key]) -> dict[Key, Record]:
        return self.store._fetch_many(keys)

    def put(self, items: Sequence[Item]) -> None:
        self.store._put_items(items)

    def place(self, item: Item, only: Only) -> bool:
        key, value, ttl, content_type = item
        condition = _ABSENT if only == "absent" else _PRESENT
        return self.store._place(key, value, ttl, content_type, condition, 0) is not None

    def delete(self, keys: Sequence[Key]) -> int:
        return self.store.delete_many(keys)

    def incr(self, key: Key, delta: int, initial: int, ttl: float | None) -> int:
        from shmkv.counting import incr

        try:
            return incr(self.store, key, delta, initial, ttl)
        except (TypeError, OverflowError) as error:
            raise ConditionError(str(error)) from error

    def ttl(self, key: Key) -> float | None:
        return self.store.ttl(key)

    # ---- Many of them ----------------------------------------------------------------------

    def keys(self, prefix: str | None) -> Iterator[Key]:
        return self.store.scan(prefix)

    def facts(self, prefix: str | None) -> Iterator[Fact]:
        from shmkv.filling import Fact
        from shmkv.forms import ttl_of, type_name

        bucket, buckets, now_ms = 0, self.store._opened().bucket_count, self.store._now_ms()
        while bucket < buckets:
            bucket, found = self.store._walk_facts(bucket, prefix or None)
            for key, kind, size, expires_ms in found:
                yield Fact(key, type_name(kind), size, ttl_of(expires_ms, now_ms))

    def range(
        self, start: str | None, stop: str | None, limit: int | None, reverse: bool
    ) -> Iterable[tuple[Key, Record]]:
        # With a bound, if only the one that all texts lie behind: keys of type str alone.
        return self.store._range_records("" if start is None else start, stop, limit, reverse)

    def export(self) -> Iterator[bytes]:
        from json import JSONEncoder

        from shmkv.forms import exact_form_of

        encode = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
        for key, record in self._records():
            yield encode(exact_form_of(key, record, self.store._now_ms())).encode()

    def _records(self) -> Iterator[tuple[Key, Record]]:
        """Each bucket at one instant."""
        bucket, buckets = 0, self.store._opened().bucket_count
        while bucket < buckets:
            bucket, records = self.store._walk_records(bucket, None, None)
            yield from records

    # ---- About the store -------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        from shmkv.exposition import stats_of

        return stats_of(self.store)

    def metrics(self) -> str:
        from shmkv.exposition import label_of, of_store, render, store_families

        return render(of_store(store_families(self.store.stats()), label_of(self.store)))

    def check(self) -> dict[str, Any]:
        from dataclasses import asdict

        report = self.store.check()
        return {"ok": report.ok, **asdict(report)}

    # ---- import ----------------------------------------------------------------------------

    def size(self) -> int:
        return self.store.size

    @property
    def load_tsv(self) -> LoadTsv:
        return self.store._load_tsv

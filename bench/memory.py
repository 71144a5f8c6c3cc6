"""Bytes per entry: one store, made for 12,000,000 entries, at 6, 8, 10 and 12 million.

    python -m bench.memory [--keys N] [--rounds R]

One process creates a store of 1 GiB (scaled with --keys), puts new pairs (`user:%08d`, 16 bytes) one after
the other, and at each step adds up everything: the blocks of the region in /dev/shm (st_blocks), and the
growth of its own (anonymous) memory since before the store was made.  The bytes of keys and values are taken
off, the rest is divided by the number of entries.  `put_many` of 1,000, as single puts fill the same pages.

What this does not say: the figure holds for these sizes of keys and values.  A record is rounded up to 16
bytes, larger ones to a size class (8 per doubling), so longer values pay some per cent of their size.
"""

from __future__ import annotations

import gc
import os
from typing import Any, Final

from bench.harness import Child, Result, Row, arguments, pin_to, private_bytes, region_blocks
from shmkv.workload.keys import KEY_BYTES, keys_of

KEYS: Final = 12_000_000
SIZE: Final = 1 << 30  # for KEYS entries
LEAST_SIZE: Final = 16 << 20  # in a small store each page that is not full counts
VALUE_BYTES: Final = 16
STEPS: Final = (6, 8, 10, 12)  # twelfths
BATCH: Final = 1_000
BAR: Final = 50.0


class Loader:
    """The child that owns the store and counts itself."""

    def __init__(self, size: int) -> None:
        from shmkv import Store

        self.loaded = 0
        self._put_some_elsewhere(Store)
        gc.collect()
        self.before = private_bytes()
        self.store = Store.create(f"memory.{os.getpid()}", size)

    def _put_some_elsewhere(self, store_class: Any) -> None:
        """So that what the interpreter takes once, for the first calls, is not counted as the store's."""
        with store_class() as other:
            self._put(other, 0, 10 * BATCH)

    def load_to(self, keys: int) -> dict[str, int]:
        """Put new keys until there are `keys`; answers what everything takes."""
        self._put(self.store, self.loaded, keys)
        self.loaded = keys
        gc.collect()
        stats = self.store.stats()
        return {
            "region": region_blocks(self.store.name),
            "private": private_bytes() - self.before,
            "used": stats.used,
            "committed": stats.committed,
            "tables": stats.table_bytes,
            "items": len(self.store),
        }

    def _put(self, store: Any, first: int, end: int) -> None:
        for begin in range(first, end, BATCH):
            indexes = range(begin, min(begin + BATCH, end))
            store.put_many(list(zip(keys_of(indexes), map(b"%016d".__mod__, indexes), strict=True)))

    def close(self) -> None:
        self.store.unlink()
        self.store.close()


def main() -> None:
    args = arguments(__doc__, KEYS, 1).parse_args()
    size = max(SIZE * args.keys // KEYS, LEAST_SIZE)
    result = Result("memory", args.keys == KEYS, args.results, details={"size": size, "steps": []})
    for number in range(args.rounds):
        with Child("bench.memory:Loader", pin_to()[0], size) as loader:
            for step in STEPS:
                keys = args.keys * step // STEPS[-1]
                taken = loader.ask("load_to", keys)
                result.details["steps"].append({"round": number, "keys": keys, **taken})
                assert taken["items"] == keys, "every key that was put is there"
                everything = taken["region"] + taken["private"]
                beyond = everything / keys - KEY_BYTES - VALUE_BYTES
                note = f"region {taken['region']:,}, private {taken['private']:,}, tables {taken['tables']:,} bytes"
                result.add(Row(f"bytes per entry beyond key and value, {keys:,} entries", beyond, "B", BAR, note=note))
    result.write()


if __name__ == "__main__":
    main()

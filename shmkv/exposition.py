"""Numbers of a store for those outside of Python: as JSON, and as Prometheus reads them.

What: what `/stats` and `shmkv stats`, `/metrics` and `shmkv metrics` say of a store, under the same names from a server
      and from a shell, and the text of any family.
How:  the text format 0.0.4 in plain Python, so that a shell needs no client library for a page of text.
      https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from shmkv import Store
    from shmkv.reports import StoreStats

UNSEEN: Final = "unseen"  # the status of a process that lives in another pid namespace
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPED_IN_HELP: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
_ESCAPED_IN_LABEL: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class Sample(NamedTuple):
    """One line: a value under its labels, and under a suffix of the family's name (a histogram's "_bucket")."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Family(NamedTuple):
    """All samples of one name, with what they mean."""

    name: str  # of a counter: ends in _total
    kind: str  # "counter", "gauge", "histogram"
    help: str
    samples: tuple[Sample, ...]


# ---- As JSON ---------------------------------------------------------------------------------


def stats_of(store: Store) -> dict[str, Any]:
    """A store's names, every number of `Store.stats()`, and the processes that are attached.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     told = stats_of(store)
    ...     told["items"], told["hit_rate"], told["attached"], len(told["processes"])
    (0, 0.0, 1, 1)
    """
    from dataclasses import asdict

    from shmkv.filling import fill_of

    stats = store.stats()
    fill = fill_of(stats, store._opened().evict)
    numbers = asdict(stats)
    count = numbers.pop("processes")
    return {
        "name": store.name,
        "path": None if store.path is None else str(store.path),
        "uuid": str(store.uuid),
        "readonly": store.readonly,
        "on_full": "error" if fill.refuses else "evict",
        **numbers,
        "limit": fill.limit,
        "fill": round(fill.share, 4),
        "nearly_full": fill.is_nearly_full,
        "attached": count,
        "hit_rate": stats.hit_rate,
        "processes": [
            {"slot": one.slot, "pid": one.pid, "name": one.name, "status": one.status or UNSEEN}
            for one in store.processes()
        ],
    }


# ---- The store's families --------------------------------------------------------------------


def store_families(stats: StoreStats) -> list[Family]:
    """What `Store.stats()` says, as families.

    Counters cover every process that ever used the store, and go on counting when a server is started anew.

    >>> from shmkv import Store
    >>> with Store() as store:
    ...     store["key"] = b"value"
    ...     print(render(store_families(store.stats())[:1]), end="")
    # HELP shmkv_items Items in the store, expired ones not counted.
    # TYPE shmkv_items gauge
    shmkv_items 1
    """
    return [
        _gauge("shmkv_items", "Items in the store, expired ones not counted.", stats.items),
        _gauge("shmkv_value_bytes", "Bytes of the live values, as stored.", stats.value_bytes),
        _operations(stats),
        _counter("shmkv_expired_total", "Items dropped because their time had come.", stats.expired),
        _counter("shmkv_evicted_total", "Items dropped to make room.", stats.evicted),
        _gauge("shmkv_attached_processes", "Processes attached with the right to write.", stats.processes),
        _gauge("shmkv_size_bytes", "The most memory that the store may take.", stats.size),
        _gauge("shmkv_committed_bytes", "Memory that the store takes from the system.", stats.committed),
        _gauge("shmkv_used_bytes", "The part of the committed memory that is in use.", stats.used),
        _gauge("shmkv_table_bytes", "The part of the used memory that is tables.", stats.table_bytes),
        _gauge("shmkv_stale", "1: the store's name leads to another store by now, or to none.", int(stats.stale)),
        _gauge("shmkv_buckets", "Buckets of the store.", stats.buckets),
        _counter("shmkv_read_retries_total", "Reads repeated because a writer had been there.", stats.retries),
        _counter("shmkv_lock_waits_total", "Writes that had to wait for another writer.", stats.lock_waits),
    ]


def _operations(stats: StoreStats) -> Family:
    counts = {
        ("get", "hit"): stats.hits,
        ("get", "miss"): stats.misses,
        ("set", "stored"): stats.sets,
        ("delete", "deleted"): stats.deletes,
    }
    samples = tuple(Sample(count, {"op": op, "result": result}) for (op, result), count in counts.items())
    return Family("shmkv_operations_total", "counter", "Keys looked up, stored and deleted, by all processes.", samples)


def _gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, (Sample(value),))


def _counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, (Sample(value),))


def label_of(store: Store) -> str:
    """What tells a store's numbers from another one's: its name, or of a durable store its directory."""
    return store.name if store.path is None else str(store.path)


def of_store(families: Iterable[Family], label: str) -> list[Family]:
    """The families with the label `store` in front of all others, so that a page may hold those of several stores.

    >>> print(render(of_store([_gauge("x", "What.", 1)], "shop")), end="")
    # HELP x What.
    # TYPE x gauge
    x{store="shop"} 1
    """
    return [
        family._replace(
            samples=tuple(sample._replace(labels={"store": label, **sample.labels}) for sample in family.samples)
        )
        for family in families
    ]


# ---- The text --------------------------------------------------------------------------------


def render(families: Iterable[Family]) -> str:
    """Families as text; each name may come once.

    >>> print(render([Family("x_total", "counter", "What.", (Sample(2, {"who": 'a"b'}),))]), end="")
    # HELP x_total What.
    # TYPE x_total counter
    x_total{who="a\\"b"} 2
    """
    return "".join(_lines(family) for family in families)


def _lines(family: Family) -> str:
    head = f"# HELP {family.name} {family.help.translate(_ESCAPED_IN_HELP)}\n# TYPE {family.name} {family.kind}\n"
    return head + "".join(
        f"{family.name}{sample.suffix}{_labels(sample.labels)} {_number(sample.value)}\n" for sample in family.samples
    )


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPED_IN_LABEL)}"' for name, value in labels.items()) + "}"


def _number(value: float) -> str:
    """
    >>> _number(5), _number(0.25), _number(math.inf)
    ('5', '0.25', '+Inf')
    """
    if isinstance(value, int) or math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


# ---- Reading it --------------------------------------------------------------------------------

_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: -?\d+)?", re.ASCII)
_LABEL: Final = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)",?', re.ASCII)
_ESCAPE: Final = re.compile(r"\\(.)")


def samples_in(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """(name, labels, value) of each sample in a page of metrics, of any server.

    >>> list(samples_in('# TYPE x gauge\\nx{who="a\\\\"b"} 2\\n'))
    [('x', {'who': 'a"b'}, 2.0)]
    """
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line)
        if match:
            labels = {name: _unescaped(value) for name, value in _LABEL.findall(match[2] or "")}
            yield match[1], labels, float(match[3])


def _unescaped(value: str) -> str:
    return _ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], value)

"""`/metrics`: the store's numbers, exact over all processes, and how long requests took, over all workers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from shmkv import Store
from shmkv.exposition import CONTENT_TYPE, Family, Sample, of_store, render, store_families
from shmkv.server.observe import BOUNDS_S, Observer, Times

TYPE: Final = CONTENT_TYPE.encode()


def page(store: Store | None, observer: Observer, label: str) -> bytes:
    """All families as text; without a store, those of the requests alone.

    Args:
        label: what tells this store's samples, and those of its requests, from another one's.
    """
    families = [] if store is None else store_families(store.stats())
    return render(of_store([*families, _request_family(observer.times())], label)).encode()


def _request_family(times: Iterable[Times]) -> Family:
    samples = tuple(sample for each in times for sample in _samples(each))
    return Family("shmkv_request_seconds", "histogram", "From a request's head to its answer, by route.", samples)


def _samples(times: Times) -> Iterable[Sample]:
    labels = {"route": times.route, "method": times.method, "status": times.status}
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    total = 0
    for bound, total in zip(bounds, accumulate(times.counts), strict=True):
        yield Sample(total, {**labels, "le": bound}, "_bucket")
    yield Sample(times.seconds, labels, "_sum")
    yield Sample(total, labels, "_count")

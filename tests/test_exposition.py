"""The metrics' text: Prometheus' own reader gets back what was said, and the numbers are those of the store."""

from __future__ import annotations

import doctest
import math
import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shmkv import Store, exposition
from shmkv.exposition import Family, Sample, render, store_families


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, as Prometheus' reader understands it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(exposition).failed == 0


def test_the_store_as_its_stats_say(store: Store) -> None:
    store.update({"a": b"1", "b": b"22"})
    store.get("a"), store.get("nothing")
    store.delete("b")
    stats = store.stats()
    told = read(render(store_families(stats)))
    assert told[("shmkv_items", ())] == 1
    assert told[("shmkv_value_bytes", ())] == 1
    assert told[("shmkv_operations_total", (("op", "get"), ("result", "hit")))] == 1
    assert told[("shmkv_operations_total", (("op", "get"), ("result", "miss")))] == 1
    assert told[("shmkv_operations_total", (("op", "set"), ("result", "stored")))] == 2
    assert told[("shmkv_operations_total", (("op", "delete"), ("result", "deleted")))] == 1
    for name in ("size", "committed", "used", "table"):
        assert told[(f"shmkv_{name}_bytes", ())] == getattr(stats, "table_bytes" if name == "table" else name)
    assert told[("shmkv_buckets", ())] == stats.buckets
    assert told[("shmkv_attached_processes", ())] == 1
    assert told[("shmkv_stale", ())] == 0
    assert len(told) == 17


def test_families_keep_their_kind_and_their_help(store: Store) -> None:
    families = store_families(store.stats())
    told = {family.name: family for family in text_string_to_metric_families(render(families))}
    assert len(told) == len(families)
    for family in families:
        # The reader names a counter without the suffix that it must have in the text.
        back = told[family.name.removesuffix("_total")]
        assert (back.type, back.documentation) == (family.kind, family.help)
        assert (family.kind == "counter") == family.name.endswith("_total")


@pytest.mark.parametrize("value", [0, 1, 1 << 62, 0.1, 1e300, -2.5, math.inf, -math.inf, math.nan])
def test_numbers_come_back(value: float) -> None:
    [back] = read(render([Family("x", "gauge", "", (Sample(value),))])).values()
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_any_text_in_labels_and_help_comes_back(rng: random.Random) -> None:
    for _ in range(300):
        text = "".join(rng.choice('\\"\nn{},= é€') for _ in range(rng.randrange(8)))
        [family] = text_string_to_metric_families(
            render([Family("x", "gauge", f"h{text}.", (Sample(1, {"l": text}),))])
        )
        assert family.documentation == f"h{text}."
        assert family.samples[0].labels == {"l": text}


def test_a_histogram_has_its_suffixes() -> None:
    samples = (Sample(1, {"le": "0.5"}, "_bucket"), Sample(2, {"le": "+Inf"}, "_bucket"), Sample(2, {}, "_count"))
    [family] = text_string_to_metric_families(render([Family("h", "histogram", "H.", samples)]))
    assert [sample.name for sample in family.samples] == ["h_bucket", "h_bucket", "h_count"]

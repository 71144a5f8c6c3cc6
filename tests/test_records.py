"""What the server and exports read and write: records as they are stored, and writes that tell what became of them."""

from __future__ import annotations

import pytest

from shmkv import CodecError, KeyTooLargeError, Store, _core

ANY, ABSENT, PRESENT, VERSION = range(4)
INT, BYTES, TYPED = 3, 1, 17


def walk(store: Store, how: str, *bounds: str | bytes | None) -> list[tuple[object, ...]]:
    found, bucket = [], 0
    while bucket < store._opened().bucket_count:
        bucket, more = getattr(store, how)(bucket, *bounds)
        found += more
    return found


def test_fetch_gives_bytes_their_content_type_and_the_version(store: Store) -> None:
    store.put("page", b"<p>", ttl=60, content_type="text/html")
    kind, payload, content_type, version, expires_ms = store._fetch("page") or (0, b"", None, 0, 0)
    assert (kind, payload, content_type) == (TYPED, b"<p>", "text/html")
    assert version == store.gets("page").version
    assert 59_000 < expires_ms - store._now_ms() <= 60_000


@pytest.mark.parametrize("value", [b"", b"x" * 100_000, "täxt", 7, 1 << 80, 1.5, None, [1, (2,)], {"a": {3}}])
def test_a_record_decodes_to_the_value(store: Store, value: object) -> None:
    store["key"] = value
    record = store._fetch("key")
    assert record is not None
    assert record[2:] == (None, store.gets("key").version, 0)
    assert _core.decode_safe(record[0], record[1]) == value


def test_an_empty_content_type_is_none(store: Store) -> None:
    store.put("key", b"value", content_type="")
    assert store._fetch("key") == (TYPED, b"value", None, store.gets("key").version, 0)


def test_fetch_counts_as_a_get_does(store: Store) -> None:
    store["there"] = 1
    assert store._fetch("there") is not None
    assert store._fetch("away") is None
    assert store._fetch("\ud800") is None
    store._fetch_many(["there", "away"])
    stats = store.stats()
    assert (stats.hits, stats.misses) == (2, 2)


def test_fetch_leaves_what_it_cannot_decode_as_it_is(store: Store) -> None:
    other = Store.attach(store.name, codec="pickle")
    other["key"] = {1: object}
    with pytest.raises(CodecError):
        store.get("key")
    assert (store._fetch("key") or (0,))[0] == 33
    other.close()


def test_fetch_many_is_get_many_undecoded(store: Store) -> None:
    store.put("typed", b"1", content_type="a/b")
    store["int"] = 5
    store[b"raw"] = b"2"
    records = store._fetch_many(["typed", "int", b"raw", "away"])
    assert {key: record[:3] for key, record in records.items()} == {
        "typed": (TYPED, b"1", "a/b"),
        "int": (INT, (5).to_bytes(8, "little"), None),
        b"raw": (BYTES, b"2", None),
    }
    with pytest.raises(TypeError, match=r"_fetch_many\(\) takes several keys"):
        store._fetch_many("typed")


def test_place_tells_the_version_and_whether_an_item_was_replaced(store: Store) -> None:
    first = store._place("key", 1, None, None, ANY, 0)
    assert first == (store.gets("key").version, False)
    second = store._place("key", b"2", 5, "a/b", ANY, 0)
    assert second == (store.gets("key").version, True)
    assert store.content_type("key") == "a/b"
    assert store.ttl("key") is not None


def test_an_expired_item_is_not_replaced_but_new(store: Store) -> None:
    store.put("key", 1, ttl=1)
    store._set_clock(store._now_ms() + 1_000)
    placed = store._place("key", 2, None, None, ANY, 0)
    assert placed is not None
    assert not placed[1]


def test_place_changes_nothing_where_its_condition_does_not_hold(store: Store) -> None:
    assert store._place("key", 1, None, None, PRESENT, 0) is None
    assert store._place("key", 1, None, None, VERSION, 5) is None
    made = store._place("key", 1, None, None, ABSENT, 0)
    assert made is not None
    assert store._place("key", 2, None, None, ABSENT, 0) is None
    assert store._place("key", 2, None, None, VERSION, made[0] + 1) is None
    assert store["key"] == 1
    assert store._place("key", 2, None, None, VERSION, made[0]) is not None
    assert store["key"] == 2


def test_place_refuses_what_put_refuses(store: Store) -> None:
    with pytest.raises(KeyTooLargeError):
        store._place("k" * 70_000, 1, None, None, ANY, 0)
    with pytest.raises(ValueError, match="ttl"):
        store._place("key", 1, -1, None, ANY, 0)
    with pytest.raises(TypeError, match="content_type"):
        store._place("key", "text", None, "a/b", ANY, 0)
    with pytest.raises(ValueError, match="condition"):
        store._place("key", 1, None, None, 4, 0)
    assert len(store) == 0


def test_put_items_gives_each_its_ttl_and_content_type(store: Store) -> None:
    store._put_items([("a", b"1", 5, "a/b"), (b"b", 2, None, None), ("c", [3], 7.5, None)])
    assert store.get_many(["a", b"b", "c"]) == {"a": b"1", b"b": 2, "c": [3]}
    assert store.content_type("a") == "a/b"
    assert store.ttl(b"b") is None
    assert 4 < (store.ttl("a") or 0) <= 5 < (store.ttl("c") or 0) <= 7.5


def test_put_items_stores_all_or_none(store: Store) -> None:
    for wrong in ((1, 2, None, None), ("b", 2, -1, None), ("b", "x", None, "a/b"), ("b", object(), None, None)):
        with pytest.raises((TypeError, ValueError)):
            store._put_items([("a", 1, None, None), wrong])
    for no_items in ([("a", 1)], [["a", 1, None, None]]):
        with pytest.raises(TypeError, match="tuples"):
            store._put_items(no_items)  # type: ignore[arg-type]
    store._put_items([])
    assert len(store) == 0


def test_walks_by_bucket_give_facts_and_records(store: Store) -> None:
    store.put("user:1", b"12345", content_type="a/b", ttl=5)
    store["user:2"] = "text"
    store[b"user:3"] = b""
    store["job"] = 1
    facts = {key: (kind, size) for key, kind, size, _ in walk(store, "_walk_facts", "user:")}
    assert facts == {"user:1": (TYPED, 9), "user:2": (2, 4)}
    assert {key for key, *_ in walk(store, "_walk_facts", b"user:")} == {b"user:3"}
    records = dict(walk(store, "_walk_records", None, None))
    assert records == store._fetch_many(["user:1", "user:2", b"user:3", "job"])
    assert [key for key, _ in walk(store, "_walk_records", "k", "user:2")] == ["user:1"]


def test_a_walk_that_finds_nothing_makes_few_calls(store: Store) -> None:
    store["key"] = 1
    calls, bucket = 0, 0
    while bucket < store._opened().bucket_count:
        bucket, keys = store._walk_keys(bucket, "other")
        calls += 1
        assert keys == []
    assert calls <= store._opened().bucket_count // 1024 + 1
    with pytest.raises(IndexError):
        store._walk_keys(bucket, None)


def test_a_range_of_records_is_sorted_and_limited(store: Store) -> None:
    store.update({f"k{i:03}": i for i in range(500)})
    assert [key for key, _ in store._range_records("k100", "k9", 3)] == ["k100", "k101", "k102"]
    assert [key for key, _ in store._range_records("k1", "k103", 2, True)] == ["k102", "k101"]

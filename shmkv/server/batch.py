"""POST /kv: one atomic batch, as JSON or MessagePack; GET /kv: a page of keys."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from shmkv import Store, forms
from shmkv.server.backend import Backend
from shmkv.server.body import JSON_TYPE, MSGPACK_TYPES, Receive, from_json, from_msgpack, media_type, read_body
from shmkv.server.kv import HEADERS
from shmkv.server.paths import number_of, query_of
from shmkv.server.problems import RefusedError, Reply
from shmkv.server.settings import Settings

MOST_ITEMS: Final = 65_536
PAGE_KEYS: Final = 1_000
MOST_PAGE_KEYS: Final = 10_000
_LONG: Final = 100  # items from which on a batch is worth a thread
_IS_CODE: Final = (
    "what a pickle or a codec object made runs as code in those who read it: this server takes it only if it was "
    "started with --allow-pickle"
)
_CONDITIONS: Final = {"absent": 1, "present": 2}  # of Store._place


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one of set, get and delete; `only` belongs to a set of one item."""

    set: list[Any] | None = None
    only: Literal["absent", "present"] | msgspec.UnsetType = msgspec.UNSET
    get: list[Any] | None = None
    delete: list[Any] | None = None


async def handle(backend: Backend, scope: dict[str, Any], receive: Receive, settings: Settings) -> Reply:
    """Answer a request to /kv itself."""
    if scope["method"] == "GET":
        return await _page(backend, scope)
    if scope["method"] != "POST":
        raise RefusedError(405, f"{scope['method']} is not for /kv", [(b"allow", b"GET, POST")])
    query_of(scope, ())
    kind = media_type(scope[HEADERS])
    if kind == JSON_TYPE:
        packed = False
    elif kind in MSGPACK_TYPES:
        packed = True
    else:
        raise RefusedError(415, "a batch is application/json or application/msgpack: say so in Content-Type")
    body = await read_body(receive, settings.max_body)
    asked = from_msgpack(body, Batch) if packed else from_json(body, Batch)
    answer = await _run(backend, asked, packed, settings.allow_pickle)
    if packed:
        return 200, [(b"content-type", MSGPACK_TYPES[0])], msgspec.msgpack.encode(answer)
    return 200, [(b"content-type", JSON_TYPE)], msgspec.json.encode(answer)


async def _run(backend: Backend, asked: Batch, packed: bool, takes_code: bool) -> dict[str, Any]:
    given = [name for name in ("set", "get", "delete") if getattr(asked, name) is not None]
    if len(given) != 1:
        raise RefusedError(
            422, f"a batch has exactly one of set, get and delete, this one {', '.join(given) or 'none'}"
        )
    size = len(getattr(asked, given[0]))
    if size > MOST_ITEMS:
        raise RefusedError(422, f"a batch takes at most {MOST_ITEMS:,} items, not {size:,}")
    if asked.only is not msgspec.UNSET and (asked.set is None or size != 1):
        raise RefusedError(422, "only belongs to a set of one item: several have no condition in common")
    if asked.set is not None:
        return await _set(backend, _items_of(asked.set, takes_code), asked.only or None)
    if asked.get is not None:
        return await _get(backend, asked.get, packed)
    keys = [forms.key_of(key) for key in asked.delete or ()]
    deleted = await backend.write(lambda store: store.delete_many(keys), long=len(keys) > _LONG)
    return {"deleted": deleted}


def _items_of(given: list[Any], takes_code: bool) -> list[forms.Item]:
    """The items that forms say.

    Args:
        takes_code: what a pickle or a codec object made too.  A client that may store a pickle may run code in every
            process that reads it: who has a token for values has none for that, unless the server was told so.
    """
    items = []
    for at, form in enumerate(given):
        try:
            items.append(forms.item_of(form))
        except forms.FormError as error:
            raise RefusedError(422, f"set[{at}]: {error}") from error
        if not takes_code and forms.is_code(items[-1]):
            raise RefusedError(422, f"set[{at}]: {_IS_CODE}")
    return items


async def _set(backend: Backend, items: list[forms.Item], only: str | None) -> dict[str, Any]:
    if only is not None:
        condition = _CONDITIONS[only]
        placed = await backend.write(lambda store: store._place(*items[0], condition, 0))
        return {"stored": 0 if placed is None else 1}
    await backend.write(lambda store: store._put_items(items), long=len(items) > _LONG)
    return {"stored": len({item[0] for item in items})}


async def _get(backend: Backend, given: list[Any], packed: bool) -> dict[str, Any]:
    keys = [forms.key_of(key) for key in given]
    store = backend.store
    many = len(keys) > _LONG
    records = await backend.in_thread(store._fetch_many, keys) if many else store._fetch_many(keys)
    now = store._now_ms()
    form_of = forms.packed_form_of if packed else forms.form_of
    return {"items": [form_of(key, record, now) for key, record in records.items()]}


# ---- Keys, a page at a time ----------------------------------------------------------------


async def _page(backend: Backend, scope: dict[str, Any]) -> Reply:
    query = query_of(scope, ("prefix", "limit", "cursor"))
    limit = number_of(query, "limit", PAGE_KEYS, MOST_PAGE_KEYS)
    bucket = _bucket_of(backend, query.get("cursor"))
    keys, behind = await backend.in_thread(page_of, backend.store, query.get("prefix"), bucket, limit)
    cursor = None if behind is None else f"{backend.store.uuid.hex[:8]}-{behind}"
    return 200, [(b"content-type", JSON_TYPE)], msgspec.json.encode({"keys": keys, "cursor": cursor})


def page_of(store: Store, prefix: str | None, bucket: int, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Facts of about `limit` keys from a bucket on, and the bucket to go on with; None: that was all.

    Whole buckets: a key never changes its own, so that each that is there throughout comes exactly once.
    """
    now = store._now_ms()
    found: list[dict[str, Any]] = []
    buckets = store._opened().bucket_count
    while bucket < buckets and len(found) < limit:
        bucket, facts = store._walk_facts(bucket, prefix or None)
        for key, kind, size, expires_ms in facts:
            told = {**forms.key_form(key), "type": forms.type_name(kind), "bytes": size}
            if expires_ms:
                told["ttl"] = max(1, expires_ms - now) / 1000
            found.append(told)
    return found, bucket if bucket < buckets else None


def _bucket_of(backend: Backend, cursor: str | None) -> int:
    if cursor is None:
        return 0
    uuid, _, bucket = cursor.partition("-")
    if not (bucket.isascii() and bucket.isdigit() and len(bucket) <= 12):
        raise RefusedError(422, "that is no cursor of this server")
    if uuid != backend.store.uuid.hex[:8] or int(bucket) >= backend.store._opened().bucket_count:
        raise RefusedError(422, "the cursor belongs to another store: begin anew")
    return int(bucket)

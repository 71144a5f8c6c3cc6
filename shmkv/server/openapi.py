"""What /openapi.json says of each route: written down here, beside what FastAPI finds out by itself.

Bodies are read by msgspec and keys come straight from the path, so that FastAPI sees neither; and the binary routes are
not FastAPI's at all.  tests/test_server_schema.py holds all of it against the running server.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response

from shmkv.datastore import TTL_SECONDS
from shmkv.server.batch import MOST_ITEMS
from shmkv.server.mounting import root_of

Schema = dict[str, Any]

MOST_TTL_S: Final = 946_728_000  # 30 years

_ANY: Final[Schema] = {}
_STRING: Final[Schema] = {"type": "string"}
_TTL: Final[Schema] = {
    "type": ["number", "null"],
    "exclusiveMinimum": 0,
    "maximum": MOST_TTL_S,
    "description": "seconds",
}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_INT64: Final[Schema] = {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1}
_CURSOR: Final[Schema] = {"type": ["string", "null"]}
_OCTETS: Final[Schema] = {"type": "string", "format": "binary"}
_PROBLEM: Final[Schema] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {"type": _STRING, "title": _STRING, "status": _COUNT, "detail": _STRING, "error": _STRING},
}
_DETAILS: Final = {
    400: "no HTTP, percent-encoding or UTF-8, or another Host",
    401: "no token, or a wrong one",
    403: "from a page of another site",
    404: "there is no such key",
    405: "another method",
    406: "the value has no such form",
    409: "not with what is there",
    412: "the condition does not hold",
    413: "the body is too large",
    414: "the path is too long",
    415: "neither JSON nor MessagePack",
    422: "the store does not take it; says what",
    431: "the headers are too large",
    501: "a DataStore does not have it",
    503: "try again",
    507: "the store is full",
}
_ALWAYS: Final = (400, 401, 403, 422, 503)  # what any route may answer


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **optional},
            "additionalProperties": False}  # fmt: skip


_FORM: Final[Schema] = {
    "type": "object",
    "description": "an item: key or key_base64; value, base64, safe or codec; content_type; ttl",
    "properties": {
        "key": _STRING,
        "key_base64": {"type": "string", "contentEncoding": "base64"},
        "value": _ANY,
        "base64": {"type": "string", "contentEncoding": "base64"},
        "safe": {"type": "string", "contentEncoding": "base64"},
        "codec": _STRING,
        "stored": {"type": "string", "contentEncoding": "base64"},
        "python": _STRING,
        "content_type": _STRING,
        "ttl": {"type": "number"},
    },
}
_BASE64: Final[Schema] = {
    "type": "string",
    "contentEncoding": "base64",
    "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
_SECONDS: Final[Schema] = {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": MOST_TTL_S}
_CONTENT_TYPE: Final[Schema] = {"type": ["string", "null"], "pattern": "^[ -~]{0,255}$"}
_ITEM: Final[Schema] = {
    "description": "an item that is stored: one of its keys, one of its values",
    "oneOf": [
        _object({**key, **value}, ttl=_SECONDS, **more)
        for key in ({"key": _STRING}, {"key_base64": _BASE64})
        for value, more in (
            ({"value": _ANY}, {}),
            ({"base64": _BASE64}, {"content_type": _CONTENT_TYPE}),
            ({"safe": _BASE64}, {}),
        )
    ],
}
_PUT: Final = _object({"key": _STRING, "value": _ANY}, ttl=_TTL)
_KEY: Final[Schema] = {"anyOf": [_STRING, _object({"key": _STRING}), _object({"key_base64": _BASE64})]}
_ONLY: Final[Schema] = {"enum": ["absent", "present"]}
_BATCH: Final[Schema] = {
    "oneOf": [
        _object({"set": {"type": "array", "items": _ITEM, "maxItems": MOST_ITEMS}}),
        _object({"set": {"type": "array", "items": _ITEM, "minItems": 1, "maxItems": 1}, "only": _ONLY}),
        _object({"get": {"type": "array", "items": _KEY, "maxItems": MOST_ITEMS}}),
        _object({"delete": {"type": "array", "items": _KEY, "maxItems": MOST_ITEMS}}),
    ]
}
_KEY_FACTS: Final[Schema] = {"type": "object", "required": ["type", "bytes"]}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _answers(ok: dict[int, Schema | None], *problems: int) -> Schema:
    """`ok`: status to the content of its answer, None for one without a body."""
    told: Schema = {}
    for status, content in ok.items():
        told[str(status)] = {"description": "done", **({} if content is None else {"content": content})}
    for status in sorted({*problems, *_ALWAYS}):
        told[str(status)] = {
            "description": _DETAILS[status],
            "content": {"application/problem+json": {"schema": _PROBLEM}},
        }
    return told


def _body(schema: Schema, *, required: bool = True) -> Schema:
    return {"required": required, "content": _json(schema)}


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": _STRING, "description": description}


_KEY_IN_PATH: Final[Schema] = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "all of the path behind, percent-encoded",
    "schema": {"type": "string"},
}
_TTL_IN_QUERY: Final = _query("ttl", {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_TTL_S}, "seconds")
_ITEMS: Final = _object({"items": {"type": "array", "items": _FORM}, "cursor": _CURSOR})


def _limit(most: int) -> Schema:
    return _query("limit", {"type": "integer", "minimum": 1, "maximum": most}, "of a page")


Operations = dict[tuple[str, str], Schema]
"""(path, method) to an operation of OpenAPI."""

_RANGE: Final[Schema] = {
    "summary": "a span of keys, sorted, a page at a time",
    "parameters": [
        _query("start", _STRING, "the first key, inclusive"),
        _query("end", _STRING, "where to stop, exclusive"),
        _limit(1_000),
        _query("cursor", _STRING, "from the page before"),
    ],
    "responses": _answers({200: _json(_ITEMS)}),
}
_READ: Final[Schema] = {
    "summary": "read a value as JSON",
    "parameters": [_KEY_IN_PATH],
    "responses": _answers({200: _json(_object({"key": _STRING, "value": _ANY}))}, 404, 406),
}
_DELETE: Final[Schema] = {
    "summary": "delete a key",
    "parameters": [_KEY_IN_PATH],
    "responses": _answers({200: _json(_object({"key": _STRING, "deleted": {"const": True}}))}, 404, 507),
}
_CREATED: Final = _object({"key": _STRING, "created": {"type": "boolean"}})
_METRICS: Final[Schema] = {
    "summary": "numbers for Prometheus",
    "responses": _answers({200: {"text/plain": {"schema": _STRING}}}),
}
_STATS: Final[Schema] = {
    "summary": "every number of the store",
    "responses": _answers({200: _json({"type": "object"})}),
}
_HEALTH: Final[Operations] = {
    ("/healthz", "get"): {
        "summary": "the process answers",
        "responses": _answers({200: _json(_object({"healthy": {"const": True}}))}),
    },
    ("/readyz", "get"): {
        "summary": "the store answers",
        "responses": _answers({200: _json(_object({"ready": {"const": True}}, nearly_full={"type": "boolean"}))}, 503),
    },
}

STORE: Final[Operations] = {
    ("/read/{key}", "get"): _READ,
    ("/read_key_range/", "get"): _RANGE,
    ("/put/", "post"): {
        "summary": "store a JSON value",
        "requestBody": _body(_PUT),
        "responses": _answers({200: _json(_CREATED), 201: _json(_CREATED)}, 413, 507),
    },
    ("/batch_put/", "post"): {
        "summary": "store JSON values, all or none",
        "requestBody": _body(_object({"items": {"type": "array", "items": _PUT}})),
        "responses": _answers({200: _json(_object({"stored": _COUNT}))}, 413, 507),
    },
    ("/delete/{key}", "delete"): _DELETE,
    ("/kv/{key}", "get"): {
        "summary": "read a value's bytes",
        "parameters": [_KEY_IN_PATH, _header("If-Match", "ETags"), _header("If-None-Match", "ETags, or *")],
        "responses": _answers({200: {"*/*": {"schema": _ANY}}, 304: None}, 404, 406, 412),
    },
    ("/kv/{key}", "head"): {
        "summary": "what GET would say, without the bytes",
        "parameters": [_KEY_IN_PATH, _header("If-Match", "ETags"), _header("If-None-Match", "ETags, or *")],
        "responses": {
            status: {"description": told["description"]}
            for status, told in _answers({200: None, 304: None}, 404, 406, 412).items()
        },
    },
    ("/kv/{key}", "put"): {
        "summary": "store bytes, with their content type",
        "parameters": [
            _KEY_IN_PATH,
            _TTL_IN_QUERY,
            _header("If-Match", "ETags: only if it is that version; * only if it is there"),
            {**_header("If-None-Match", "only if it is not there"), "schema": {"const": "*"}},
        ],
        "requestBody": {"required": False, "content": {"application/octet-stream": {"schema": _OCTETS}}},
        "responses": _answers({201: None, 204: None}, 412, 413, 507),
    },
    ("/kv/{key}", "delete"): {
        "summary": "delete a key",
        "parameters": [_KEY_IN_PATH, _header("If-Match", "ETags: only that version")],
        "responses": _answers({204: None}, 404, 412, 507),
    },
    ("/kv/{key}/incr", "post"): {
        "summary": "add to a number",
        "parameters": [_KEY_IN_PATH],
        "requestBody": _body(_object({}, delta=_INT64, initial=_INT64, ttl=_TTL), required=False),
        "responses": _answers({200: _json(_object({"value": _INT64}))}, 409, 413, 507),
    },
    ("/kv", "post"): {
        "summary": "one atomic batch: set, get or delete many",
        "requestBody": {
            "required": True,
            "content": {**_json(_BATCH), "application/msgpack": {"schema": _OCTETS}},
        },
        "responses": _answers(
            {200: {**_json({"type": "object"}), "application/msgpack": {"schema": _OCTETS}}}, 413, 415, 507
        ),
    },
    ("/kv", "get"): {
        "summary": "keys, a page at a time, in no order",
        "parameters": [
            _query("prefix", _STRING, "of the keys"),
            _limit(10_000),
            _query("cursor", _STRING, "from the page before"),
        ],
        "responses": _answers(
            {200: _json(_object({"keys": {"type": "array", "items": _KEY_FACTS}, "cursor": _CURSOR}))}
        ),
    },
    ("/stats", "get"): _STATS,
    ("/metrics", "get"): _METRICS,
    ("/history", "get"): {
        "summary": "the last hour of the store's figures, a point each 5 s",
        "responses": _answers({200: _json({"type": "object"})}),
    },
    ("/report", "get"): {
        "summary": "the largest and the next expiring keys, and what prefixes take, at most 10 s old",
        "responses": _answers({200: _json({"type": "object"})}),
    },
    ("/export", "get"): {
        "summary": "every item, a line of JSON each",
        "responses": _answers({200: {"application/x-ndjson": {"schema": _STRING}}}),
    },
    ("/check", "post"): {
        "summary": "walk every invariant",
        "responses": _answers({200: _json({"type": "object"})}),
    },
    **_HEALTH,
}

_RECORD_KEY: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 32}
_RECORD_KEY_IN_PATH: Final[Schema] = {**_KEY_IN_PATH, "schema": _RECORD_KEY}
_RECORD: Final = _object(
    {"key": _RECORD_KEY, "value": {"type": "object"}},
    ttl={"type": ["integer", "null"], "minimum": 1, "maximum": TTL_SECONDS, "description": "seconds"},
)
DATASTORE: Final[Operations] = {
    ("/read/{key}", "get"): {**_READ, "parameters": [_RECORD_KEY_IN_PATH]},
    ("/read_key_range/", "get"): _RANGE,
    ("/put/", "post"): {
        "summary": "create a record",
        "requestBody": _body(_RECORD),
        "responses": _answers({201: _json(_CREATED)}, 409, 413, 507),
    },
    ("/delete/{key}", "delete"): {**_DELETE, "parameters": [_RECORD_KEY_IN_PATH]},
    ("/stats", "get"): _STATS,
    ("/metrics", "get"): _METRICS,
    **_HEALTH,
}  # fmt: skip


def describe(api: FastAPI, operations: Operations) -> None:
    """GET /openapi.json of `api` tells these, and where they lie if the application is mounted."""
    paths: Schema = {}
    for (path, method), operation in operations.items():
        paths.setdefault(path, {})[method] = operation
    told: Schema = {
        "openapi": "3.1.0",
        "info": {"title": api.title, "version": api.version},
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "paths": paths,
    }

    @api.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        root = root_of(request.scope)  # type: ignore[arg-type]  # Starlette's scope is a MutableMapping
        servers: Schema = {"servers": [{"url": root}]} if root else {}
        return Response(msgspec.json.encode({**told, **servers}), media_type="application/json")

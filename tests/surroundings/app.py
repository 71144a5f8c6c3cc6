"""The application that servers run: a call for each request, of the store that STORE names or VOLUME has."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from shmkv import Store
from surroundings.scene import call

# As applications do: while they are imported.
store = Store.open(os.environ["VOLUME"]) if "VOLUME" in os.environ else Store(os.environ["STORE"])


def wsgi(environ: dict[str, Any], begin: Callable[[str, list[tuple[str, str]]], object]) -> Iterable[bytes]:
    try:
        body, status = b"%d" % call(store, int(environ["QUERY_STRING"] or 0)), "200 OK"
    except Exception as error:
        body, status = f"{type(error).__name__}: {error}".encode(), "500 Internal Server Error"
    begin(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    try:
        body, status = b"%d" % call(store, int(scope["query_string"] or 0)), 200
    except Exception as error:
        body, status = f"{type(error).__name__}: {error}".encode(), 500
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})

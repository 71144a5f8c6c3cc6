"""What bench.serving puts load on: a bare ASGI application, and the server's own with one route more.

    python -m bench.serving_apps bare|store PORT WORKERS NAME

`bare` answers every request with 16 bytes, on uvicorn as it comes.  `store` is what `shmkv serve` runs, over the store
NAME, and has /fixed/{key} beside /read/{key}: the same way through gate and framework, to an answer that is ready.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any, Final

import uvicorn
from fastapi import Request
from fastapi.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from shmkv import Store
from shmkv.server.app import open_app
from shmkv.server.gate import Gate
from shmkv.server.protocol import BoundedProtocol
from shmkv.server.run import listen
from shmkv.server.settings import Settings

VALUE: Final = b"0123456789abcdef"
THING: Final = {"name": "Ada", "cart": [12, 40], "seen": True}
FIXED: Final = b'{"key":"thing","value":{"name":"Ada","cart":[12,40],"seen":true}}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least that an application can do."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"16")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": VALUE})


def bare_app() -> Any:
    return bare


def store_app(name: str, side: Store) -> Gate:
    """The server's application, and /fixed/{key}."""
    gate = open_app(Settings(store=name), side, 0.0)
    api: Any = gate._inner

    @api.get("/fixed/{key}")
    async def fixed(request: Request) -> Response:
        return Response(FIXED, media_type="application/json")

    return gate


def main() -> None:
    which, port, workers, name = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    side = Store(size="16MiB")
    factory = bare_app if which == "bare" else partial(store_app, name, side)
    config = uvicorn.Config(
        factory,
        factory=True,
        workers=workers,
        http=HttpToolsProtocol if which == "bare" else BoundedProtocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )
    listening = listen(Settings(port=port))
    print(listening.getsockname()[1], flush=True)
    if workers == 1:
        asyncio.run(uvicorn.Server(config).serve([listening]))
    else:
        Multiprocess(config, sockets=[listening]).run()
    side.close()


if __name__ == "__main__":
    main()

"""The HTTP server: `shmkv serve`, and `create_app(store)` for those who run an ASGI server of their own.

run.py listens, starts workers and ends; protocol.py bounds what a connection may send, and how slowly; gate.py is the
first code that sees a request: host, token, limits, time; behind it are kv.py and batch.py (bytes, with no framework
in between) and api.py (FastAPI: the JSON routes, statistics, documentation).  backend.py is the only one that calls a
store.  docs/server.md has the routes.
"""

from shmkv.server.app import create_app
from shmkv.server.settings import Settings

__all__ = ["Settings", "create_app"]

"""Where the application lies in another one: what a request asks for, without the prefix that it is mounted under.

ASGI says that `root_path` is the prefix, and that the path holds it; a proxy may have taken it off before.  Everything
behind this module sees paths as if the application stood alone; whoever makes an address for a client puts
`root_of(scope)` in front of it.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from shmkv.server.problems import Reply

Scope = dict[str, Any]

_ROOT: Final = "shmkv.root"  # in the scope: the prefix, percent-encoded
_UNESCAPED: Final = "/:@!$&'()*+,;=~-._"


def unmounted(scope: Scope) -> Scope:
    """The request as it would be without a prefix; the scope itself where there is none."""
    root, raw = str(scope.get("root_path", "")).rstrip("/"), scope.get("raw_path")
    if not root and raw is not None:
        return scope
    if raw is None:  # ASGI lets a server leave it away
        raw = quote(scope["path"], _UNESCAPED).encode()
    rest = _behind(raw, root)
    if rest is None:  # a proxy has taken off the outer application's own prefix
        rest = _behind(raw, root.removeprefix(str(scope.get("app_root_path", ""))))
    return {**scope, "root_path": "", "raw_path": raw if rest is None else rest, _ROOT: quote(root, _UNESCAPED)}


def _behind(raw: bytes, root: str) -> bytes | None:
    """What follows `root` in a path as it was sent; None: it does not begin so.

    >>> _behind(b"/my%20cache/kv/a%2Fb", "/my cache"), _behind(b"/cache", "/cache"), _behind(b"/caches/", "/cache")
    (b'/kv/a%2Fb', b'', None)
    """
    if not root:
        return raw
    parts = raw.split(b"/", root.count("/") + 1)
    count = root.count("/") + 1
    if unquote(b"/".join(parts[:count]).decode("latin-1")) != root:
        return None
    return b"/" + parts[count] if len(parts) > count else b""


def root_of(scope: Scope) -> str:
    """The prefix as it stands in an address: "" or "/cache".

    >>> root_of(unmounted({"root_path": "/cache", "raw_path": b"/cache/kv"}))
    '/cache'
    """
    return str(scope.get(_ROOT, ""))


def moved_to(scope: Scope, path: str) -> Reply:
    """An answer that sends a browser to a page of this application."""
    query: bytes = scope["query_string"]
    where = (root_of(scope) + path).encode() + (b"?" + query if query else b"")
    return 307, [(b"location", where)], b""

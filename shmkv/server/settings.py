"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MIB: Final = 1 << 20


@dataclass(frozen=True)
class Settings:
    """Of one server; handed to each worker process.

    Exactly one of `store`, `path` and `datastore` names what is served.
    """

    store: str | None = None  # name of a store in memory; made if it is missing
    path: str | None = None  # directory of a durable store
    datastore: str | None = None  # directory of a DataStore
    foreign: bool = False  # with `store`: if this user has none of that name, another user's will do
    size: str | None = None  # the most memory of a new store
    sync: str = "interval"  # of a durable store
    host: str = "127.0.0.1"
    port: int = 8003
    uds: str | None = None  # a unix socket, in place of host and port
    workers: int = 1
    token: bytes | None = field(default=None, repr=False)  # without it nobody is asked for one
    insecure: bool = False  # listen beyond this machine without a token
    hosts: tuple[str, ...] = ()  # names in Host besides those of this machine; "*" takes any
    allow_pickle: bool = False  # take values that run as code in those who read them, from whoever may write
    max_body: int = 64 * MIB
    max_head: int = 32 << 10  # bytes of all headers of a request
    max_url: int = 200 << 10  # a key of 65,535 bytes, percent-encoded
    head_seconds: float = 10.0  # for a request to arrive up to its body
    body_grace: float = 10.0  # seconds for a body, and then:
    body_rate: int = 16 << 10  # bytes a second that a body must arrive at, at least
    write_seconds: float = 60.0  # for a client to take what is sent to it
    lock_timeout: float = 5.0  # seconds, as of a Store
    ranges: int = 4  # at the same time, in a worker

    def __post_init__(self) -> None:
        """Refuse what would be taken for something else: a `str` is a sequence of names too."""
        hosts: Any = self.hosts
        token: Any = self.token
        if isinstance(hosts, str):
            raise TypeError(f"hosts is a tuple of names, not a str: say hosts=({hosts!r},)")
        if not isinstance(token, bytes | None):
            raise TypeError(f"token is bytes, not {type(token).__name__}: say token.encode()")

"""`shmkv serve`: listens, starts workers, replaces those that die, ends in order.

The supervisor (this process) holds the sockets, the side store and, of a store in memory or on disk, a handle of its
own, so that nothing has to be recovered when a worker is replaced.  Workers are uvicorn's; a worker whose supervisor
has been killed ends by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import uvicorn
from uvicorn.supervisors import Multiprocess

from shmkv import DataStore, Store, surroundings
from shmkv.errors import ShmkvError
from shmkv.server.app import open_app, open_store
from shmkv.server.gate import Gate
from shmkv.server.protocol import BoundedProtocol
from shmkv.server.settings import Settings

_BACKLOG: Final = 2048
_PR_SET_PDEATHSIG: Final = 1
_SIDE_TIMEOUT_S: Final = 0.25  # a worker that is stopped while it counts holds up the others for no longer
_GRACE_SECONDS: Final = 30  # for requests in flight when the server ends
# A worker that says nothing for so long is replaced.  On a machine with far too much to do it takes 10 s to start: with
# uvicorn's own 5 s it would be ended before it has started, and so would the next one.
_HANGING_SECONDS: Final = 20


class CannotListenError(ShmkvError, OSError):
    """The address is taken, or is not one of this machine."""


class UnsafeError(PermissionError, ShmkvError):
    """To listen beyond this machine takes a token, or the word that none is wanted."""


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        say: is told where the server listens, once it does.

    Raises:
        UnsafeError, CannotListenError; what opening the store raises.
    """
    refuse_unsafe(settings)
    with contextlib.ExitStack() as ending:
        listening = listen(settings)
        ending.callback(_end_listening, listening, settings)
        side = ending.enter_context(Store(size="16MiB", lock_timeout=_SIDE_TIMEOUT_S))
        supervisor = _new_supervisor(settings, listening, side)  # from here on signals end it in order
        # Last of all: a server that cannot begin must not leave a new store behind.
        ending.enter_context(_hold(settings))
        say(f"serving {_what(settings)} at {_where(listening)}")
        try:
            supervisor.run()
        except BlockingIOError as error:  # a worker could not be started
            raise surroundings.no_more("processes") from error


def _hold(settings: Settings) -> contextlib.AbstractContextManager[object]:
    """A handle of the store; a DataStore, which is for one process, is only opened to see whether it can be."""
    if settings.datastore is None:
        return open_store(settings, settings.lock_timeout)
    DataStore(settings.datastore).close()
    return contextlib.nullcontext()


def _end_listening(listening: socket.socket, settings: Settings) -> None:
    listening.close()
    if settings.uds is not None:
        _remove_socket(settings.uds)


def _new_supervisor(settings: Settings, listening: socket.socket, side: Store) -> Multiprocess:
    config = uvicorn.Config(
        partial(_worker, settings, side, time.time(), os.getpid()),
        factory=True,
        workers=settings.workers,
        http=BoundedProtocol,
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        timeout_worker_healthcheck=_HANGING_SECONDS,
    )
    return Multiprocess(config, sockets=[listening])


def _worker(settings: Settings, side: Store, started: float, supervisor: int) -> Gate:
    """In a worker process: its application."""
    # SIGKILL of the supervisor reaches no worker by itself, and they would hold port and store for ever.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        sys.exit("the supervisor has ended")
    try:
        return open_app(settings, side, started)
    except (ShmkvError, OSError) as error:
        sys.exit(f"shmkv serve: a worker cannot begin, and is tried again: {error}")


# ---- Addresses -----------------------------------------------------------------------------


def refuse_unsafe(settings: Settings) -> None:
    """An address that others reach takes a token."""
    if settings.uds is not None or settings.token is not None or settings.insecure or _is_loopback(settings.host):
        return
    raise UnsafeError(
        f"{settings.host} is reached from other machines: say --token-file FILE, or --insecure if that is what you want"
    )


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(settings: Settings) -> socket.socket:
    """The socket that all workers accept from."""
    try:
        return _listen_at(settings.uds) if settings.uds is not None else _listen_on(settings.host, settings.port)
    except OSError as error:
        where = settings.uds or f"{settings.host}:{settings.port}"
        raise CannotListenError(f"cannot listen at {where}: {error.strerror or error}") from error


def _listen_on(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _listen_at(path: str) -> socket.socket:
    """A unix socket of mode 0600; one that nobody listens at any more is removed first."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_dead_socket(path):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _is_dead_socket(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(path)
    except FileNotFoundError:
        return False
    except ConnectionRefusedError:
        return True
    return False


def _remove_socket(path: str) -> None:
    with contextlib.suppress(OSError):  # somebody was faster, which is as good
        os.unlink(path)


def _what(settings: Settings) -> str:
    return settings.store or settings.path or settings.datastore or ""


def _where(listening: socket.socket) -> str:
    name: Any = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"

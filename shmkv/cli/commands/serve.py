"""`shmkv serve`: the HTTP server."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, Final

from shmkv.cli.main import EXIT_DONE, UsageError
from shmkv.cli.where import add_foreign_argument

DESCRIPTION: Final = """\
Serves a store over HTTP: JSON routes, binary routes, metrics, and a status page at /.  Every worker process attaches
to the same store, and so may any Python process beside them.  Listens on this machine only, unless a token is asked
for.  SIGTERM and Ctrl-C finish what is in flight; a worker that dies is replaced.
"""
EXAMPLES: Final = """\
shmkv serve --store sessions --workers 4                  # in memory; made if it is missing
shmkv serve --path /var/lib/shop --sync always            # durable
shmkv serve --datastore ~/notes --uds /run/user/1000/notes.sock
shmkv serve --store sessions --host 0.0.0.0 --token-file /etc/shmkv.token
"""
_MODES: Final = ("always", "interval", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what is served, one of them")
    what.add_argument("--store", metavar="NAME", help="a store in memory (default: $SHMKV_STORE)")
    what.add_argument("--path", metavar="DIR", help="a durable store")
    what.add_argument("--datastore", metavar="DIR", help="a DataStore: JSON records; one worker")
    add_foreign_argument(what)
    parser.add_argument("--size", help="the most memory of a new store, such as 4GiB (default: 1GiB)")
    parser.add_argument("--sync", choices=_MODES, default="interval", help="with --path (default: interval)")
    where = parser.add_argument_group("where it listens")
    where.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    where.add_argument("--port", type=_port, default=8003, help="port, 0 for any that is free (default: 8003)")
    where.add_argument("--uds", metavar="PATH", help="a unix socket instead, for this user alone")
    parser.add_argument("--workers", type=_count, default=1, metavar="N", help="processes (default: 1)")
    who = parser.add_argument_group("who may ask")
    who.add_argument("--token-file", metavar="FILE", help="every request has to say the token that is in FILE")
    who.add_argument("--insecure", action="store_true", help="listen beyond this machine without a token")
    who.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that Host may have; * is any"
    )
    who.add_argument(
        "--allow-pickle",
        action="store_true",
        help="take pickles and values of codec objects from clients, as `shmkv import --url` sends them: they run as "
        "code in whoever reads them with their codec",
    )
    parser.add_argument("--max-body", type=_count, default=64, metavar="MIB", help="of a request (default: 64)")
    parser.add_argument(
        "--lock-timeout", type=float, default=5.0, metavar="SECONDS", help="to wait for a live process (default: 5)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    served = _served(args)
    token = _token(args.token_file)
    try:
        from shmkv.server.run import serve
        from shmkv.server.settings import MIB, Settings
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("shmkv"):
            raise
        raise UsageError(f'the server needs {error.name}: pip install "shmkv[server]"') from error
    settings = Settings(
        **served,
        foreign=args.foreign,
        size=args.size,
        sync=args.sync,
        host=args.host,
        port=args.port,
        uds=args.uds,
        workers=args.workers,
        token=token,
        insecure=args.insecure,
        hosts=tuple(args.allow_host),
        allow_pickle=args.allow_pickle,
        max_body=args.max_body * MIB,
        lock_timeout=args.lock_timeout,
    )
    serve(settings, _say)
    return EXIT_DONE


def _say(sentence: str) -> None:
    print(f"shmkv serve: {sentence}", file=sys.stderr, flush=True)


def _served(args: argparse.Namespace) -> dict[str, Any]:
    given = {name: value for name in ("store", "path", "datastore") if (value := getattr(args, name)) is not None}
    if not given and (named := os.environ.get("SHMKV_STORE")):
        given = {"store": named}
    if len(given) != 1:
        raise UsageError("say what to serve: one of --store NAME, --path DIR and --datastore DIR")
    if "datastore" in given and args.workers != 1:
        raise UsageError("a DataStore is for one process: leave --workers away")
    if args.foreign and "store" not in given:
        raise UsageError("--foreign belongs to --store")
    if "path" not in given and args.sync != "interval":
        raise UsageError("--sync belongs to --path")
    return given


def _token(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            token = file.read().strip()
    except OSError as error:
        raise UsageError(f"cannot read the token file {path}: {error.strerror}") from error
    if len(token) < 16 or any(byte <= 32 or byte > 126 for byte in token):
        raise UsageError(f"the token in {path} has to be at least 16 printable characters of ASCII, without spaces")
    return token


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {text}")
    return port


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 1_000:
        raise argparse.ArgumentTypeError(f"1 to 1000, not {text}")
    return count

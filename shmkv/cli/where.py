"""Which store a command works on: `--store`, `--path`, `--url`, and what the environment says where none is given."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, NamedTuple

from shmkv.cli.main import UsageError, arguments_checked

if TYPE_CHECKING:
    from shmkv import Store
    from shmkv.cli.target import Target


class Where(NamedTuple):
    """Exactly one of the first three is given."""

    store: str | None = None  # a store in memory, by its name
    path: str | None = None  # a durable one, by its directory
    url: str | None = None  # a server
    token_file: str | None = None  # of the server
    foreign: bool = False  # a store of another user will do

    @property
    def label(self) -> str:
        """For messages and reports."""
        return self.store or self.path or self.url or ""


def add_where_arguments(parser: argparse.ArgumentParser, *, remote: bool = True) -> None:
    """`--store NAME | --path DIR | --url URL`, the last one for commands that work over the network as well."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--store", metavar="NAME", help="a store of this machine (default: $SHMKV_STORE)")
    group.add_argument("--path", metavar="DIR", help="a durable store, by its directory")
    add_foreign_argument(parser)
    if remote:
        group.add_argument(
            "--url",
            metavar="URL",
            help="a server: http://HOST:PORT, https://HOST, or unix:/PATH/TO.sock (default: $SHMKV_URL)",
        )
        parser.add_argument(
            "--token-file",
            metavar="FILE",
            help="what the server wants to see, as it was told with the same option (default: $SHMKV_TOKEN_FILE)",
        )


def add_foreign_argument(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--foreign",
        action="store_true",
        help="with --store: if this user has none of that name, another user's whose mode gives others access",
    )


def where_of(args: argparse.Namespace) -> Where:
    """What was asked for; an option beats the environment.

    Raises:
        UsageError: neither says which store, or the environment names two; --foreign without the name of a store.
    """
    where = _named(args)
    if args.foreign and where.store is None:
        raise UsageError("--foreign belongs to --store: a directory or a server says by itself who may use it")
    return where._replace(foreign=args.foreign)


def _named(args: argparse.Namespace) -> Where:
    remote = "url" in args
    url = args.url if remote else None
    token_file = (args.token_file if remote else None) or os.environ.get("SHMKV_TOKEN_FILE")
    if args.store is not None or args.path is not None or url is not None:
        return Where(args.store, args.path, url, token_file)
    store, url = os.environ.get("SHMKV_STORE"), os.environ.get("SHMKV_URL") if remote else None
    if store and url:
        raise UsageError("SHMKV_STORE and SHMKV_URL are both set: say --store or --url, or unset one of them")
    if not store and not url:
        options, names = (
            ("--store, --path or --url", "SHMKV_STORE or SHMKV_URL") if remote else ("--store or --path", "SHMKV_STORE")
        )
        raise UsageError(f"which store? Say {options}, or set {names}")
    return Where(store or None, None, url or None, token_file)


def open_target(where: Where, *, create: bool = False, readonly: bool = False, size: str | None = None) -> Target:
    """The store, ready to be asked.

    Args:
        create: make it if it is missing; otherwise that is an error.
        readonly: the command only looks, and is not counted among those who read and write.
        size: of a store that is made.

    Raises:
        UsageError: a name or URL that no store has, a size for a server.
        NoServerError, ShmkvError, OSError: it is not there, or not to be used.
    """
    if where.url is not None:
        if size is not None:
            raise UsageError("--size belongs to a store that is made here: a server's store is there already")
        from shmkv.cli.remote import RemoteTarget

        return RemoteTarget(where.url, where.token_file)
    from shmkv.cli.local import LocalTarget

    return LocalTarget(open_store(where, create=create, readonly=readonly, size=size), where.label)


def open_store(where: Where, *, create: bool = False, readonly: bool = False, size: str | None = None) -> Store:
    """The store of this machine."""
    from shmkv.store import Store

    with arguments_checked():
        if where.path is not None:
            return _open_durable(where.path, create=create, size=size)
        assert where.store is not None, "not the URL of a server"
        if create:
            return Store(where.store, size, foreign=where.foreign)
        return Store.attach(where.store, readonly=readonly, foreign=where.foreign)


def _open_durable(path: str, *, create: bool, size: str | None) -> Store:
    from pathlib import Path

    from shmkv.durable import uuid_in
    from shmkv.errors import StoreNotFoundError
    from shmkv.store import Store

    if not create and not Path(path).is_file() and uuid_in(Path(path)) is None:
        raise StoreNotFoundError(f"there is no durable store in {path}")
    return Store.open(path, size=size)

"""create_app(store) under a prefix of another application: every route, page, redirect and description lies there."""

from __future__ import annotations

import asyncio
import doctest
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from helpers import temporary_store
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from shmkv import Store
from shmkv.server import Settings, create_app, mounting

App = Callable[..., Awaitable[None]]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "mounting.md"
EXAMPLES = dict(re.findall(r"^## (\w+)\n.*?^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
LOOPBACK = "http://127.0.0.1"


def by_fastapi(inner: App, prefix: str) -> App:
    outer = FastAPI()
    outer.mount(prefix, inner)
    return outer


def by_starlette(inner: App, prefix: str) -> App:
    first, _, second = prefix[1:].partition("/")
    routes = [Mount("/" + first, routes=[Mount("/" + second, inner)])] if second else [Mount(prefix, inner)]
    return Starlette(routes=routes)


def by_hand(inner: App, prefix: str) -> App:
    """As the page says for Django; and as some servers do it, without raw_path."""

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        scope = {**scope, "root_path": prefix}
        del scope["raw_path"]
        await inner(scope, receive, send)

    return outer


def behind_a_stripping_proxy(inner: App, prefix: str) -> App:
    """The outer application knows its own prefix, and the proxy has taken it off."""
    outer = Starlette(routes=[Mount(prefix, inner)])

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await outer({**scope, "root_path": "/site"}, receive, send)

    return server


def ask(app: App, *requests: tuple[Any, ...], base: str = LOOPBACK, **headers: str) -> list[httpx.Response]:
    """Answers to (method, path, body as bytes or JSON)."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
            answers = []
            for method, path, *body in requests:
                how = {} if not body else {"content": body[0]} if isinstance(body[0], bytes) else {"json": body[0]}
                answers.append(await client.request(method, path, **how))
            return answers

    return asyncio.run(all_of_them())


@pytest.fixture
def store() -> Iterator[Store]:
    with temporary_store() as store:
        yield store


@pytest.mark.parametrize("mount", [by_fastapi, by_starlette, by_hand, behind_a_stripping_proxy])
@pytest.mark.parametrize("prefix", ["/cache", "/a/deeper one", "/kv", "/read"])
def test_every_route_lies_under_the_prefix(store: Store, mount: Callable[..., App], prefix: str) -> None:
    inner = create_app(Store.attach(store.name))
    under = prefix.replace(" ", "%20")
    site = "/site" if mount is behind_a_stripping_proxy else ""
    answers = ask(
        mount(inner, prefix),
        ("PUT", f"{under}/kv/a%2Fb", b"1"),
        ("GET", f"{under}/kv/a%2Fb"),
        ("GET", f"{under}/read/json"),
        ("POST", f"{under}/put/", {"key": "json", "value": [1]}),
        ("GET", f"{under}/read/json"),
        ("POST", f"{under}/kv", {"get": ["json"]}),
        ("GET", f"{under}/"),
        ("GET", f"{under}/docs"),
        ("GET", f"{under}/openapi.json"),
        ("GET", f"{under}/stats"),
        ("GET", f"{under}/nothing"),
        ("GET", f"{under}/docs/?a=b"),
    )
    assert [answer.status_code for answer in answers] == [201, 200, 404, 201, 200, 200, 200, 200, 200, 200, 404, 307]
    assert store["a/b"] == b"1"
    assert "status page" in answers[6].text
    assert answers[8].json()["servers"] == [{"url": site + under}]
    assert answers[11].headers["location"] == f"{site}{under}/docs?a=b"
    inner.close()


@pytest.mark.parametrize("mount", [by_fastapi, by_starlette, by_hand])
def test_the_prefix_alone_leads_to_the_status_page(store: Store, mount: Callable[..., App]) -> None:
    inner = create_app(Store.attach(store.name))
    [answer] = ask(mount(inner, "/cache"), ("GET", "/cache"))
    assert (answer.status_code, httpx.URL(answer.headers["location"]).path) == (307, "/cache/")
    inner.close()


def test_alone_it_says_nothing_of_a_prefix(store: Store) -> None:
    inner = create_app(Store.attach(store.name))
    answers = ask(inner, ("GET", "/openapi.json"), ("GET", "/docs/"), ("GET", "/"))
    assert "servers" not in answers[0].json()
    assert answers[1].headers["location"] == "/docs"
    assert answers[2].status_code == 200
    inner.close()


def test_what_is_no_http_is_declined(store: Store) -> None:
    inner, said = create_app(Store.attach(store.name)), []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    asyncio.run(inner({"type": "websocket", "path": "/"}, receive, send))
    assert said == ["websocket.close"]
    inner.close()


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(mounting).failed == 0


# ---- Both spellings of a route -------------------------------------------------------------------


def test_every_route_is_the_same_with_a_slash_at_its_end_and_without(store: Store) -> None:
    inner = create_app(Store.attach(store.name))
    told = ask(inner, ("GET", "/openapi.json"))[0].json()["paths"]
    plain = [(path, method) for path, methods in told.items() for method in methods if "{" not in path]
    bodies = {"/put/": {"key": "k", "value": 1}, "/batch_put/": {"items": []}, "/kv": {"get": ["k"]}}
    for path, method in plain:
        if (path, method) == ("/kv", "get"):
            continue  # behind that slash is the empty key
        other = path[:-1] if path.endswith("/") else path + "/"
        body = [bodies[path]] if path in bodies else []
        one, two = ask(inner, (method.upper(), path, *body), (method.upper(), other, *body))
        assert one.status_code in (200, 201), (path, method)
        assert two.status_code == 200, (other, method)
    [empty] = ask(inner, ("GET", "/kv/"))
    assert empty.status_code == 404
    store[""] = b"of the empty key"
    assert ask(inner, ("GET", "/kv/"))[0].content == b"of the empty key"
    inner.close()


def test_the_other_spelling_needs_the_token_as_the_first_does(store: Store) -> None:
    inner = create_app(Store.attach(store.name), settings=Settings(token=b"open-sesame-and-no-less"))
    outer = by_starlette(inner, "/cache")
    for path in ("/stats/", "/put", "/kv/", "/export/", "/kv"):
        assert ask(outer, ("POST", f"/cache{path}"))[0].status_code == 401, path
    for path in ("/readyz/", "/healthz/", "/", "/docs", "/openapi.json/"):
        assert ask(outer, ("GET", f"/cache{path}"))[0].status_code == 200, path
    inner.close()


# ---- docs/mounting.md ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FastAPI", "Starlette", "Django"])
def test_the_page_shows_what_works(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "Django":
        pytest.importorskip("django", reason='needs Django: pip install -e ".[surroundings]"')
        configure_django(monkeypatch)
    program = EXAMPLES[name].replace("mounted-cache", store.name).replace(', size="64MiB"', "")
    names: dict[str, Any] = {}
    exec(compile(program, f"{PAGE.name}: {name}", "exec"), names)
    allowed = {"base": "http://shop.example", "authorization": "Bearer a secret of 16 or more"}
    answers = ask(names["app"], ("PUT", "/cache/kv/k", b"v"), ("GET", "/cache/"), **allowed)
    assert [answer.status_code for answer in answers] == [201, 200]
    assert store["k"] == b"v"
    assert ask(names["app"], ("GET", "/cache/kv/k"), base="http://shop.example")[0].status_code == 401
    assert ask(names["app"], ("GET", "/cache/kv/k"), base="http://else.example")[0].status_code == 400
    outside = ask(names["app"], ("GET", "/elsewhere"), base="http://shop.example")[0]
    assert outside.status_code == (200 if name == "Django" else 404)
    names["cache"].close()


def configure_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site of one page."""
    from django.http import HttpResponse
    from django.urls import path

    urls = ModuleType("shmkv_test_urls")
    urls.urlpatterns = [path("elsewhere", lambda request: HttpResponse("a page of Django's"))]  # type: ignore[attr-defined]
    settings = ModuleType("shmkv_test_settings")
    settings.ROOT_URLCONF = "shmkv_test_urls"  # type: ignore[attr-defined]
    settings.ALLOWED_HOSTS = ["shop.example"]  # type: ignore[attr-defined]
    settings.SECRET_KEY = "of a test"  # type: ignore[attr-defined]
    for module in (urls, settings):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", settings.__name__)


def test_routes_of_the_outer_application_stay_its_own(store: Store) -> None:
    async def own(request: Any) -> PlainTextResponse:
        return PlainTextResponse("own")

    inner = create_app(Store.attach(store.name))
    outer = Starlette(routes=[Route("/kv", own), Mount("/cache", inner)])
    assert ask(outer, ("GET", "/kv"))[0].text == "own"
    inner.close()

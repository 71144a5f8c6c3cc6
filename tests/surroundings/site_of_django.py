"""A project of Django in one module, as `--settings` takes it; runserver reloads it when a file of it changes."""

from __future__ import annotations

import os
import sys

from shmkv import Store
from surroundings.scene import call

if os.environ.get("WATCHED"):  # a module that a reload is asked for by
    sys.path.insert(0, os.environ["WATCHED"])
    import watched  # noqa: F401

DEBUG = True
SECRET_KEY = "nothing is signed"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
INSTALLED_APPS: list[str] = []
USE_TZ = True

store = Store(os.environ["STORE"])


def answer(request):  # type: ignore[no-untyped-def]
    from django.http import HttpResponse

    return HttpResponse(str(call(store, int(request.META["QUERY_STRING"] or 0))))


def __getattr__(name: str) -> object:
    if name == "urlpatterns":  # asked for when django is ready
        from django.urls import path

        return [path("", answer)]
    raise AttributeError(name)

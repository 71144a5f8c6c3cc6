"""Several interpreters in one process, as mod_wsgi and uwsgi have them: all works in each, or is refused at import.

Interpreters that share the GIL are served.  One with a GIL of its own (Python 3.12 on) refuses the extension itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import durable_folder, run_python

INTERPRETERS = """
import os, sys, textwrap
try:
    import _interpreters as interpreters                 # 3.13
    def make(): return interpreters.create("legacy")
    def own_gil(): return interpreters.create()
except ImportError:
    import _xxsubinterpreters as interpreters
    def make(): return interpreters.create(isolated=False)
    def own_gil(): return interpreters.create()

def run(code, interpreter=None):
    each = make() if interpreter is None else interpreter
    prologue = "import os, sys\\nsys.path[:] = %r\\nargs = %r\\n" % (sys.path, sys.argv[1:])
    prologue += "def say(x): os.write(1, (str(x) + chr(10)).encode())\\n"
    guarded = "try:\\n" + textwrap.indent(textwrap.dedent(code), "    ")
    guarded += "\\nexcept BaseException as error:\\n    say(repr(error))\\n"
    interpreters.run_string(each, prologue + guarded)
    interpreters.destroy(each)
"""

USES = """
    from datetime import date, datetime, timedelta, timezone
    from zoneinfo import ZoneInfo
    from shmkv import CodecError, Store, StoreExistsError, StoreNotFoundError
    store = Store(args[0], size="4MiB")
    there = datetime(2026, 1, 2, 3, tzinfo=ZoneInfo("Europe/Berlin"))
    fixed = datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))
    for value in (there, fixed, date(2026, 1, 2), {"a": (1, {2})}):
        store["v"] = value
        assert store["v"] == value and type(store["v"]) is type(value), value
    assert type(store.setdefault("zone", there).tzinfo) is ZoneInfo
    store.put_many({str(i): i for i in range(300)})
    assert store.gets("v").value == {"a": (1, {2})}
    refused = []
    for wrong, call in ((StoreNotFoundError, lambda: Store.attach("not-there-at-all")), (KeyError, lambda: store["no"]),
                        (StoreNotFoundError, lambda: Store.unlink_name("not-there-at-all")),
                        (StoreExistsError, lambda: Store.create(args[0])), (TypeError, lambda: store.put("k", 1j))):
        try:
            call()
        except wrong:
            refused.append(wrong)
    assert len(refused) == 5, refused
    store.change("n", lambda n: n + 1, default=0)
    store.close()
    say("used")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield from durable_folder(tmp_path)


@pytest.fixture(scope="module")
def has_zones() -> None:
    try:
        run_python("from zoneinfo import ZoneInfo; ZoneInfo('Europe/Berlin')")
    except AssertionError:
        pytest.skip("this machine has no time zones (Debian package tzdata)")


@pytest.mark.parametrize("first", ["", "import shmkv; s = shmkv.Store(sys.argv[1], size='4MiB'); s['v'] = 1"])
def test_all_works_in_each(name: str, first: str, has_zones: None) -> None:
    code = f"{INTERPRETERS}\n{first}\nfor _ in range(3): run('''{USES}''')\n"
    code += f"def main(say=print, args=sys.argv[1:]):\n{USES}\nmain()\n"
    assert run_python(code, name).split() == ["used"] * 4


def test_the_other_faces(tmp_path: Path, folder: Path) -> None:
    code = """
    from shmkv import DataStore, KeyValueStore, Store, list_stores
    with DataStore(args[0]) as data:
        data.create(str(len(data.range())), {"n": 1})
    with Store.open(args[1], size="16MiB") as store:
        store.incr("n")
    with Store(size="1MiB") as store, KeyValueStore(store) as face:
        face.put("a", b"1")
        assert store.name in [info.name for info in list_stores()]
    say("used")
    """
    out = run_python(f"{INTERPRETERS}\nfor _ in range(3): run('''{code}''')\n", str(tmp_path / "data"), str(folder))
    assert out.split() == ["used"] * 3


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share the GIL")
def test_one_with_a_gil_of_its_own_refuses() -> None:
    out = run_python(INTERPRETERS + "run(\"import shmkv._core; say('loaded')\", own_gil())")
    assert "ImportError" in out
    assert "subinterpreters" in out

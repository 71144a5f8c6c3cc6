"""Commands on items, each through a real process, on a store of this machine and on a server: the same answers."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from shell import Shell, run

from shmkv import Store
from shmkv.cli import text

pytestmark = pytest.mark.slow

EVERY_BYTE = bytes(range(256)) * 3


# ---- get ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (EVERY_BYTE, EVERY_BYTE),
        (b"", b""),
        ("text, ünïcödé\n", "text, ünïcödé\n".encode()),
        (42, b"42"),
        (-(1 << 200), str(-(1 << 200)).encode()),
        (0.5, b"0.5"),
        (True, b"true"),
        (None, b"null"),
        ({"a": [1, "é", None]}, '{"a":[1,"é",null]}'.encode()),
    ],
)
def test_get_prints_exactly_the_value(shell: Shell, value: Any, body: bytes) -> None:
    shell.store["k"] = value
    assert shell("get", "k") == (body, "", 0)


def test_get_of_several_keys_ends_each_with_a_line(shell: Shell) -> None:
    shell.store.update(a=b"1", b="2", c=3)
    assert shell("get", "c", "a", "b") == (b"3\n1\n2\n", "", 0)
    assert shell("get", "a", "nothing", "b", "no") == (
        b"1\n2\n",
        "shmkv get: there is no key nothing\nshmkv get: there is no key no\n",
        1,
    )


def test_get_of_a_missing_key(shell: Shell) -> None:
    assert shell("get", "nothing") == (b"", "shmkv get: there is no key nothing\n", 1)


def test_get_as_json(shell: Shell) -> None:
    shell.store.update({"a": b"\0\xff", "b": (1, 2), "c": [1.5]})
    shell.store.put("d", b"<p>", content_type="text/html")
    told = shell("get", "a", "b", "c", "d", "e", "--json")
    assert (told.status, told.err) == (1, "")
    assert told.json == {
        "items": [
            {"key": "a", "base64": "AP8="},
            {"key": "b", "safe": told.json["items"][1]["safe"], "python": "(1, 2)"},
            {"key": "c", "value": [1.5]},
            {"key": "d", "base64": "PHA+", "content_type": "text/html"},
        ],
        "missing": ["e"],
    }


@pytest.mark.parametrize("value", [(1, 2), {3}, date(2026, 1, 2), float("inf"), [b"bytes"], {1: None}, (), {"a": (1,)}])
def test_a_value_without_json_is_printed_as_python_writes_it(shell: Shell, value: Any) -> None:
    shell.store.update(good=b"good", odd=value)
    assert shell("get", "odd") == (repr(value).encode(), "", 0)
    assert shell("get", "good", "odd") == (f"good\n{value!r}\n".encode(), "", 0)
    [form] = shell("get", "odd", "--json").json["items"]
    assert (form["python"], form["safe"] != "") == (repr(value), True)
    shell.store.delete("odd")
    assert run("import", "-", *shell.where, stdin=json.dumps(form).encode()).status == 0
    assert repr(shell.store["odd"]) == repr(value), "what --json prints is stored again"


def test_a_pickle_is_named(shell: Shell) -> None:
    with Store.attach(shell.store.name, codec="pickle") as pickling:
        pickling["object"] = {1, (2, 3), None, 4j}
    told = shell("get", "object")
    assert (told.out, told.status) == (b"", 70)
    assert "codec 'pickle'" in told.err
    shell.store["plain"] = b"1"
    told = shell("range")
    assert (told.lines[1], told.err, told.status) == ("plain\t1", "", 0)
    assert told.lines[0].startswith("object\t<pickle of ")
    [form] = shell("get", "object", "--json").json["items"]
    assert form["codec"] == "pickle"


# ---- set ------------------------------------------------------------------------------------------


def test_set_stores_words_as_str(shell: Shell) -> None:
    assert shell("set", "a", "1", "ключ", "значение", "empty", "") == (b"", "", 0)
    assert dict(shell.store) == {"a": "1", "ключ": "значение", "empty": ""}


def test_set_stores_words_as_bytes_where_that_is_said(shell: Shell) -> None:
    for option in (("--bytes",), ("--type", "bytes"), ("--content-type", "text/plain")):
        assert shell("set", "k", "ключ", *option) == (b"", "", 0)
        assert shell.store["k"] == "ключ".encode()
    assert shell("set", "k", "v", "--bytes", "--type", "str").status == 2


def test_what_a_file_or_standard_input_holds_is_bytes_whatever_it_is(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    assert shell("set", "in", "-", "file", f"@{tmp_path / 'text'}", stdin=b"text") == (b"", "", 0)
    assert dict(shell.store) == {"in": b"text", "file": b"text"}
    assert shell("set", "in", "-", "file", f"@{tmp_path / 'text'}", "--type", "str", stdin=b"text").status == 0
    assert dict(shell.store) == {"in": "text", "file": "text"}


def test_set_takes_any_byte_from_standard_input_and_files(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_bytes(EVERY_BYTE[::-1])
    assert shell("set", "in", "-", "file", f"@{file}", stdin=EVERY_BYTE) == (b"", "", 0)
    assert dict(shell.store) == {"in": EVERY_BYTE, "file": EVERY_BYTE[::-1]}
    assert shell("get", "in").out == EVERY_BYTE


def test_set_takes_words_that_are_no_utf8(shell: Shell) -> None:
    assert shell("set", "k", b"\xff\xfe") == (b"", "", 0)
    assert shell.store["k"] == b"\xff\xfe"


@pytest.mark.parametrize(
    ("kind", "word", "value"),
    [
        ("str", "text", "text"),
        ("int", "-12", -12),
        ("int", str(1 << 100), 1 << 100),
        ("json", '{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        ("json", '"text"', "text"),
        ("bytes", "12", b"12"),
    ],
)
def test_set_of_types(shell: Shell, kind: str, word: str, value: Any) -> None:
    assert shell("set", "--type", kind, "--", "k", word) == (b"", "", 0)
    assert shell.store["k"] == value
    assert type(shell.store["k"]) is type(value)


def test_set_raw_takes_every_word_as_it_stands(shell: Shell) -> None:
    assert shell("set", "--raw", "--", "a", "-", "b", "@file", "-k", "--v") == (b"", "", 0)
    assert dict(shell.store) == {"a": "-", "b": "@file", "-k": "--v"}


def test_set_with_a_ttl_and_a_content_type(shell: Shell) -> None:
    assert shell("set", "k", "<p>", "--ttl", "100", "--content-type", "text/html").status == 0
    assert 90 < (shell.store.ttl("k") or 0) <= 100
    assert shell.store.content_type("k") == "text/html"


def test_set_if_absent_and_if_present(shell: Shell) -> None:
    assert shell("set", "k", "0", "--if-present") == (b"", "shmkv set: nothing stored: k is not there\n", 1)
    assert shell("set", "k", "1", "--if-absent", "--ttl", "50") == (b"", "", 0)
    assert shell("set", "k", "2", "--if-absent") == (b"", "shmkv set: nothing stored: k is there\n", 1)
    assert shell("set", "k", "3", "--if-absent", "--json") == (
        b'{"stored":0}\n',
        "shmkv set: nothing stored: k is there\n",
        1,
    )
    assert shell.store["k"] == "1"
    assert shell("set", "k", "4", "--if-present", "--content-type", "a/b") == (b"", "", 0)
    assert (shell.store["k"], shell.store.ttl("k"), shell.store.content_type("k")) == (b"4", None, "a/b")
    assert shell("set", "new", "7", "--if-absent", "--type", "int") == (b"", "", 0)
    assert shell.store["new"] == 7
    assert shell("set", "--quoted", "base64:aw==", "v", "--if-absent") == (b"", "", 0)
    told = shell("set", "--quoted", '"  "', "v", "--if-present")
    assert (told.err, told.status) == ('shmkv set: nothing stored: "  " is not there\n', 1)


def test_set_is_all_or_none(shell: Shell) -> None:
    too_long = "k" * 65_536
    told = shell("set", "a", "1", too_long, "2")
    assert (told.out, told.status) == (b"", 70)
    assert "65535" in told.err
    assert len(shell.store) == 0
    assert shell("set", "a", "1", "b", "2", "--json") == (b'{"stored":2}\n', "", 0)


def test_set_beyond_the_room_stores_nothing(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"v" * (3 << 20))
    told = shell("set", *(word for i in range(5) for word in (f"k{i}", f"@{file}")))
    assert (told.out, told.status, len(shell.store)) == (b"", 70, 0)  # a batch takes a quarter of the store
    statuses = [shell("set", f"k{i}", f"@{file}").status for i in range(8)]
    assert statuses[0] == 0
    assert statuses[-1] == 73
    assert set(statuses) == {0, 73}


# ---- del, incr, ttl ---------------------------------------------------------------------------------


def test_del(shell: Shell) -> None:
    shell.store.update(a=1, b=2, c=3)
    assert shell("del", "a", "b") == (b"", "", 0)
    assert shell("del", "c", "a", "b") == (b"", "shmkv del: 2 of 3 keys were not there\n", 1)
    assert shell("del", "c", "--json") == (b'{"deleted":0}\n', "shmkv del: 1 of 1 keys was not there\n", 1)
    assert len(shell.store) == 0


def test_incr(shell: Shell) -> None:
    assert shell("incr", "n") == (b"1\n", "", 0)
    assert shell("incr", "n", "--by", "-5") == (b"-4\n", "", 0)
    assert shell("incr", "m", "--initial", "10", "--ttl", "60", "--json") == (b'{"value":11}\n', "", 0)
    assert shell.store["n"] == -4
    assert 50 < (shell.store.ttl("m") or 0) <= 60


def test_incr_of_digits(shell: Shell) -> None:
    shell.store.put("n", b"41", ttl=100)
    assert shell("incr", "n") == (b"42\n", "", 0)
    assert shell.store["n"] == b"42"
    assert 90 < (shell.store.ttl("n") or 0) <= 100


def test_incr_of_no_number_changes_nothing(shell: Shell) -> None:
    shell.store.update(t=b"text", large=(1 << 63) - 1)
    told = shell("incr", "t")
    assert (told.out, told.err, told.status) == (b"", "shmkv incr: the value is no number: it is bytes\n", 1)
    told = shell("incr", "large")
    assert (told.out, told.status) == (b"", 1)
    assert dict(shell.store) == {"t": b"text", "large": (1 << 63) - 1}


def test_ttl(shell: Shell) -> None:
    shell.store.put("short", b"", ttl=100)
    shell.store.put("odd", (1, 2), ttl=100)  # a tuple has no body in HTTP, but a ttl
    shell.store.put("long", b"")
    for key in ("short", "odd"):
        told = shell("ttl", key)
        assert (told.err, told.status) == ("", 0)
        assert 90 < float(told.out) <= 100
        assert 90 < shell("ttl", key, "--json").json["ttl"] <= 100
    assert shell("ttl", "long") == (b"none\n", "", 0)
    assert shell("ttl", "long", "--json") == (b'{"ttl":null}\n', "", 0)
    assert shell("ttl", "nothing") == (b"", "shmkv ttl: there is no key nothing\n", 1)


# ---- keys, range ------------------------------------------------------------------------------------

KEYS: list[str | bytes] = [
    "plain",
    "with space",
    "ünïcödé",
    "two\nlines",
    "",
    '"',
    "base64:aw==",
    "\x1b[31m",
    "   ",
    " before",
    "after ",
    "no\u00a0break",
    "\u3164",
    "\u2800",
    "v\ufe0f",
    "\u202eright to left",
    b"\0\xff",
    b"k",
]


def test_keys_tell_any_key_from_any_other(shell: Shell) -> None:
    shell.store.update(dict.fromkeys(KEYS, b"v"))
    told = shell("keys")
    assert (told.err, told.status) == ("", 0)
    assert sorted(told.lines) == sorted(text.quoted(key) for key in KEYS)
    assert {text.unquoted(line) for line in told.lines} == set(KEYS)
    assert all(line.isprintable() and line == line.strip() and line for line in told.lines)
    assert not any(set(line) & set("\u3164\u2800\ufe0f") for line in told.lines)


def test_keys_come_back_by_quoted(shell: Shell) -> None:
    shell.store.update({key: text.quoted(key).encode() for key in KEYS})
    for line in shell("keys").lines:
        assert shell("get", "--quoted", "--", line).out == line.encode()
    assert shell("set", "--quoted", "base64:bmV3", "1").status == 0
    assert shell.store[b"new"] == "1"
    assert shell("del", "--quoted", "--", *shell("keys").lines) == (b"", "", 0)
    assert len(shell.store) == 0


def test_keys_of_other_forms(shell: Shell) -> None:
    shell.store.update({"a\nb": 1, b"c": 2})
    assert sorted(shell("keys", "--null").out.split(b"\0")) == [b"", b"a\nb", b"c"]
    told = [json.loads(line) for line in shell("keys", "--json").lines]
    assert sorted(told, key=str) == [{"key": "a\nb"}, {"key_base64": "Yw=="}]


def test_keys_with_a_prefix_and_many_of_them(shell: Shell) -> None:
    many = [f"user:{i}" for i in range(2_500)]
    shell.store.update({**dict.fromkeys(many, 0), "other": 1, b"user:bytes": 2})
    told = shell("keys", "--prefix", "user:")
    assert told.status == 0
    assert sorted(told.lines) == sorted(many)
    assert shell("keys", "--prefix", "nobody") == (b"", "", 0)


def test_range(shell: Shell) -> None:
    shell.store.update({"a": b"1", "b": "two\nlines", "c": 3, "d": b"\xff", b"b": b"bytes key"})
    assert shell("range", "b", "d") == (b'b\t"two\\nlines"\nc\t3\n', "", 0)
    assert shell("range", "c").lines == ["c\t3", "d\tb'\\xff'"]
    assert shell("range", "--limit", "2").lines == ["a\t1", 'b\t"two\\nlines"']
    assert shell("range", "x") == (b"", "", 0)
    assert shell("range", "--limit", "0") == (b"", "", 0)
    assert [json.loads(line) for line in shell("range", "c", "--json").lines] == [
        {"key": "c", "value": 3},
        {"key": "d", "base64": "/w=="},
    ]


def test_range_over_many_pages(shell: Shell) -> None:
    shell.store.update({f"k{i:05d}": i for i in range(2_300)})
    assert shell("range").lines == [f"k{i:05d}\t{i}" for i in range(2_300)]
    assert shell("range", "k00100", "--limit", "1500").lines == [f"k{i:05d}\t{i}" for i in range(100, 1_600)]


def test_range_backwards_is_for_stores_of_this_machine(shell: Shell) -> None:
    shell.store.update(a=b"1", b=b"2", c=b"3")
    told = shell("range", "--reverse", "--limit", "2")
    if shell.kind == "local":
        assert told == (b"c\t3\nb\t2\n", "", 0)
    else:
        assert (told.out, told.status) == (b"", 2)
        assert "--reverse" in told.err


def test_a_range_shows_every_value_as_python_writes_it(shell: Shell) -> None:
    values = [
        (2,),
        {"a": None},
        True,
        date(2026, 1, 2),
        [b"\0"],
        1 << 70,
        "with a tab\t",
        b"\xff",
        float("inf"),
        1 << 20_000,
    ]
    shell.store.update({f"k{at}": value for at, value in enumerate(values)})
    shown = [*map(repr, values[:9]), hex(1 << 20_000)]
    shown[6] = '"with a tab\\t"'
    assert shell("range") == ("".join(f"k{at}\t{text}\n" for at, text in enumerate(shown)).encode(), "", 0)
    forms = [json.loads(line) for line in shell("range", "--json").lines]
    assert {form["python"] for form in forms if "safe" in form} == {shown[0], shown[3], shown[4], shown[8], shown[9]}


# ---- What makes no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get"], "KEY"),
        (["get", b"\xff"], "UTF-8"),
        (["get", "--quoted", "base64:!"], "no quoted key"),
        (["get", "--quoted", '"half'], "no quoted key"),
        (["set", "k"], "'k' has none"),
        (["set", "k", "v", "--ttl", "0"], "more than 0"),
        (["set", "k", "v", "--ttl", "soon"], "--ttl"),
        (["set", "k", "@/no/such/file"], "cannot read /no/such/file"),
        (["set", "a", "-", "b", "-"], "two -"),
        (["set", "k", "x", "--type", "int"], "no int"),
        (["set", "k", "{", "--type", "json"], "no JSON"),
        (["set", "k", "NaN", "--type", "json"], "no NaN"),
        (["set", "k", b"\xff", "--type", "str"], "no UTF-8"),
        (["set", "k", "1", "--type", "int", "--content-type", "a/b"], "content type"),
        (["set", "k", "1", "--content-type", "ünï"], ""),
        (["set", "a", "1", "b", "2", "--if-absent"], "one key"),
        (["set", "a", "1", "--if-absent", "--if-present"], "not allowed with"),
        (["incr", "k", "--by", "1.5"], "whole number"),
        (["keys", "--null", "--json"], "exclude each other"),
        (["keys", "--prefix", b"\xff"], "UTF-8"),
        (["range", "--limit", "-1"], "0 or more"),
        (["range", b"\xff"], "UTF-8"),
    ],
    ids=repr,
)
def test_usage_errors_end_with_2_and_change_nothing(shell: Shell, words: list[str | bytes], said: str) -> None:
    told = shell(str(words[0]), *words[1:])
    assert (told.out, told.status) == (b"", 2)
    assert said in told.err
    assert len(shell.store) == 0


# ---- Which store ---------------------------------------------------------------------------------------


def test_the_environment_says_which_store(shell: Shell) -> None:
    variable = "SHMKV_STORE" if shell.kind == "local" else "SHMKV_URL"
    shell.store["k"] = b"v"
    assert run("get", "k", **{variable: shell.where[1]}) == (b"v", "", 0)
    assert run("get", "k", *shell.where, SHMKV_STORE="nowhere.at.all", SHMKV_URL="http://127.0.0.1:1").out == b"v"


def test_two_stores_in_the_environment_are_one_too_many() -> None:
    told = run("get", "k", SHMKV_STORE="a", SHMKV_URL="http://127.0.0.1:1")
    assert (told.out, told.status) == (b"", 2)
    assert "SHMKV_STORE and SHMKV_URL are both set" in told.err
    told = run("get", "k")
    assert (told.out, told.status) == (b"", 2)
    assert "which store?" in told.err


NO_SERVER = "http://127.0.0.1:9"  # of the discard protocol, which nobody has


@pytest.mark.parametrize(
    "words",
    [
        ("get", "k"),
        ("del", "k"),
        ("ttl", "k"),
        ("keys",),
        ("range",),
        ("stats",),
        ("metrics",),
        ("export",),
        ("check",),
        ("top", "--count", "1"),
    ],
    ids=lambda words: words[0],
)
def test_no_store_and_no_server_end_with_69(words: tuple[str, ...], name: str, tmp_path: Path) -> None:
    for where in (
        ("--store", name),
        ("--url", NO_SERVER),
        ("--path", str(tmp_path / "none")),
        ("--path", str(tmp_path)),
    ):
        told = run(*words, *where)
        assert (told.out, told.status) == (b"", 69), told
        assert told.err.startswith(f"shmkv {words[0]}: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("set", "k", "v"), ("incr", "k")], ids=lambda words: words[0])
def test_what_stores_makes_the_store(words: tuple[str, ...], name: str, tmp_path: Path) -> None:
    assert run(*words, "--store", name).status == 0
    with Store.attach(name) as store:
        assert "k" in store
    assert run(*words, "--path", str(tmp_path / "new")).status == 0
    assert run("keys", "--path", str(tmp_path / "new")) == (b"k\n", "", 0)
    assert run(*words, "--url", NO_SERVER).status == 69


@pytest.mark.parametrize("url", ["shop:8003", "http://", "ftp://shop", "unix:", "http://shop:port", "http://shop/?q=1"])
def test_an_impossible_url_is_a_usage_error(url: str) -> None:
    told = run("get", "k", "--url", url)
    assert (told.out, told.status) == (b"", 2)
    assert "http://HOST:PORT" in told.err


def test_an_impossible_name_is_a_usage_error() -> None:
    for command in (("get", "k"), ("set", "k", "v")):
        told = run(*command, "--store", "no such/name")
        assert (told.out, told.status) == (b"", 2)
        assert "no such/name" in told.err

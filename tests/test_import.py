"""`shmkv import`, and the engine's TSV loader under it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import MIB, PATIENCE, python_environment, run_python, wait_until
from test_cli import run_cli

from shmkv import Store
from shmkv.cli import main as cli
from shmkv.cli.source import Source, guess_format, read_chunks

Import = Callable[..., dict[str, Any]]
NO_TAB = "no TAB between key and value"


@pytest.fixture
def load(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """`load(bytes, *words)`: import them into `store` in this process; the report, with "status" and "stderr"."""

    def load(data: bytes, *words: str, file: str = "data.tsv") -> dict[str, Any]:
        path = tmp_path / file
        path.write_bytes(data)
        capsys.readouterr()
        status = cli.main(["import", str(path), "--store", store.name, "--json", "--no-progress", *words])
        captured = capsys.readouterr()
        told: dict[str, Any] = json.loads(captured.out) if captured.out else {}
        return {**told, "status": status, "stderr": captured.err}

    return load


def bad_lines(told: dict[str, Any]) -> list[int]:
    return [bad["line"] for bad in told["malformed"]]


# ---- TSV -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (b"", {}),
        (b"a\tb\n", {"a": "b"}),
        (b"a\tb", {"a": "b"}),
        (b"a\tb\r\nc\td\r\n", {"a": "b", "c": "d"}),
        (b"\n\na\tb\n\n\r\nc\td\n\n", {"a": "b", "c": "d"}),
        (b"\t\n", {"": ""}),
        (b"a\t\n\tb\n", {"a": "", "": "b"}),
        (rb"a\tb" + b"\t" + rb"1\n2\r3\\4" + b"\n", {"a\tb": "1\n2\r3\\4"}),
        (b"\xef\xbb\xbfa\tb\n", {"a": "b"}),
        ("é\tü€😀\n".encode(), {"é": "ü€😀"}),
        (b"a\tfirst\nb\tx\na\tlater\n", {"a": "later", "b": "x"}),
        (b"a\tnul\x00inside\n", {"a": "nul\x00inside"}),
        (b"a\tcr\rinside\n", {"a": "cr\rinside"}),
    ],
)
@pytest.mark.parametrize("threads", ["1", "4"])
def test_tsv(load: Import, store: Store, text: bytes, pairs: dict[str, str], threads: str) -> None:
    told = load(text, "--threads", threads)
    assert told["status"] == 0
    assert dict(store) == pairs
    assert told["bytes"] == len(text.removeprefix(b"\xef\xbb\xbf")) + (text[-1:] not in (b"", b"\n"))
    assert told["error"] is None


MALFORMED = [
    (b"no tab", NO_TAB),
    (b"a\tb\tc", "more than one TAB"),
    (rb"C:\dir" + b"\tvalue", "backslash"),
    (b"key\ttrailing\\", "backslash"),
    (b"\xff\tvalue", "key is not valid UTF-8"),
    (b"key\t\xed\xa0\x80", "value is not valid UTF-8"),
    (b"key\t\xc0\xaf", "value is not valid UTF-8"),
    (b"key\t\xf4\x90\x80\x80", "value is not valid UTF-8"),
    (b"key\t\xf0\x9f\x98", "value is not valid UTF-8"),
    (b"k" * 65_536 + b"\tvalue", "longer than 65,535 bytes"),
    (b"large\t" + b"v" * (17 << 20), "too large for this store"),
    (b"endless" * (6 << 20), "longer than anything"),
]


@pytest.mark.parametrize(("line", "reason"), MALFORMED, ids=[reason for _, reason in MALFORMED])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_tsv_malformed(load: Import, store: Store, line: bytes, reason: str, threads: str) -> None:
    text = b"a\t1\n\nb\t2\n" + line + b"\nc\t3\n"
    told = load(text, "--threads", threads)
    assert (told["status"], told["stopped_at"], bad_lines(told)) == (1, 4, [4])
    assert reason in told["malformed"][0]["reason"]
    assert "line 4" in told["stderr"]
    if threads == "1":
        assert dict(store) == {"a": "1", "b": "2"}
    assert store["b"] == "2"
    told = load(text, "--threads", threads, "--on-error", "skip")
    assert (told["status"], told["stopped_at"], bad_lines(told)) == (0, None, [4])
    assert (told["pairs"], told["lines"]) == (3, 5)
    assert dict(store) == {"a": "1", "b": "2", "c": "3"}


def test_the_longest_key_and_an_almost_too_large_value(load: Import, store: Store) -> None:
    key, value = b"k" * 65_535, b"v" * (8 * MIB)
    assert load(key + b"\tx\nlarge\t" + value + b"\n")["status"] == 0
    assert store[key.decode()] == "x"
    assert store["large"] == value.decode()


def test_many_malformed_lines_are_all_counted(load: Import, store: Store) -> None:
    lines = [b"bad" if i % 3 else b"k%d\tv" % i for i in range(9_000)]
    told = load(b"\n".join(lines), "--on-error", "skip", "--threads", "2")
    assert (told["pairs"], told["malformed_count"], told["lines"]) == (3_000, 6_000, 9_000)
    assert bad_lines(told) == [i + 1 for i in range(9_000) if i % 3][:1_000]
    assert len(store) == 3_000


@pytest.mark.parametrize("threads", ["1", "4"])
def test_line_numbers_hold_over_chunks(load: Import, store: Store, threads: str) -> None:
    count, bad = 200_000, 123_456
    lines = [b"key:%07d\t%020d" % (i, i) for i in range(1, count + 1)]
    lines[bad - 1] = b"malformed"
    told = load(b"\n".join(lines) + b"\n", "--threads", threads)
    assert (told["status"], told["stopped_at"], told["malformed_count"]) == (1, bad, 1)
    assert all(store.get(f"key:{i:07d}") == f"{i:020d}" for i in range(1, bad))
    if threads == "1":
        assert len(store) == bad - 1 == told["pairs"]
    else:
        assert len(store) == told["pairs"]


def test_four_threads_load_what_is_in_the_file(load: Import, store: Store, rng: random.Random) -> None:
    pairs = {f"k{rng.random()}": "v" * rng.randrange(100) for _ in range(100_000)}
    told = load("".join(f"{k}\t{v}\n" for k, v in pairs.items()).encode(), "--threads", "4")
    assert (told["pairs"], told["lines"]) == (len(pairs), len(pairs))
    assert dict(store) == pairs


# What a line means, written a second time, and differently.

_ESCAPES = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}


def _unescape(text: bytes) -> str | None:
    parts, at = [], 0
    string = text.decode("latin-1")
    while at < len(string):
        two = string[at : at + 2]
        if string[at] == "\\":
            if two not in _ESCAPES:
                return None
            parts.append(_ESCAPES[two])
            at += 2
        else:
            parts.append(string[at])
            at += 1
    try:
        return "".join(parts).encode("latin-1").decode()
    except UnicodeDecodeError:
        return None


def _expected(text: bytes) -> tuple[dict[str, str], list[int]]:
    pairs, bad = {}, []
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        fields = [_unescape(part) for part in line.removesuffix(b"\r").split(b"\t")]
        if line in (b"", b"\r"):
            continue
        if len(fields) == 2 and fields[0] is not None and fields[1] is not None:
            pairs[fields[0]] = fields[1]
        else:
            bad.append(number)
    return pairs, bad


def test_random_texts_against_a_second_parser(make_store: Callable[..., Store], rng: random.Random) -> None:
    pieces = [b"a", b"b", b"\t", b"\n", b"\r", b"\r\n", b"\\", b"\\n", b"\\t", b"\\\\", b"\\r", b"\x00"]
    pieces += [b"\xc3\xa9", b"\xff", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x82", b"key\tvalue\n", b"k\tv\r\n"]
    store = make_store()
    for _ in range(300):
        weights = [rng.random() ** 3 for _ in pieces]
        text = b"".join(rng.choices(pieces, weights, k=rng.choice([1, 10, 100, 2_000])))
        pairs, bad = _expected(text)
        store.clear()
        whole = text.rfind(b"\n") + 1
        assert store._load_tsv(text, 1, 1, 0)[2] == whole
        assert dict(store) == pairs
        assert [line for line, _ in store._load_tsv(text, 1, 1, 0)[3]] == bad
        stored, lines, consumed, found = store._load_tsv(text, 0, 1, 0)
        if bad:
            assert [line for line, _ in found] == bad[:1]
            assert (lines, consumed) == (bad[0] - 1, sum(len(line) + 1 for line in text.split(b"\n")[: bad[0] - 1]))
            store.clear()
            store._load_tsv(text, 0, 1, 0)
            assert dict(store) == _expected(text[:consumed])[0]
        else:
            assert (stored, consumed) == (store._load_tsv(text, 1, 1, 0)[0], whole)


def test_what_was_consumed_ends_before_a_value_that_is_too_large(make_store: Callable[..., Store]) -> None:
    store = make_store(size="4MiB")
    text = b"a\t1\n\n\nlarge\t" + b"v" * (2 * MIB) + b"\nb\t2\n"
    assert store._load_tsv(text, 0, 10, 0) == (1, 3, 6, [(13, "the value is too large for this store")])
    assert store._load_tsv(text, 1, 10, 0) == (2, 5, len(text), [(13, "the value is too large for this store")])


# ---- CSV -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "pairs"),
    [
        (b"a,b\nc,d\n", [], {"a": "b", "c": "d"}),
        (b'"a,1","line 1\nline 2"\r\nb,"say ""hi"""\r\n', [], {"a,1": "line 1\nline 2", "b": 'say "hi"'}),
        (b"\xef\xbb\xbfa,b\n\n\nc,d", [], {"a": "b", "c": "d"}),
        (b"id,value,key\n1,x,a\n2,y,b\n", ["--key-field", "key"], {"a": "x", "b": "y"}),
        (b"id,name\n1,x\n2,y\n", ["--key-field", "id", "--value-field", "name"], {"1": "x", "2": "y"}),
        ("é,ü\n".encode(), [], {"é": "ü"}),
        (b"", [], {}),
    ],
)
def test_csv(load: Import, store: Store, text: bytes, words: list[str], pairs: dict[str, str]) -> None:
    told = load(text, "--threads", "2", *words, file="data.csv")
    assert told["status"] == 0
    assert dict(store) == pairs
    assert told["pairs"] == len(pairs)


@pytest.mark.parametrize(
    ("row", "reason", "lines"),
    [
        (b"only one", "1 columns instead of 2", 1),
        (b"a,b,c", "3 columns instead of 2", 1),
        (b"\xff,value", "key is not valid UTF-8", 1),
        (b"key,\xff", "value is not valid UTF-8", 1),
        (b"k" * 65_536 + b",value", "65535", 1),
        (b'"quoted"then not,b', "not CSV", 1),
    ],
)
def test_csv_malformed(load: Import, store: Store, row: bytes, reason: str, lines: int) -> None:
    text = b'a,"1\n1"\n' + row + b"\nc,3\n"
    told = load(text, file="data.csv")
    assert (told["status"], told["stopped_at"], bad_lines(told)) == (1, 3, [3])
    assert reason in told["malformed"][0]["reason"]
    assert dict(store) == {"a": "1\n1"}
    told = load(text, "--on-error", "skip", file="data.csv")
    assert (told["status"], bad_lines(told), told["lines"]) == (0, [3], 3 + lines)
    assert dict(store) == {"a": "1\n1", "c": "3"}


def test_csv_with_an_open_quote_says_so(load: Import, store: Store) -> None:
    told = load(b'a,b\nc,"open\nd,e\n', file="data.csv")
    assert (told["status"], told["stopped_at"]) == (1, 2)
    assert dict(store) == {"a": "b"}


def test_csv_without_the_named_field(load: Import, store: Store) -> None:
    told = load(b"a,b\nc,d\n", "--key-field", "id", file="data.csv")
    assert (told["status"], told["stopped_at"]) == (1, 1)
    assert "'id'" in told["malformed"][0]["reason"]
    assert len(store) == 0


def test_large_csv_with_line_numbers(load: Import, store: Store) -> None:
    rows = [f'k{i},"{i}\n{i}"' for i in range(20_000)]
    rows[15_000] = "bad"
    told = load("\n".join(rows).encode(), "--threads", "3", file="data.csv")
    assert (told["stopped_at"], told["pairs"]) == (30_001, len(store))
    assert all(store[f"k{i}"] == f"{i}\n{i}" for i in range(15_000))


# ---- JSON Lines ------------------------------------------------------------------------------


def test_jsonl(load: Import, store: Store) -> None:
    values = [1, -1.5, "text", None, True, [1, [2, {}]], {"a": [1]}, 123456789012345678901234567890, ""]
    lines = [json.dumps({"key": f"o{i}", "value": value, "more": 0}) for i, value in enumerate(values)]
    lines += ["", *(json.dumps([f"a{i}", value]) for i, value in enumerate(values)), "   "]
    told = load("\r\n".join(lines).encode(), "--threads", "2", file="data.jsonl")
    assert (told["status"], told["pairs"]) == (0, 2 * len(values))
    for i, value in enumerate(values):
        assert repr(store[f"o{i}"]) == repr(store[f"a{i}"]) == repr(value)


def test_jsonl_with_named_fields_and_ttl(load: Import, store: Store) -> None:
    text = b'{"id": "a", "doc": {"x": 1}, "ttl": 100}\n{"id": "b", "doc": 2}\n{"id": "c", "doc": 3, "ttl": null}\n'
    told = load(text, "--key-field", "id", "--value-field", "doc", "--ttl", "50", file="data.ndjson")
    assert told["status"] == 0
    assert dict(store) == {"a": {"x": 1}, "b": 2, "c": 3}
    assert 90 < (store.ttl("a") or 0) <= 100
    assert 40 < (store.ttl("b") or 0) <= 50
    assert store.ttl("c") is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON"),
        (b'{"key": "a"}', "no field 'value'"),
        (b'{"value": 1}', "no field 'key'"),
        (b'["a"]', "neither an object nor an array"),
        (b'"a"', "neither an object nor an array"),
        (b"[1, 2]", "key is no string but 1"),
        (b'{"key": "a", "value": 1, "ttl": -1}', "greater than 0"),
        (b'{"key": "a", "value": 1, "ttl": true}', "greater than 0"),
        (b'["a", "\xff"]', "the line is not valid UTF-8"),
        (b'{"key": "\xc3\x28", "value": 1}', "the line is not valid UTF-8"),
        (b'["' + b"k" * 65_536 + b'", 1]', "65535"),
        (b'["deep", ' + b"[" * 5_000 + b"]" * 5_000 + b"]", "nested too deep"),
        (b'["deep", ' + b"[" * 300 + b"]" * 300 + b"]", "nesting"),
    ],
)
def test_jsonl_malformed(load: Import, store: Store, line: bytes, reason: str) -> None:
    text = b'["x", 1]\n\n' + line + b'\n["y", 2]\n'
    told = load(text, file="data.jsonl")
    assert (told["status"], told["stopped_at"], bad_lines(told)) == (1, 3, [3])
    assert reason in told["malformed"][0]["reason"]
    assert dict(store) == {"x": 1}
    told = load(text, "--on-error", "skip", file="data.jsonl")
    assert (told["status"], bad_lines(told), told["pairs"], told["lines"]) == (0, [3], 2, 4)
    assert dict(store) == {"x": 1, "y": 2}


# ---- Formats, sources ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "pairs"),
    [
        ("x.tab", b"a\tb,c\n", {"a": "b,c"}),
        ("x.CSV", b"a,b\tc\n", {"a": "b\tc"}),
        ("x.txt", b"a\tb,c\n", {"a": "b,c"}),
        ("x", b"\n\na,b\n", {"a": "b"}),
        ("x.dat", b'{"key": "a", "value": 1}\n', {"a": 1}),
        ("x.dat", b' ["a", 1]\n', {"a": 1}),
        ("x.dat", b"", {}),
    ],
)
def test_the_format_is_found(load: Import, store: Store, file: str, text: bytes, pairs: dict[str, Any]) -> None:
    assert load(text, file=file)["status"] == 0
    assert dict(store) == pairs


def test_a_format_that_nothing_tells_is_a_usage_error(load: Import, store: Store) -> None:
    told = load(b"what is this\n", file="x.dat")
    assert told["status"] == 2
    assert "--format" in told["stderr"]
    assert load(b"a\tb\n", "--key-field", "id")["status"] == 2
    assert len(store) == 0


def test_standard_input(name: str) -> None:
    out, err, status = run_cli("import", "-", "--store", name, "--size", "16MiB", stdin=b"a\t1\nb\t2\n")
    assert (status, err) == (0, "")
    assert out.startswith("2 pairs from 2 lines (8 B) of standard input are in ")
    with Store.attach(name) as store:
        assert dict(store) == {"a": "1", "b": "2"}
        assert store.size == 16 * MIB


@pytest.mark.parametrize("path", ["missing.tsv", "."])
def test_a_file_that_cannot_be_read_is_a_usage_error(
    name: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["import", str(tmp_path / path), "--store", name]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert name not in {entry.name for entry in __import__("shmkv").list_stores()}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_are_whole_lines(tmp_path: Path, size: int, rng: random.Random) -> None:
    data = b"\n".join(b"x" * rng.randrange(12) for _ in range(300))
    path = tmp_path / "lines"
    path.write_bytes(data)
    with Source.open(str(path)) as source:
        chunks = [chunk.data for chunk in read_chunks(source, 1_000_000, size)]
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    assert b"".join(chunks).removesuffix(b"\n") == data.removesuffix(b"\n")


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_line_beyond_the_limit_is_not_collected(tmp_path: Path, size: int) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\n" + b"x" * 500 + b"\nb\nc")
    with Source.open(str(path)) as source:
        chunks = list(read_chunks(source, 100, size))
    assert sum(chunk.too_long for chunk in chunks) == 1
    assert b"".join(chunk.data for chunk in chunks) == b"a\nb\nc\n"


def test_the_first_line_may_be_far_away(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\n" * 200_000 + b"k\tv\n")
    with Source.open(str(path)) as source:
        assert guess_format(source) in ("tsv", None)
        assert sum(len(chunk.data) for chunk in read_chunks(source, 1 << 20)) == 200_004


# ---- The store -------------------------------------------------------------------------------


def test_ttl(load: Import, store: Store) -> None:
    assert load(b"a\tb\n", "--ttl", "100.5")["status"] == 0
    assert 95 < (store.ttl("a") or 0) <= 100.5


def test_an_existing_store_of_another_size(load: Import, store: Store) -> None:
    told = load(b"a\tb\n", "--size", "8MiB")
    assert told["status"] == 73
    assert len(store) == 0
    assert load(b"a\tb\n", "--size", "64MiB")["status"] == 0


@pytest.mark.parametrize("words", [["--size", "much"], ["--store", "a/b"]])
def test_arguments_that_no_store_takes(load: Import, words: list[str]) -> None:
    assert load(b"a\tb\n", *words)["status"] == 2


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
def test_a_full_store_keeps_what_was_stored(
    name: str, tmp_path: Path, threads: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"tsv": "k{0}\t{1}", "csv": "k{0},{1}", "jsonl": '["k{0}", "{1}"]'}[suffix]
    path = tmp_path / f"data.{suffix}"
    path.write_text("".join(line.format(i, "v" * 500) + "\n" for i in range(20_000)))
    words = ["import", str(path), "--store", name, "--size", "4MiB", "--threads", threads]
    assert cli.main([*words, "--json"]) == 73
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["error"] in captured.err
    with Store.attach(name) as store:
        assert 1_000 < len(store) < 20_000
        assert told["pairs"] <= len(store)
        assert all(store[key] == "v" * 500 for key in store)


def test_the_report_in_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("a\tb\nbad\nc\td\n")
    words = ["import", str(path), "--store", name, "--size", "4MiB", "--no-progress"]
    assert cli.main([*words, "--on-error", "skip"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("2 pairs from 3 lines (12 B) of ")
    assert captured.out.rstrip().endswith("1 thread")
    assert captured.err == f"line 2: {NO_TAB}\n1 malformed line skipped\n"
    assert cli.main([*words, "--threads", "2"]) == 1
    assert "stopped at line 2: all pairs before it are stored, and perhaps some behind it" in capsys.readouterr().err


# ---- A process of its own --------------------------------------------------------------------


def test_interrupted_by_the_user_what_was_stored_stays(name: str) -> None:
    command = [sys.executable, "-m", "shmkv", "import", "-", "--store", name, "--size", "16MiB", "--threads", "2"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=python_environment(),
        cwd=tempfile.gettempdir(),
    )
    assert process.stdin is not None
    try:
        process.stdin.write(b"a\t1\nb\t2\nhalf a li")
        process.stdin.flush()
        wait_until(lambda: _length(name) == 2, what="two pairs stored")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20 * PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert out.startswith(b"at least 2 pairs")
    assert b"interrupted" in err
    assert b"Traceback" not in err


def _length(name: str) -> int:
    try:
        with Store.attach(name, readonly=True) as store:
            return len(store)
    except OSError:
        return -1


def test_a_large_file_is_not_held_in_memory(name: str, tmp_path: Path) -> None:
    """160 MiB of lines, by a process that may have 96 MiB of data, stacks of five threads included."""
    path = tmp_path / "large.tsv"
    value = b"v" * 8_000
    with path.open("wb") as file:
        for i in range(20 * 1024):
            file.write(b"k%d\t%b\n" % (i % 4_000, value))
    assert path.stat().st_size > 150 * MIB
    run_python(
        """
import resource, sys
limit = 96 << 20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
from shmkv.cli.main import main
sys.exit(main(["import", sys.argv[1], "--store", sys.argv[2], "--size", "64MiB", "--threads", "4"]))
""",
        str(path),
        name,
    )
    with Store.attach(name) as store:
        assert len(store) == 4_000


def test_progress_on_a_terminal_and_elsewhere(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.tsv"
    path.write_text("".join(f"k{i}\tv\n" for i in range(50_000)))
    command = [sys.executable, "-m", "shmkv", "import", str(path), "--store", name, "--size", "64MiB"]
    terminal, inside = os.openpty()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=inside, env=python_environment(), timeout=60)
    finally:
        os.close(inside)
        os.close(terminal)
    assert done.returncode == 0
    assert done.stdout.startswith(b"50,000 pairs")
    out, err, status = run_cli(*command[3:])
    assert (status, err) == (0, "")
    assert out.startswith("50,000 pairs")


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    from shmkv.cli.progress import Lines, Silent, progress

    assert isinstance(progress(None, wanted=False), Silent)
    shown = Lines(4 << 20, end="\n", every_s=0.01)
    shown(0, 0)
    time.sleep(0.02)
    shown(1 << 20, 1_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("25 %  1.0 MiB of 4.0 MiB  ")
    assert "pairs/s" in lines[0]
    assert lines[0].endswith(" left")

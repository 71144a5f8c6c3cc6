"""Results as text: pure functions, no printing, nothing imported but the standard library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_SHOWN_LINES: Final = 20
_SHOWN_PROBLEMS: Final = 3


# ---- Numbers -------------------------------------------------------------------------------


def format_bytes(size: float) -> str:
    """Bytes for people, in powers of 1024.

    >>> format_bytes(512), format_bytes(1536), format_bytes(3 << 30)
    ('512 B', '1.5 KiB', '3.0 GiB')
    """
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def format_ns(ns: float) -> str:
    """A duration in the unit that suits it.

    >>> format_ns(430), format_ns(12_300), format_ns(4_560_000), format_ns(7.8e9)
    ('430 ns', '12.3 µs', '4.56 ms', '7.80 s')
    """
    if ns < 1e3:
        return f"{ns:.0f} ns"
    if ns < 1e6:
        return f"{ns / 1e3:.{1 if ns >= 1e4 else 2}f} µs"
    if ns < 1e9:
        return f"{ns / 1e6:.2f} ms"
    return f"{ns / 1e9:.2f} s"


def format_rate(count: float, seconds: float, what: str) -> str:
    """Things per second.

    >>> format_rate(3_000_000, 2.0, "pairs")
    '1,500,000 pairs/s'
    """
    return f"{count / seconds if seconds > 0 else 0:,.0f} {what}/s"


def format_time_left(done: int, total: int | None, seconds: float) -> str:
    """Minutes and seconds until `total` is reached at the rate so far.

    >>> format_time_left(25, 100, 10.0), format_time_left(25, None, 10.0)
    ('0:30 left', '')
    """
    if not total or not done:
        return ""
    left = round(seconds * (total - done) / done)
    return f"{left // 60}:{left % 60:02d} left"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Columns, the first to the left, the others to the right.

    >>> print(format_table(("what", "n"), [("a", "1"), ("bc", "20")]))
    what   n
    a      1
    bc    20
    """
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = [
        [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in table
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


# ---- import --------------------------------------------------------------------------------


def format_progress(done_bytes: int, total: int | None, pairs: int, seconds: float) -> str:
    """One line while a file is loaded.

    >>> format_progress(1 << 20, 4 << 20, 50_000, 0.5)
    '25 %  1.0 MiB of 4.0 MiB  2.0 MiB/s  100,000 pairs/s  0:02 left'
    """
    share = [f"{100 * done_bytes // total} %"] if total else []
    size = f"{format_bytes(done_bytes)} of {format_bytes(total)}" if total else format_bytes(done_bytes)
    speed = f"{format_bytes(done_bytes / seconds if seconds > 0 else 0)}/s"
    left = format_time_left(done_bytes, total, seconds)
    return "  ".join([*share, size, speed, format_rate(pairs, seconds, "pairs"), *([left] if left else [])])


def format_import(report: Mapping[str, Any]) -> str:
    """What `shmkv import` did, in a sentence."""
    at_least = "at least " if report["error"] else ""
    threads = "1 thread" if report["threads"] == 1 else f"{report['threads']} threads"
    return (
        f"{at_least}{report['pairs']:,} pairs from {report['lines']:,} lines ({format_bytes(report['bytes'])}) of "
        f"{report['source']} are in {report['store']!r}: {report['seconds']:.2f} s, "
        f"{format_rate(report['pairs'], report['seconds'], 'pairs')}, "
        f"{format_bytes(report['bytes'] / report['seconds'] if report['seconds'] else 0)}/s, {threads}"
    )


def format_malformed(report: Mapping[str, Any]) -> str:
    """The malformed lines, and what was done about them; empty if there were none."""
    count = report["malformed_count"]
    if not count:
        return ""
    lines = [f"line {bad['line']:,}: {bad['reason']}" for bad in report["malformed"][:_SHOWN_LINES]]
    if report["stopped_at"] is not None:
        also = ", and perhaps some behind it" if report["threads"] > 1 else ""
        lines.append(f"stopped at line {report['stopped_at']:,}: all pairs before it are stored{also}")
    else:
        if count > len(lines):
            lines.append(f"... and {count - len(lines):,} more")
        lines.append(f"{count:,} malformed line{'s' if count > 1 else ''} skipped")
    return "\n".join(lines)


# ---- check ---------------------------------------------------------------------------------


def check_dict(store: str, report: Mapping[str, Any], *, deep: bool) -> dict[str, Any]:
    """A check's report, with the store that it is about."""
    counted = {name: value for name, value in report.items() if name not in ("ok", "problems")}
    problems = list(report["problems"])
    return {"store": store, "deep": deep, **counted, "ok": not problems, "problems": problems}


def format_check(found: Mapping[str, Any]) -> str:
    """What `shmkv check` found."""
    how = "deep check" if found["deep"] else "check"
    numbers = ", ".join(
        f"{value:,} {name.replace('_', ' ')}"
        for name, value in found.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )
    if found["ok"]:
        return f"{how} of {found['store']!r}: all is well ({numbers})"
    problems = found["problems"]
    head = f"{how} of {found['store']!r}: {len(problems):,} problem{'s' if len(problems) > 1 else ''} ({numbers})"
    shown = [f"  {problem['invariant']}: {problem['sentence']}" for problem in problems[:_SHOWN_LINES]]
    more = [f"  ... and {len(problems) - _SHOWN_LINES:,} more"] if len(problems) > _SHOWN_LINES else []
    return "\n".join([head, *shown, *more])


# ---- stats, ls, compact --------------------------------------------------------------------


def format_stats(stats: Mapping[str, Any]) -> str:
    """What `shmkv stats` says, of a store here or of a server's."""
    rows = [
        ("store", stats["path"] or stats["name"]),
        ("items", f"{stats['items']:,} with {format_bytes(stats['value_bytes'])} of values"),
        ("gets", f"{stats['gets']:,}, {100 * stats['hit_rate']:.1f} % hits ({stats['retries']:,} repeated)"),
        ("sets", f"{stats['sets']:,} ({stats['lock_waits']:,} waited for another writer)"),
        ("deletes", f"{stats['deletes']:,}; {stats['expired']:,} expired, {stats['evicted']:,} evicted"),
        ("memory", format_memory(stats)),
        ("tables", f"{format_bytes(stats['table_bytes'])} in {stats['buckets']:,} buckets"),
        ("processes", ", ".join(map(format_process, stats["processes"])) or "none"),
        *([("stale", "its name leads to another store by now, or to none")] if stats.get("stale") else []),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in rows)


def format_memory(stats: Mapping[str, Any]) -> str:
    """How much a store uses, takes and may take.

    >>> format_memory({"used": 3 << 20, "committed": 4 << 20, "size": 1 << 30})
    '3.0 MiB used, 4.0 MiB taken of 1.0 GiB'
    """
    used, committed, size = (format_bytes(stats[name]) for name in ("used", "committed", "size"))
    full = f" ({100 * stats['fill']:.1f} % full: writes will be refused)" if stats.get("nearly_full") else ""
    return f"{used} used, {committed} taken of {size}{full}"


def format_process(process: Mapping[str, Any]) -> str:
    """A process that is attached.

    >>> format_process({"pid": 7, "name": "python", "status": "sleeping"})
    'python 7 (sleeping)'
    >>> format_process({"pid": 7, "name": None, "status": "unseen"})
    '7 (cannot be seen from here)'
    """
    name = f"{process['name']} " if process["name"] else ""
    status = "cannot be seen from here" if process["status"] in (None, "unseen") else process["status"]
    return f"{name}{process['pid']} ({status})"


def format_stores(stores: Sequence[Mapping[str, Any]], reader: int, *, users: bool = False) -> str:
    """The stores of a machine.

    Args:
        reader: the user who reads it.
        users: say whose each is.
    """
    header = ("name", *(("user",) if users else ()), "size", "taken", "processes", "when full", "created")
    rows = [
        [
            store["name"],
            *((user_name(store["uid"]),) if users else ()),
            format_bytes(store["size"]) if store["size"] is not None else "?",
            format_bytes(store["committed"]),
            str(store["processes"]),
            store["on_full"] or "?",
            store["created"] or "?",
        ]
        for store in stores
    ]
    paths = [f"{store['name']} is {store['path']}" for store in stores if store.get("path") and not store["problem"]]
    problems = [
        f"{store['name']}: {store['problem']}"
        + (
            f"; shmkv export --store {store['name']} > FILE, then shmkv unlink {store['name']}"
            if store.get("path") and store["uid"] == reader
            else ""
        )
        for store in stores
        if store["problem"]
    ]
    return "\n".join([format_table(header, rows), *paths, *problems])


def user_name(uid: int) -> str:
    """How a user is called here, or his number.

    >>> user_name(0), user_name(4_000_000_000)
    ('root', '4000000000')
    """
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # of a container, perhaps
        return str(uid)


# ---- keys ----------------------------------------------------------------------------------


def format_left(seconds: float | None) -> str:
    """Seconds until something goes, in the unit that suits them.

    >>> format_left(None), format_left(90.4), format_left(7300), format_left(200_000)
    ('-', '90 s', '122 min', '55.6 h')
    """
    if seconds is None:
        return "-"
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 36_000 else f"{seconds / 3600:.1f} h"


def format_largest(rows: Sequence[tuple[str, str, int, float | None]]) -> str:
    """Keys with their sizes: (key, type, bytes, seconds left).

    >>> print(format_largest([("user:1", "dict", 1_200, 90.0)]))
    type  bytes  expires in
    dict  1,200        90 s  user:1
    """
    table = format_table(
        ("type", "bytes", "expires in"), [(t, f"{size:,}", format_left(ttl)) for _, t, size, ttl in rows]
    )
    head, *lines = table.splitlines()
    return "\n".join([head, *(f"{line}  {row[0]}" for line, row in zip(lines, rows, strict=True))])


def format_prefixes(rows: Sequence[tuple[str, Mapping[str, Any]]], evicted: int) -> str:
    """What prefixes take, and what the store evicted since it was made.

    >>> print(format_prefixes([("user:", {"items": 2, "bytes": 40, "expiring": 1, "next_ttl": 5.0})], 0))
    prefix  items  bytes  expiring  next in
    user:       2     40         1      5 s
    """
    header = ("prefix", "items", "bytes", "expiring", "next in")
    table = format_table(
        header,
        [
            (name, f"{row['items']:,}", f"{row['bytes']:,}", f"{row['expiring']:,}", format_left(row["next_ttl"]))
            for name, row in rows
        ],
    )
    return table + (f"\n{evicted:,} items were evicted from the whole store since it was made" if evicted else "")


def format_compact(report: Mapping[str, Any]) -> str:
    """What a compaction did.

    >>> print(format_compact({"expired": 2, "leaks": 0, "moved": 10, "pages_freed": 3, "bytes_returned": 0,
    ...                       "slots_reclaimed": 1}))
    2 expired items dropped, 10 blocks moved, 3 pages freed, 0 B given back to the system; of 1 dead processes 0 blocks
    """
    return (
        f"{report['expired']:,} expired items dropped, {report['moved']:,} blocks moved, "
        f"{report['pages_freed']:,} pages freed, {format_bytes(report['bytes_returned'])} given back to the system; "
        f"of {report['slots_reclaimed']:,} dead processes {report['leaks']:,} blocks"
    )


# ---- top -----------------------------------------------------------------------------------


def rates(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> dict[str, float]:
    """What happened between two looks at `stats`, for each second; a store that began anew counts from nothing.

    >>> zero = dict.fromkeys(("gets", "hits", "sets", "deletes", "expired", "evicted"), 0)
    >>> told = rates(zero, {**zero, "gets": 10, "hits": 9}, 2.0)
    >>> told["gets_per_s"], told["hit_rate"]
    (5.0, 0.9)
    """

    def moved(name: str) -> int:
        return int(max(0, after[name] - before[name]))

    told = {
        f"{name}_per_s": round(moved(name) / seconds, 1) for name in ("gets", "sets", "deletes", "expired", "evicted")
    }
    return {**told, "hit_rate": round(moved("hits") / moved("gets"), 4) if moved("gets") else 0.0}


def format_top(view: Mapping[str, Any]) -> str:
    """A line for one interval."""
    stats = view["stats"]
    return "  ".join(
        [
            f"{stats['items']:,} items",
            f"{view['gets_per_s']:,.0f} gets/s ({100 * view['hit_rate']:.1f} % hits)",
            f"{view['sets_per_s']:,.0f} sets/s",
            f"{view['deletes_per_s']:,.0f} deletes/s",
            format_memory(stats),
            f"{len(stats['processes'])} processes",
        ]
    )


# ---- doctor --------------------------------------------------------------------------------


def _whose(finding: Mapping[str, Any], reader: int) -> str:
    """The store, and of another user's whose it is."""
    about, uid = finding["about"], finding["uid"]
    return about if uid == reader else f"{about} of user {user_name(uid)}"


def format_findings(stores: int, findings: Sequence[Mapping[str, Any]], reader: int) -> str:
    """What `shmkv doctor` found, each with its remedy."""
    looked = f"{stores:,} store{'' if stores == 1 else 's'} looked at"
    if not findings:
        return f"{looked}: nothing is wrong"
    told = [f"{_whose(one, reader)}: {one['what']}\n    {one['why']}\n    mend it: {one['mend']}" for one in findings]
    return "\n".join([*told, f"{looked}, {len(findings):,} finding{'' if len(findings) == 1 else 's'}"])


# ---- bench ---------------------------------------------------------------------------------

_OPERATIONS: Final = {"get": "get", "put": "put", "rmw": "gets + cas"}


def format_bench(report: Mapping[str, Any]) -> str:
    """What `shmkv bench` measured."""
    return "\n\n".join(
        [
            _bench_head(report),
            _bench_mixes(report["mixes"]),
            _bench_memory(report["memory"], report["load"]),
            _bench_checks(report["checks"]),
        ]
    )


def _bench_head(report: Mapping[str, Any]) -> str:
    machine, config = report["machine"], report["config"]
    low, high = config["value_size"]
    size = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"{config['keys']:,} keys of 13 bytes, values of {size} bytes, "
        f"{config['workers']} worker process{'es' if config['workers'] > 1 else ''}\n"
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, {machine['python']}"
    )


def _bench_mixes(mixes: Sequence[Mapping[str, Any]]) -> str:
    header = ("workload", "calls/s", "operation", "p50", "p95", "p99", "p99.9", "max")
    rows = []
    for mix in mixes:
        name, rate = f"{mix['mix']}, {mix['distribution']}", f"{mix['calls_per_second']:,}"
        for kind, ns in mix["ns"].items():
            if kind != "empty":
                points = [format_ns(ns[point]) for point in ("p50", "p95", "p99", "p99.9", "max")]
                rows.append([name, rate, _OPERATIONS[kind], *points])
                name = rate = ""
    empty = mixes[0]["ns"]["empty"]
    return (
        f"{format_table(header, rows)}\n"
        "calls/s: all workers together; making keys and values is not timed.  Percentiles: single calls, the timing\n"
        f"itself included, which takes {format_ns(empty['p50'])} (p99 {format_ns(empty['p99'])}, "
        f"max {format_ns(empty['max'])}) around nothing at all."
    )


def _bench_memory(memory: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    return (
        f"load     {load['pairs_per_second']:,} pairs/s with put_many of 1,000\n"
        f"memory   {format_bytes(memory['used'])} used, {format_bytes(memory['committed'])} committed, for "
        f"{format_bytes(memory['data'])} of keys and values: {memory['bytes_per_key']:.1f} bytes per key, "
        f"{memory['overhead_per_key']:.1f} beyond key and value"
    )


def _bench_checks(checks: Mapping[str, Any]) -> str:
    counts = f"{checks['rmw_counted']:,} of {checks['rmw_acknowledged']:,} read-modify-writes counted"
    if checks["ok"]:
        return f"nothing was lost: {checks['keys']:,} keys read back, each whole and the last one written; {counts}"
    problems = "; ".join(checks["problems"][:_SHOWN_PROBLEMS]) or "clean"
    return (
        f"SOMETHING IS WRONG: {checks['keys']:,} keys read back ({checks['length']:,} by len), {checks['missing']:,} "
        f"missing, {checks['torn']:,} torn, {checks['stale']:,} not the last one written; {counts}; "
        f"check(): {len(checks['problems']):,} problems: {problems}"
    )


def format_bench_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table that README shows: averages in microseconds, by number of keys."""
    header = (
        "keys",
        *("write, µs", "write p95", "write p99"),
        *("read, µs", "read p95", "read p99"),
        *("bytes used", "bytes per key"),
    )
    table = [
        [
            f"{row['keys']:,}",
            *_in_us(row["write"]),
            *_in_us(row["read"]),
            f"{row['memory']['used']:,}",
            f"{row['memory']['bytes_per_key']:.1f}",
        ]
        for row in rows
    ]
    return format_table(header, table, markdown=True)


def _in_us(calls: Mapping[str, float]) -> list[str]:
    return [f"{calls[name] / 1000:.2f}" for name in ("mean_ns", "p95", "p99")]

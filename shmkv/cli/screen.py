"""The live screen of `shmkv top`; needs rich, which the extra `cli` brings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from shmkv.cli import render


def show(label: str, views: Iterable[Mapping[str, Any]]) -> None:
    """Draw each view over the last one."""
    with Live(Text(f"{label}: the first interval ..."), auto_refresh=False, screen=True) as live:
        for view in views:
            live.update(frame(label, view), refresh=True)


def frame(label: str, view: Mapping[str, Any]) -> Group:
    """One picture."""
    head = Text(f"{label}   {view['stats']['items']:,} items   Ctrl-C ends", style="bold")
    return Group(head, Text(), _numbers(view), Text(), _processes(view["stats"]["processes"]))


def _numbers(view: Mapping[str, Any]) -> Table:
    stats = view["stats"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=10)
    table.add_column()
    share = stats["used"] / stats["size"] if stats["size"] else 0.0
    rows = {
        "gets": f"{view['gets_per_s']:,.0f}/s, {100 * view['hit_rate']:.1f} % hits",
        "sets": f"{view['sets_per_s']:,.0f}/s",
        "deletes": f"{view['deletes_per_s']:,.0f}/s",
        "dropped": f"{view['expired_per_s']:,.0f}/s expired, {view['evicted_per_s']:,.0f}/s evicted",
        "memory": f"{render.format_memory(stats)} ({100 * share:.1f} %)",
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return table


def _processes(processes: Iterable[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("pid", "process", "state"):
        table.add_column(name, justify="right" if name == "pid" else "left")
    for process in processes:
        status = str(process["status"] or "unseen")
        style = "red" if status in ("stopped", "tracing-stop") else ""
        table.add_row(str(process["pid"]), str(process["name"] or "?"), status, style=style)
    return table

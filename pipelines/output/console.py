"""How verbs talk: progress on standard error, results on standard output, tables for people and JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPED_COLUMNS = 160
"""Width of tables that go into a file or another program, where nothing is known of a screen."""

out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else PIPED_COLUMNS)
err = Console(stderr=True, soft_wrap=True)

Told = Callable[[str, float | None], None]
"""Told the name of what goes on, and the part that is done, or None where that is not known."""


@contextmanager
def progress(title: str) -> Iterator[Told]:
    """Show a bar on standard error while something long goes on; plain lines where there is no terminal."""
    if not err.is_terminal:
        yield _plain(title)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bars:
        task = bars.add_task(title, total=None, stage="")

        def tell(stage: str, part: float | None = None) -> None:
            bars.update(task, stage=stage, total=None if part is None else 1.0, completed=part or 0.0)

        yield tell


def _plain(title: str) -> Told:
    seen: set[str] = set()

    def tell(stage: str, part: float | None = None) -> None:
        del part
        if stage not in seen:
            seen.add(stage)
            err.print(f"{title}: {stage}", highlight=False)

    return tell


def as_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    out.out(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), highlight=False)


def table(title: str, columns: list[str], rows: list[list[Any]], numbers: int = 1) -> None:
    """Print a table on standard output; columns from `numbers` on are right-aligned."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for at, name in enumerate(columns):
        shown.add_column(name, justify="right" if at >= numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(cell, row))
    out.print(shown)


def cell(value: Any) -> str:
    """Return a value as people read it."""
    if value is None:
        return "·"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)

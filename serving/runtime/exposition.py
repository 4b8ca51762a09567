"""Prometheus text 0.0.4 of metric families."""

from __future__ import annotations

from collections.abc import Iterator

from serving.runtime.metric_families import NANOSECONDS, Histogram, LabelTable, Rows

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def table_lines(table: LabelTable, totals: Rows) -> Iterator[str]:
    """Yield the lines of a table: a counter a column."""
    for at, (column, text) in enumerate(table.columns.items()):
        yield from (f"# HELP {table.name}_{column} {text}", f"# TYPE {table.name}_{column} counter")
        for values, counts in sorted(totals.items()):
            labels = [f'{label}="{escaped(value)}"' for label, value in zip(table.label_names, values, strict=True)]
            yield f"{table.name}_{column}{braced(labels)} {counts[at]}"


def histogram_lines(family: Histogram, labels: list[str], slots: list[int]) -> Iterator[str]:
    """Yield the lines of one series of a histogram."""
    seen = 0
    for bound, count in zip((*family.bounds, None), slots, strict=False):
        seen += count
        limit = 'le="+Inf"' if bound is None else f'le="{bound:g}"'
        yield f"{family.name}_bucket{braced([*labels, limit])} {seen}"
    yield f"{family.name}_sum{braced(labels)} {slots[-1] / NANOSECONDS!r}"
    yield f"{family.name}_count{braced(labels)} {seen}"


def labelled(**labels: str) -> str:
    """Return labels as Prometheus text has them, in braces."""
    return braced([f'{name}="{escaped(value)}"' for name, value in labels.items()])


def braced(labels: list[str]) -> str:
    """Return labels, each as Prometheus text has it, in braces; nothing where there are none."""
    return "{" + ",".join(labels) + "}" if labels else ""


def escaped(value: str) -> str:
    """Return a label's value as Prometheus text has it."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

"""Every aggregate of events, once: what it is taken of, what it gives, how SQL computes it, and how events are added to
its value.

`features/config/schema.py` says which names a file may use; `opportune check` refuses a name that is not here, and a
test brings every name through check, windows, fold and doctor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from features.config.schema import DataType

MILLIONTHS = 1_000_000
"""Sums are exact: amounts are added as whole millionths, which makes a result independent of the order of events."""


@dataclass(frozen=True, slots=True)
class Days:
    """How a value over many days is made of the values of single days, as SQL: of pair columns of `scope: everyone`."""

    day: Callable[[str, str], str]
    """Of the column and the filter of events: the value of a day."""
    window: Callable[[str, str], str]
    """Of a day's value and the filter of days: the value of a window."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One aggregate of events. An event whose number is NULL counts as an event; sums, means and extremes pass over
    it.
    """

    sql: Callable[[str, str, str], str]
    """Of the column (empty without `of`), the filter of the events that count, and for a part the filter of the whole;
    NULL of nothing.
    """
    fields: Literal["none", "number", "number or none", "category", "any"]
    """What `of` may name."""
    dtype: DataType | None
    """Of its values; None: that of the field."""
    zero: bool = False
    """Nothing seen is 0, unless the column says otherwise."""
    has_zero: bool = True
    """Whether a column may say `missing: zero` at all; a category never may."""
    days: Days | None = None
    """None: there is no pair column of it."""
    combine: Literal["sum", "min", "max"] = "max"
    """How the values of an offer's keys become one, in a pair column."""
    quotient: tuple[str, str] | None = None
    """The hidden companions whose quotient it is; events are added to those."""
    grows: bool = False
    """Over all time the value only goes one way as events come."""
    declared: bool = True
    """False: no column's; kept beside columns, to add events to them."""


def exact_sum(column: str, filters: str) -> str:
    """SQL of a sum of amounts in whole millionths."""
    return f"{_whole_sum(column, filters)}::DOUBLE / {MILLIONTHS}"


def whole_second(sql: str) -> str:
    """SQL of a moment as it is stored: Feast's stores keep whole seconds, and a column must be the same in all."""
    return f"date_trunc('second', {sql})"


def _whole_sum(column: str, filters: str) -> str:
    return f"sum(CAST(round({column} * {MILLIONTHS}) AS HUGEINT)) FILTER ({filters})"


def _stated(column: str, filters: str, whole: str) -> str:
    del whole
    return f"nullif(count({column}) FILTER ({filters}), 0)"


def _share(column: str, filters: str, whole: str) -> str:
    if column:
        return f"coalesce({exact_sum(column, filters)}, 0) / nullif({exact_sum(column, whole)}, 0)"
    return f"count(e.time) FILTER ({filters})::DOUBLE / nullif(count(e.time) FILTER ({whole}), 0)"


def _extreme(which: Literal["min", "max"]) -> Aggregate:
    def of(column: str, filters: str) -> str:
        return f"{which}({column}) FILTER ({filters})"

    days = Days(of, lambda value, window: f"{which}({value}) FILTER (WHERE {window})")
    return Aggregate(
        lambda column, filters, _: of(column, filters), "number", "number", days=days, combine=which, grows=True
    )


AGGREGATES: dict[str, Aggregate] = {
    "count": Aggregate(
        lambda _, filters, __: f"nullif(count(e.time) FILTER ({filters}), 0)",
        "none",
        "integer",
        zero=True,
        days=Days(
            lambda _, filters: f"nullif(count(*) FILTER ({filters}), 0)",
            lambda value, window: f"sum({value}) FILTER (WHERE {window})::DOUBLE",
        ),
        combine="sum",
        grows=True,
    ),
    "sum": Aggregate(
        lambda column, filters, _: exact_sum(column, filters),
        "number",
        "number",
        zero=True,
        days=Days(_whole_sum, lambda value, window: f"sum({value}) FILTER (WHERE {window})::DOUBLE / {MILLIONTHS}"),
        combine="sum",
        grows=True,
    ),
    "mean": Aggregate(
        lambda column, filters, _: f"({exact_sum(column, filters)}) / nullif(count({column}) FILTER ({filters}), 0)",
        "number",
        "number",
        quotient=("sum", "stated"),
    ),
    "min": _extreme("min"),
    "max": _extreme("max"),
    "last": Aggregate(
        lambda column, filters, _: f"arg_max({column}, (e.time, {column})) FILTER ({filters} AND {column} IS NOT NULL)",
        "any",
        None,
    ),
    "distinct": Aggregate(
        lambda column, filters, _: f"nullif(count(DISTINCT {column}) FILTER ({filters}), 0)",
        "category",
        "integer",
        zero=True,
        grows=True,
    ),
    "days_since": Aggregate(
        lambda _, filters, __: f"max(e.time) FILTER ({filters})",
        "none",
        "time",
        has_zero=False,
        days=Days(
            lambda _, filters: f"epoch({whole_second(f'max(e.time) FILTER ({filters})')})",
            lambda value, window: f"max({value}) FILTER (WHERE {window})",
        ),
    ),
    "share": Aggregate(_share, "number or none", "number", quotient=("part", "whole")),
    "stated": Aggregate(_stated, "any", "integer", declared=False),
    "latest": Aggregate(
        lambda column, filters, _: f"max(epoch_us(e.time)) FILTER ({filters} AND {column} IS NOT NULL)",
        "any",
        "integer",
        declared=False,
    ),
}
"""By name. What is hidden beside a column has two of its own: `stated` counts the events that state the field, `latest`
is the time of the last of them in microseconds.
"""

DECLARED = tuple(name for name, aggregate in AGGREGATES.items() if aggregate.declared)
PAIRED = tuple(name for name, aggregate in AGGREGATES.items() if aggregate.days is not None)
"""Those that a pair column may have."""

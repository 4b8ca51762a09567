"""What an aggregate of events says of itself: the base class of every kind, and the SQL that several kinds share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from features.aggregate_kinds.operations import Operation
from features.common.types import DataType

MILLIONTHS = 1_000_000
"""Sums are exact: amounts are added as whole millionths, which makes a result independent of the order of events."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the value of many days is made of values of single days, as SQL; for pair columns of `scope: everyone`."""

    day: Callable[[str, str], str]
    """SQL of one day's value. Takes the column (empty without `of`) and the filter of events."""
    window: Callable[[str, str], str]
    """SQL of a window's value. Takes the day's value and the filter of days."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A hidden value that is stored beside a column, so that events can be added to the column."""

    prefix: str
    """Of its name: `_<prefix>_<column>`."""
    kind: Aggregate
    """What it aggregates, over the field and the window of the column."""
    zero: bool = True
    """Store nothing as 0, so that a row without events differs from a row without the companion."""
    of_whole: bool = False
    """Take the events of the whole that a share is a part of, instead of the column's own events."""


@dataclass(frozen=True, slots=True)
class Quotient:
    """A value that is one companion divided by another, after events were added to both."""

    dividend: str
    """Prefix of the companion above the line."""
    divisor: str
    """Prefix of the companion below the line. Where it is 0, so is nothing; where it is missing, the row was stored
    without it, and the value stays as it is.
    """


AddEvents = Callable[..., None]
"""Machine code that adds events to the rows of a kind, in place. See `Aggregate.own_fold`."""


class Aggregate:
    """One kind of aggregate. A subclass says everything about it; nothing else knows kinds by their names.

    An event whose number is missing counts as an event; what is taken of numbers passes over it. How newer events are
    added is said by exactly one of `operation`, `quotient`, `own_fold` and `tells_apart`.
    """

    name: ClassVar[str]
    """What `aggregate:` says in features.yaml."""
    value: ClassVar[str] = ""
    """One line for the table in docs/bring-your-own-data.md, which a test compares."""
    declared: ClassVar[bool] = True
    """Whether a column may name it. False: it is only stored beside columns."""

    fields: ClassVar[Literal["none", "number", "number or none", "category", "any"]] = "none"
    """What `of` may name."""
    dtype: ClassVar[DataType | None] = "number"
    """Of its values; None: that of the field."""
    zero: ClassVar[bool] = False
    """Whether nothing seen is 0, unless the column says otherwise; else it is missing."""
    has_zero: ClassVar[bool] = True
    """Whether a column may say `missing: zero` at all; a category never may."""
    is_part: ClassVar[bool] = False
    """Whether it compares the events for which `where` holds with a whole, and so needs `where` or `group`."""
    grows: ClassVar[bool] = False
    """Whether the value over all time only goes one way as events come."""

    tiles: ClassVar[Tiles | None] = None
    """How days are put together; None: no pair column may name it."""
    combine: ClassVar[Literal["sum", "min", "max"]] = "max"
    """How the values of an offer's several keys become one, in a pair column."""

    operation: ClassVar[Operation | None] = None
    """How the stored value itself takes in an event; None: it does not."""
    operation_of_texts: ClassVar[Operation | None] = None
    """The same where the field is a category."""
    quotient: ClassVar[Quotient | None] = None
    """Which companions it is made of, after they have taken in the events."""
    tells_apart: ClassVar[bool] = False
    """Whether the value is the number of keys of a hidden family beside it, which holds the field's texts."""
    tolerance: ClassVar[float] = 0.0
    """How far the fold may be from the batch, relative to the value. 0: both give the same number."""

    def sql(self, column: str, filters: str, whole: str) -> str:
        """Return the SQL of the value over the joined events `e`; NULL where no event counts.

        Args:
            column: the field; empty without `of`.
            filters: `WHERE …` of the events that count.
            whole: `WHERE …` of the whole, for a part.
        """
        raise NotImplementedError

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        """Return what is stored beside a column of this kind.

        Args:
            of: the column's field. zero: whether the column says 0 for nothing.
        """
        return ()

    def own_fold(self) -> AddEvents | None:
        """Return machine code of this kind's own, for what no `Operation` does; None: there is none.

        It is called before the companions have taken in the events, with times in microseconds, shape (n,); numbers,
        shape (fields, n), NaN where absent; which events count for which `where`, shape (wheres, n); a row of integers
        for each column: where, field, window, slot, 1 where nothing is zero or 0, and the slots of the companions in
        their order; when each window begins; whether a window lies wholly after the row's moment, shape (windows,), in
        which case what is stored does not count; and the row's numbers, which it changes.

        Import numba inside: whoever reads a workspace loads the kinds, and numba takes half a second.
        """
        return None


def exact_sum(column: str, filters: str) -> str:
    """Return the SQL of a sum of amounts in whole millionths."""
    return f"{whole_sum(column, filters)}::DOUBLE / {MILLIONTHS}"


def whole_sum(column: str, filters: str) -> str:
    """Return the SQL of the number of millionths of a sum."""
    return f"sum(CAST(round({column} * {MILLIONTHS}) AS HUGEINT)) FILTER ({filters})"


def whole_second(sql: str) -> str:
    """Return the SQL of a moment as it is stored: Feast's stores keep whole seconds, and all stores must agree."""
    return f"date_trunc('second', {sql})"


def over_days(function: str) -> Callable[[str, str], str]:
    """Return the `Tiles.window` that takes a SQL function over the values of days."""
    return lambda value, window: f"{function}({value}) FILTER (WHERE {window})"


def by_name(kinds: tuple[Any, ...]) -> dict[str, Aggregate]:
    """Return kinds by their names.

    Raises:
        ValueError: for a name that two of them have.
    """
    named = {kind.name: kind for kind in kinds}
    if len(named) != len(kinds):
        raise ValueError(f"expected kinds of different names, got {[kind.name for kind in kinds]}")
    return named

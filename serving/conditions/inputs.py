"""What is known of customer and moment, as conditions and formulas take it: one value a column, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue, category_text
from features.columns.layout import Layout
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.moments import Seconds
from features.common.types import ContextValue
from features.config.features_file import ContextColumn
from features.expressions.nodes import Term
from serving.conditions.conditions import Scalar

NAN = float("nan")


class ConditionInputs:
    """Takes the values of some columns out of an online row and a request's context.

    A value that is older than its column's freshness limit is unknown, as it is for the model. A context column that
    the request does not give has its declared default.

    Args:
        columns: of customer and context, by full name, in the order in which values are wanted.
    """

    def __init__(
        self, columns: Mapping[str, Term], plan: RowSchema, context: Mapping[str, ContextColumn], words: Dictionary
    ) -> None:
        self._words = words
        places = {
            scalar.name: (f"{view.name}.{scalar.name}", at, scalar)
            for at, view in enumerate(plan.views)
            for scalar in view.scalars
        }
        self._customer: list[tuple[int, int, int, float, str]] = []
        """Place in the result, slot, view, freshness limit in seconds, dtype."""
        self._context: list[tuple[int, str, str, Scalar]] = []
        """Place in the result, name, dtype, default."""
        for at, (full, term) in enumerate(columns.items()):
            kind, _, name = full.partition(".")
            if kind == "customer":
                slot, view, scalar = places[name]
                limit = float("inf") if scalar.freshness_seconds is None else float(scalar.freshness_seconds)
                self._customer.append((at, plan.scalars[slot], view, limit, term.dtype))
            else:
                declared = context[name]
                default = 0.0 if declared.missing == "zero" else declared.default
                self._context.append((at, name, term.dtype, _scalar(default, term.dtype)))
        self._count = len(columns)

    def __call__(self, row: OnlineRow, context: Mapping[str, ContextValue], now: Seconds) -> list[Scalar]:
        """Values in the order of the columns; see `Bound.evaluate`."""
        found: list[Scalar] = [None] * self._count
        if self._customer:
            numbers, times, texts = row.numbers.tolist(), row.event_times.tolist(), self._words.texts
            for at, slot, view, limit, dtype in self._customer:
                value = numbers[slot] if now - times[view] <= limit else NAN
                if dtype == "category":
                    found[at] = texts[int(value)] or None if value == value else None
                else:
                    found[at] = value
        for at, name, dtype, default in self._context:
            given = context.get(name)
            found[at] = default if given is None else _scalar(given, dtype)
        return found


def _scalar(value: ContextValue, dtype: str) -> Scalar:
    if dtype == "category":
        return None if value is None else category_text(value) or None
    if dtype == "boolean":
        return None if value is None else bool(value)
    return NAN if value is None or isinstance(value, str) else float(value)


class PairFacts:
    """The pair columns that conditions use, for every offer of a catalogue.

    Args:
        columns: by full name.
        more: names of further matched columns, whose rows come after theirs where they are not among them.
    """

    def __init__(
        self, columns: Mapping[str, Term], layout: Layout, catalogue: Catalogue, more: Sequence[str] = ()
    ) -> None:
        names = list(dict.fromkeys([*(name.removeprefix("pair.") for name in columns), *more]))
        self._layout, self._rows = layout, np.empty((len(names), len(catalogue)))
        self._groups = layout.groups_of(names)
        self.more = np.array([names.index(name) for name in more], np.int32)
        """Where the rows of `more` are."""

    def __call__(self, row: OnlineRow, everyone: OnlineRow, now: Seconds) -> NDArray[np.float64]:
        """Shape (columns and more, offers); NaN is unknown. The array is used again by the next call."""
        self._layout.matched_together(self._groups, row, everyone, now, self._rows)
        return self._rows

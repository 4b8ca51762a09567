"""The columns that all offers of a decision share, those of the customer and of the moment, laid beside each other."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import category_text
from features.columns.contract import Column, Contract
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.moments import Seconds
from features.common.types import ContextValue

Floats = NDArray[np.float64]

_NUMBER, _CATEGORY, _AGE = 0, 1, 2


# Signatures are given, so that all is compiled when the module is loaded and nothing while a customer waits. What a
# store hands out may be read-only memory; an array that may be written fits a read-only type too.
_READ = numba.types.Array(numba.float64, 1, "C", readonly=True)
_INDEX = numba.types.Array(numba.int32, 1, "C", readonly=True)
_TABLE = numba.types.Array(numba.float64, 2, "C", readonly=True)
_WRITE = numba.types.Array(numba.float64, 1, "C")


@numba.njit(
    numba.void(_READ, _READ, *[_INDEX] * 2, _READ, *[_INDEX] * 2, _TABLE, numba.float64, _WRITE), nogil=True, cache=True
)
def _lay_customer(numbers, event_times, slots, views, limits, kinds, category_of, codes, now, out):  # type: ignore[no-untyped-def]
    """Write one value a customer column; a value that is older than its limit is missing."""
    for at in range(slots.shape[0]):
        value = numbers[slots[at]]
        if not (now - event_times[views[at]] <= limits[at]):
            value = np.nan
        elif kinds[at] == 1:
            word = value
            value = np.nan
            if word >= 0 and word < codes.shape[1]:
                value = codes[category_of[at], int(word)]
        elif kinds[at] == 2:
            value = (now - value) / 86400.0
        out[at] = value


class SharedLayout:
    """Customer and context columns of one contract, for one engine's words.

    Args:
        contract: the columns in model order.
        plan: slots of rows of one customer.
        categories: texts of each category column, by column name; the code of a text is its position.
        words: the engine's word ids; they may grow.
    """

    def __init__(
        self, contract: Contract, plan: RowSchema, categories: dict[str, list[str]], words: Dictionary
    ) -> None:
        self.contract, self.plan, self.categories, self.words = contract, plan, categories, words
        self.customer = contract.of_kind("customer")
        self.context = contract.of_kind("context")
        self.shared = np.full(len(self.customer) + len(self.context), np.nan)
        views = [view.name for view in plan.views]
        self._slots = np.array([plan.scalars[c.source] for c in self.customer], np.int32)
        self._views = np.array([views.index(c.source.split(".")[0]) for c in self.customer], np.int32)
        self._limits = np.array([limit_of(c) for c in self.customer])
        self._kinds = np.array(
            [{"number": _NUMBER, "category": _CATEGORY, "age": _AGE}[c.dtype] for c in self.customer], np.int32
        )
        categorical = [c.name for c in self.customer if c.dtype == "category"]
        self._category_of = np.array(
            [categorical.index(c.name) if c.dtype == "category" else 0 for c in self.customer], np.int32
        )
        self._dictionaries = [{text: code for code, text in enumerate(categories[name])} for name in categorical]
        self._codes = np.full((max(1, len(categorical)), 0), np.nan)
        self._context_codes = {
            c.name: {t: float(i) for i, t in enumerate(categories[c.name])}
            for c in self.context
            if c.dtype == "category"
        }

    def shared_values(self, row: OnlineRow, context: dict[str, ContextValue], now: Seconds) -> Floats:
        """Return customer and context columns, shape (customer + context,). The next call reuses the array.

        Args:
            context: what the request says of the moment; a column that is absent or null takes its default.
            now: seconds since 1970 of the decision.
        """
        if self._codes.shape[1] != len(self.words):
            self._extend_codes()
        if len(self._slots):
            _lay_customer(
                row.numbers,
                row.event_times,
                self._slots,
                self._views,
                self._limits,
                self._kinds,
                self._category_of,
                self._codes,
                now,
                self.shared,
            )
        at = len(self.customer)
        for column in self.context:
            value = context.get(column.name)
            if value is None:
                value = column.default
            if column.dtype == "category":
                text = value if type(value) is str else category_text(value)
                self.shared[at] = self._context_codes[column.name].get(text, np.nan)
            else:
                self.shared[at] = float(value) if isinstance(value, (int, float)) else np.nan
            at += 1
        return self.shared

    def _extend_codes(self) -> None:
        new = self.words.texts[self._codes.shape[1] :]
        block = [[float(d.get(text, np.nan)) for text in new] for d in self._dictionaries] or [[np.nan] * len(new)]
        self._codes = np.concatenate([self._codes, np.array(block)], axis=1)


def limit_of(column: Column) -> float:
    """Return the freshness limit in seconds; a view that is absent has an age of NaN, which is within no limit."""
    return np.inf if column.freshness_seconds is None else float(column.freshness_seconds)

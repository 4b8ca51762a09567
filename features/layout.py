"""Lay the columns of one decision beside each other: the one function of training and of serving.

The same code turns a Feast join's row into a training row and an online row into a request's vector, so that the two cannot
drift apart. Values are float64: NaN is missing, categories are codes of the bundle's dictionary, moments become ages in days.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue, category_text
from features.columns import Column, Contract
from features.online import OnlineRow, Plan, Words
from features.vocabulary import ContextValue

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

DAY_SECONDS = 86_400.0
_NUMBER, _CATEGORY, _AGE = 0, 1, 2


# Signatures are given, so that all is compiled when the module is loaded and nothing while a customer waits. What a store
# hands out may be read-only memory; an array that may be written fits a read-only type too.
_READ = numba.types.Array(numba.float64, 1, "C", readonly=True)
_KEYS = numba.types.Array(numba.uint32, 1, "C", readonly=True)
_INDEX = numba.types.Array(numba.int32, 1, "C", readonly=True)
_TABLE = numba.types.Array(numba.float64, 2, "C", readonly=True)
_WRITE = numba.types.Array(numba.float64, 1, "C")


@numba.njit(numba.void(_READ, _READ, *[_INDEX] * 2, _READ, *[_INDEX] * 2, _TABLE, numba.float64, _WRITE), nogil=True, cache=True)
def _lay_customer(numbers, event_times, slots, views, limits, kinds, category_of, codes, now, out):  # type: ignore[no-untyped-def]
    """One value a customer column; what is older than its limit is missing."""
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


@numba.njit(numba.void(_KEYS, _READ, *[_INDEX] * 3, numba.boolean, numba.boolean, numba.float64, _WRITE), nogil=True, cache=True)
def _match(keys, values, of_word, starts, members, minimum, summed, empty, out):  # type: ignore[no-untyped-def]
    """Hand each key's value to the offers that have the key: in the order of keys, so that sums are the same everywhere."""
    out[:] = empty
    for k in range(keys.shape[0]):
        value = values[k]
        word = keys[k]
        if np.isnan(value) or word >= of_word.shape[0]:
            continue
        number = of_word[word]
        if number < 0:
            continue
        for m in range(starts[number], starts[number + 1]):
            offer = members[m]
            if np.isnan(out[offer]):
                out[offer] = value
            elif summed:
                out[offer] += value
            elif minimum == (value < out[offer]):
                out[offer] = value


@numba.njit(numba.void(_READ, numba.int64, numba.float64[:]), nogil=True, cache=True)
def _relate(values, how, out):  # type: ignore[no-untyped-def]
    """Compare values among the offers considered: share of the total, rank (1 is the largest, ties equal), ratio to the largest."""
    n = values.shape[0]
    total, largest = 0.0, -np.inf
    for j in range(n):
        if not np.isnan(values[j]):
            total += values[j]
            largest = max(largest, values[j])
    if how == 1:
        order = np.argsort(values)  # NaN last
        present = n
        while present > 0 and np.isnan(values[order[present - 1]]):
            present -= 1
        rank, at = 1, present - 1
        while at >= 0:
            first = at
            while first > 0 and values[order[first - 1]] == values[order[at]]:
                first -= 1
            for j in range(first, at + 1):
                out[order[j]] = rank
            rank += at - first + 1
            at = first - 1
        for j in range(present, n):
            out[order[j]] = np.nan
        return
    scale = total if how == 0 else largest
    for j in range(n):
        if np.isnan(values[j]):
            out[j] = np.nan
        elif scale == 0.0:
            out[j] = 0.0
        else:
            out[j] = values[j] / scale


_RELATIVE = {"share": 0, "rank": 1, "ratio": 2}


@dataclass(frozen=True, slots=True)
class _Matched:
    """Where a matched column finds its values."""

    column: Column
    family: int
    measure: int
    view: int
    everyone: bool


class Layout:
    """Columns of one contract, for one catalogue and one engine's words. Not thread-safe: one for each worker.

    Args:
        contract: the columns in model order.
        plan, everyone: slots of rows of one customer and of everyone.
        catalogue: offers in the order of all arrays that have one value an offer.
        categories: texts of each category column, by column name; the code of a text is its position.
        words: the engine's word ids; they may grow.
    """

    def __init__(
        self, contract: Contract, plan: Plan, everyone: Plan, catalogue: Catalogue, categories: dict[str, list[str]], words: Words
    ) -> None:
        self.contract, self.catalogue, self.categories, self.words = contract, catalogue, categories, words
        self.plan, self.everyone_plan = plan, everyone
        self.customer = contract.of_kind("customer")
        self.context = contract.of_kind("context")
        self.offer = contract.of_kind("offer")
        self.pair = contract.of_kind("pair")
        self.shared = np.full(len(self.customer) + len(self.context), np.nan)
        views = [view.name for view in plan.views]
        self._slots = np.array([plan.scalars[c.source] for c in self.customer], np.int32)
        self._views = np.array([views.index(c.source.split(".")[0]) for c in self.customer], np.int32)
        self._limits = np.array([_limit(c) for c in self.customer])
        self._kinds = np.array([{"number": _NUMBER, "category": _CATEGORY, "age": _AGE}[c.dtype] for c in self.customer], np.int32)
        categorical = [c.name for c in self.customer if c.dtype == "category"]
        self._category_of = np.array([categorical.index(c.name) if c.dtype == "category" else 0 for c in self.customer], np.int32)
        self._dictionaries = [{text: code for code, text in enumerate(categories[name])} for name in categorical]
        self._codes = np.full((max(1, len(categorical)), 0), np.nan)
        self._context_codes = {
            c.name: {t: float(i) for i, t in enumerate(categories[c.name])} for c in self.context if c.dtype == "category"
        }
        self._matched = {c.name: self._place(c) for c in (*contract.columns, *contract.auxiliary) if c.match}
        self._scratch = np.empty(len(catalogue))
        self._offer_at = {column.name: at for at, column in enumerate(self.offer)}
        self._pair_at = {column.name: at for at, column in enumerate(self.pair)}
        self._bases = self._base_columns()
        self._moments = {c.name: self._offer_moments(c) for c in self.pair if c.source.startswith("offer.")}

    def _place(self, column: Column) -> _Matched:
        view, family, measure = column.source.split(".")
        everyone = f"{view}.{family}" in self.everyone_plan.families
        plan = self.everyone_plan if everyone else self.plan
        at = next(i for i, v in enumerate(plan.views) if v.name == view)
        names = next([m.name for m in f.measures] for f in plan.views[at].families if f.name == family)
        return _Matched(column, plan.families[f"{view}.{family}"], names.index(measure), at, everyone)

    def _base_columns(self) -> list[Column]:
        """Matched columns that must be computed for each decision: pair columns and what relative ones compare, each once.

        What the model leaves out but a relative column compares is among the auxiliary columns.
        """
        bases: dict[str, Column] = {}
        known = {c.name: c for c in (*self.contract.columns, *self.contract.auxiliary)}
        for column in self.pair:
            if not column.match:
                continue
            base = known[column.relative_to] if column.relative else column
            if base.name not in self._offer_at:
                bases[base.name] = base
        return list(bases.values())

    def _offer_moments(self, column: Column) -> Floats:
        return self.catalogue.numbers(column.source.removeprefix("offer."))

    def shared_values(self, row: OnlineRow, context: dict[str, ContextValue], now: float) -> Floats:
        """Customer and context columns, shape (customer + context,). The array is reused by the next call.

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

    def offer_values(self, everyone: OnlineRow, now: float) -> Floats:
        """Offer columns, shape (offers, offer columns): once a catalogue load."""
        out = np.empty((len(self.catalogue), len(self.offer)))
        for at, column in enumerate(self.offer):
            if column.match:
                out[:, at] = self.matched(column.name, everyone, now)
            elif column.dtype == "category":
                out[:, at] = self.catalogue.codes(column.source, self.categories[column.name])
            else:
                out[:, at] = self.catalogue.numbers(column.source)
                if column.empty == "zero":
                    np.nan_to_num(out[:, at], copy=False)
        return out

    def matched(self, name: str, row: OnlineRow, now: float) -> Floats:
        """One matched column for every offer of the catalogue, shape (offers,). The array is reused by the next call."""
        place = self._matched[name]
        column, out = place.column, self._scratch
        family = row.families[place.family]
        if family is None or not now - row.event_times[place.view] <= _limit(column):
            out[:] = np.nan
            return out
        index = self.catalogue.keys(column.match)
        empty = 0.0 if column.empty == "zero" else np.nan
        values = family.values[place.measure]
        _match(
            family.keys,
            values,
            index.of_word(self.words),
            index.starts,
            index.members,
            column.combine == "min",
            column.combine == "sum",
            empty,
            out,
        )
        if column.dtype == "age":
            np.subtract(now, out, out=out)
            out /= DAY_SECONDS
        return out

    def pair_values(self, row: OnlineRow, everyone: OnlineRow, offers: Floats, chosen: Integers, now: float) -> Floats:
        """Pair columns of the offers considered, shape (chosen, pair columns).

        Args:
            offers: what `offer_values` gave.
            chosen: positions in the catalogue of the offers considered, ascending: the order in which shares are summed.
        """
        out = np.empty((len(chosen), len(self.pair)))
        bases = {}
        for base in self._bases:
            bases[base.name] = self.matched(base.name, everyone if self._matched[base.name].everyone else row, now)[chosen]
        for at, column in enumerate(self.offer):
            bases[column.name] = offers[chosen, at]
        for at, column in enumerate(self.pair):
            if column.relative:
                _relate(bases[column.relative_to], _RELATIVE[column.relative], out[:, at])
            elif column.match:
                out[:, at] = bases[column.name]
            else:
                out[:, at] = (now - self._moments[column.name][chosen]) / DAY_SECONDS
        return out

    def is_everyone(self, name: str) -> bool:
        """Whether a matched column is computed from the events of everyone."""
        return self._matched[name].everyone

    def column(self, name: str, row: OnlineRow, everyone: OnlineRow, offers: Floats, pairs: Floats, chosen: Integers, now: float) -> Floats:
        """One offer, pair or auxiliary column of the offers considered, shape (chosen,).

        Args:
            offers, pairs: what `offer_values` and `pair_values` gave.
        """
        if name in self._offer_at:
            found: Floats = offers[chosen, self._offer_at[name]]
            return found
        if name in self._pair_at:
            return pairs[:, self._pair_at[name]]
        return self.matched(name, everyone if self.is_everyone(name) else row, now)[chosen]

    def shown(self, column: Column, value: float) -> float | str | None:
        """A laid value for people: the text of a category, None for a missing one."""
        if np.isnan(value):
            return None
        return self.categories[column.name][int(value)] if column.dtype == "category" else float(value)


def _limit(column: Column) -> float:
    """Freshness limit in seconds; a view that is absent has an age of NaN, which is within no limit."""
    return np.inf if column.freshness_seconds is None else float(column.freshness_seconds)

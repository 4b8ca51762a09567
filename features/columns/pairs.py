"""Pair columns: what a customer's values by key mean for each offer considered, alone and relative to the others.

Machine code over plain arrays. Measures of one family that are matched by one offer attribute are handed out together:
the keys are walked once. Values are added in the order of keys, and related in the order of offers, so that sums are
the same wherever they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import KeyIndex
from features.columns.rows import KeyedRow
from features.common.moments import Seconds

Floats = NDArray[np.float64]
Integers = NDArray[np.int32]

SUM, MINIMUM, MAXIMUM = 0, 1, 2
COPY, SHARE, RANK, RATIO = 0, 1, 2, 3
RELATIVE = {"": COPY, "share": SHARE, "rank": RANK, "ratio": RATIO}
COMBINE = {"sum": SUM, "min": MINIMUM, "max": MAXIMUM}

# Signatures are given, so that all is compiled when the module is loaded and nothing while a customer waits. What a
# store hands out may be read-only memory; an array that may be written fits a read-only type too.
_KEYS = numba.types.Array(numba.uint32, 1, "C", readonly=True)
_VALUES = numba.types.Array(numba.float64, 2, "A", readonly=True)
_READ = numba.types.Array(numba.float64, 1, "C", readonly=True)
_INDEX = numba.types.Array(numba.int32, 1, "C", readonly=True)
_TABLE = numba.float64[:, ::1]


@numba.njit(numba.void(_INDEX, numba.int32[::1], numba.boolean), nogil=True, cache=True)
def mark(chosen, places, present):  # type: ignore[no-untyped-def]
    """Note where each offer considered stands, or forget it; `places` has -1 for every offer that is not."""
    for at in range(chosen.shape[0]):
        places[chosen[at]] = at if present else -1


@numba.njit(
    numba.void(_KEYS, _VALUES, *[_INDEX] * 3, _INDEX, *[_INDEX] * 4, _READ, numba.float64, _TABLE),
    nogil=True,
    cache=True,
)
def _match(keys, values, of_word, starts, members, places, measures, rows, combine, ages, empty, now, out):  # type: ignore[no-untyped-def]
    """Hand each key's values to the offers that have the key; `out` has a row a column and a place an offer
    considered.
    """
    for c in range(rows.shape[0]):
        out[rows[c], :] = empty[c]
    for k in range(keys.shape[0]):
        word = keys[k]
        if word >= of_word.shape[0]:
            continue
        number = of_word[word]
        if number < 0:
            continue
        for m in range(starts[number], starts[number + 1]):
            place = places[members[m]]
            if place < 0:
                continue
            for c in range(rows.shape[0]):
                value = values[measures[c], k]
                if np.isnan(value):
                    continue
                before = out[rows[c], place]
                if np.isnan(before):
                    out[rows[c], place] = value
                elif combine[c] == 0:
                    out[rows[c], place] = before + value
                elif (combine[c] == 1) == (value < before):
                    out[rows[c], place] = value
    for c in range(rows.shape[0]):
        if ages[c]:
            for place in range(out.shape[1]):
                out[rows[c], place] = (now - out[rows[c], place]) / 86400.0


@numba.njit(numba.void(_VALUES, _INDEX, _INDEX, _INDEX, _TABLE), nogil=True, cache=True)
def pick(values, which, chosen, rows, out):  # type: ignore[no-untyped-def]
    """Lay rows of values of all offers into rows of `out`, for the offers considered: row `which[r]` into row
    `rows[r]`.
    """
    for r in range(rows.shape[0]):
        for at in range(chosen.shape[0]):
            out[rows[r], at] = values[which[r], chosen[at]]


@numba.njit(nogil=True)
def _rank(values, out):  # type: ignore[no-untyped-def]
    """1 for the largest, ties equal, NaN for what is missing. Most offers share one value: only the others are
    sorted.
    """
    n = values.shape[0]
    common = np.nan
    for j in range(n):
        if not np.isnan(values[j]) and not values[j] >= common:
            common = values[j]
    above = np.empty(n)
    count = 0
    for j in range(n):
        if values[j] > common:
            above[count] = values[j]
            count += 1
    ordered = np.sort(above[:count])
    for j in range(n):
        if np.isnan(values[j]):
            out[j] = np.nan
        elif values[j] > common:
            out[j] = 1.0 + count - np.searchsorted(ordered, values[j], side="right")
        else:
            out[j] = 1.0 + count


@numba.njit(numba.void(_TABLE, _INDEX, _INDEX, _TABLE), nogil=True, cache=True)
def relate(bases, base_of, how, out):  # type: ignore[no-untyped-def]
    """Lay the pair columns: a base as it is, its share of the total, its rank, its ratio to the largest."""
    n = bases.shape[1]
    for c in range(base_of.shape[0]):
        values = bases[base_of[c]]
        if how[c] == 0:
            out[:, c] = values
            continue
        if how[c] == 2:
            _rank(values, out[:, c])
            continue
        total, largest = 0.0, -np.inf
        for j in range(n):
            if not np.isnan(values[j]):
                total += values[j]
                largest = max(largest, values[j])
        scale = total if how[c] == 1 else largest
        for j in range(n):
            if np.isnan(values[j]):
                out[j, c] = np.nan
            else:
                out[j, c] = 0.0 if scale == 0.0 else values[j] / scale


@dataclass(frozen=True, slots=True)
class MeasureGroup:
    """Columns that one walk over a family's keys fills: their measures, rows of the result, and how they combine.

    All arrays have one entry a column; `limits` are freshness limits in seconds, `empty` what an offer without keys
    has.
    """

    everyone: bool
    family: int
    view: int
    index: KeyIndex
    measures: Integers
    rows: Integers
    combine: Integers
    ages: Integers
    empty: Floats
    limits: Floats
    tightest: float = field(init=False)
    """The least of the limits."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tightest", float(self.limits.min(initial=np.inf)))

    def fill(
        self, family: KeyedRow | None, age: float, of_word: Integers, places: Integers, now: Seconds, out: Floats
    ) -> None:
        """Fill the group's rows of `out`, shape (columns, offers considered).

        Args:
            age: seconds since the view's event time; NaN when it is absent, which is within no limit.
            places: what `mark` noted.
        """
        if family is None:
            out[self.rows] = np.nan
            return
        index = self.index
        _match(
            *(family.keys, family.values, of_word, index.starts, index.members, places),
            *(self.measures, self.rows, self.combine, self.ages, self.empty, now, out),
        )
        if age <= self.tightest and not family.hidden:
            return
        stale = ~(age <= self.limits)
        if family.hidden:
            stale |= np.isin(self.measures, family.hidden)
        if stale.any():
            out[self.rows[stale]] = np.nan

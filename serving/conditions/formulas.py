"""Numeric formulas, such as the priority of an arbitration, over the chosen offers at once.

The meaning is that of `features/expressions/parse.py`: NaN is unknown, and a formula with an unknown part is unknown
where it needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.common.moments import Seconds
from features.expressions.parse import Expression
from serving.conditions.bitsets import FUNCTIONS, Floats, Mask, OfferColumn, TextSets
from serving.conditions.codegen import Writer
from serving.conditions.conditions import Scalar, columns_of


class Formula:
    """A compiled formula.

    Attributes:
        scalars: columns of customer and context, in the order in which `BoundFormula.evaluate` takes their values.
        rows: pair columns and terms (`propensity`), in the order in which `BoundFormula.evaluate` takes their rows.
        offers: offer columns that `bind` needs.
    """

    def __init__(self, expression: Expression) -> None:
        self.expression = expression
        columns = columns_of([expression])
        self.scalars = {name: term for name, term in columns.items() if term.kind in ("customer", "context")}
        self.offers = {name: term for name, term in columns.items() if term.kind == "offer"}
        self.rows = {name: term for name, term in columns.items() if term.kind in ("pair", "term")}
        writer = Writer(tuple(self.scalars), tuple(self.offers), tuple(self.rows), subset=True)
        self._load, self._evaluate = writer.write([expression.root])
        self._loaded = tuple(writer.loaded)

    def bind(self, offers: Mapping[str, OfferColumn], count: int) -> BoundFormula:
        """Return the formula on a catalogue; see `Conditions.bind`."""
        known: dict[str, Any] = {
            **FUNCTIONS,
            "sealed": _same,
            "masked": _same,
            "keys": lambda column: TextSets(column, _same),
        }
        with np.errstate(all="ignore"):
            columns = [offers[name] for name in self.offers]
            values = FunctionType(self._load, known)(columns, count, np.ones(count, bool), np.zeros(count, bool))
        return BoundFormula(FunctionType(self._evaluate, known | dict(zip(self._loaded, values, strict=True))))


class BoundFormula:
    """A formula on a catalogue."""

    def __init__(self, evaluate: FunctionType) -> None:
        self._evaluate = evaluate

    def evaluate(
        self, scalars: Sequence[Scalar], rows: Sequence[Floats], chosen: NDArray[np.int32], now: Seconds
    ) -> Floats:
        """Return the result for each chosen offer, shape (chosen,); NaN is unknown.

        Args:
            scalars: as `Bound.evaluate` takes them.
            rows: one array for each of `Formula.rows`, of the chosen offers only.
            chosen: positions in the catalogue.
            now: seconds since 1970.
        """
        count = len(chosen)
        with np.errstate(all="ignore"):
            found: tuple[Floats] = self._evaluate(
                scalars, rows, now, [], chosen, count, np.ones(count, bool), np.zeros(count, bool)
            )
        return found[0]


def _same(mask: Mask, _count: int = 0) -> Mask:
    """Return where sets are arrays, an array is a set."""
    return mask

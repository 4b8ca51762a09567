"""Arbitration: the priority by which offers that may be shown are ordered. By default propensity x context weight x
value x lever.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.columns.layout import Layout
from features.columns.rows import Dictionary, OnlineRow
from features.common.moments import Seconds
from features.common.types import ContextValue, Offer
from features.config.features_file import ContextColumn
from features.config.policies import FORMULA_DEFAULT, Arbitration
from features.workspace.rulebook import Rulebook
from serving.conditions.conditions import offer_columns
from serving.conditions.formulas import Formula
from serving.conditions.inputs import ConditionInputs, PairFacts

Floats = NDArray[np.float64]
LAST = float(np.finfo(np.float64).min)
"""The priority of an offer of which the formula knows nothing: such an offer comes last."""


def value_of(offer: Offer, worth: Mapping[str, float]) -> float:
    """Return what an acceptance is worth, in money: its value, and what its other values are worth."""
    return offer.value + sum(units * worth.get(kind, 0.0) for kind, units in offer.values.items())


def lever_of(offer: Offer, arbitration: Arbitration) -> float:
    """Return the lever of an offer times that of its group."""
    return arbitration.offers.get(offer.offer_id, 1.0) * arbitration.groups.get(offer.group, 1.0)


class Arbiter:
    """Priorities of offers on a catalogue. Holds scratch memory: for one thread only."""

    def __init__(
        self,
        book: Rulebook,
        catalogue: Catalogue,
        layout: Layout,
        context: Mapping[str, ContextColumn],
        words: Dictionary,
    ) -> None:
        arbitration = book.policies.arbitration
        self.values = np.array([value_of(offer, arbitration.worth) for offer in catalogue.offers], np.float64)
        self.levers = np.array([lever_of(offer, arbitration) for offer in catalogue.offers], np.float64)
        self.constant = self.values * self.levers
        """The part of the default formula that no request changes."""
        self.plain = arbitration.formula == FORMULA_DEFAULT
        same = len(self.constant) == 0 or (self.constant[0] > 0 and bool((self.constant == self.constant[0]).all()))
        self.by_propensity = (self.plain and same) or arbitration.formula == "propensity"
        """Whether, without context weights, offers come in the order of their propensities."""
        self._scale = float(self.constant[0]) if self.plain and same and len(self.constant) else 1.0
        if book.formula is None:
            raise ValueError("expected a formula that reads, got one with problems: check the workspace first")
        formula = Formula(book.formula)
        self._bound = formula.bind(offer_columns(catalogue, formula.offers), len(catalogue))
        self._rows = list(formula.rows)
        self._facts = ConditionInputs(formula.scalars, layout.plan, context, words)
        pairs = {name: term for name, term in formula.rows.items() if term.kind == "pair"}
        self._pairs = PairFacts(pairs, layout, catalogue)
        self._pair_at = {name: at for at, name in enumerate(pairs)}

    def scaled(self, propensities: Floats) -> Floats:
        """Priorities where `by_propensity` holds and no context weight does: what the formula gives for these
        propensities.
        """
        return propensities if self._scale == 1.0 else propensities * self._scale

    def priorities(
        self,
        propensities: Floats,
        weights: Floats | None,
        chosen: NDArray[np.int32],
        row: OnlineRow,
        everyone: OnlineRow,
        context: Mapping[str, ContextValue],
        now: Seconds,
    ) -> Floats:
        """Return the priority of each chosen offer, shape (chosen,); `LAST` where the formula is unknown.

        Args:
            propensities: calibrated, of the chosen offers.
            weights: their context weights; None where all are 1.
            now: seconds since 1970.
        """
        if self.plain:
            found: Floats = propensities * self.constant[chosen]
            return found if weights is None else found * weights
        terms = {"propensity": propensities, "context_weight": np.ones(len(chosen)) if weights is None else weights}
        terms |= {"value": self.values[chosen], "lever": self.levers[chosen]}
        pairs = self._pairs(row, everyone, now) if self._pair_at else None
        rows = [
            pairs[self._pair_at[name]][chosen] if pairs is not None and name in self._pair_at else terms[name]
            for name in self._rows
        ]
        found = self._bound.evaluate(self._facts(row, context, now), rows, chosen, now)
        # Finite throughout: JSON has no infinity, and an answer's score is a number.
        return np.nan_to_num(found, nan=LAST, posinf=-LAST, neginf=LAST)

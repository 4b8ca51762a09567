"""Rules, segments and context weights on a catalogue: for which offers does each condition hold, for this customer,
now?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.columns.catalogue import Catalogue
from features.columns.layout import Layout, Matched
from features.columns.rows import Dictionary, OnlineRow
from features.common.moments import Seconds
from features.common.types import ContextValue
from features.config.features_file import ContextColumn
from features.config.policies import Stage, Whom
from features.expressions.evaluate import Lookup
from features.workspace.rulebook import ReadRule, Rulebook
from serving.conditions.bitsets import bits_of, mask_of
from serving.conditions.conditions import Conditions, Scalar, offer_columns
from serving.conditions.inputs import ConditionInputs, PairFacts

Floats = NDArray[np.float64]


def concerned(whom: Whom, catalogue: Catalogue) -> int:
    """Return the offers that something concerns, as a set: bit i is offer i."""
    offers, groups, excepted = frozenset(whom.offers), frozenset(whom.groups), frozenset(whom.except_groups)
    return bits_of(
        np.array(
            [
                (not offers or offer.offer_id in offers)
                and (not groups or offer.group in groups)
                and offer.group not in excepted
                for offer in catalogue.offers
            ],
            bool,
        )
    )


@dataclass(frozen=True, slots=True)
class BoundRule:
    """A rule on a catalogue."""

    name: str
    stage: Stage
    reason: str | None
    keeps: bool
    concerned: int
    placements: frozenset[str]
    """Empty: all."""
    read: ReadRule


@dataclass(frozen=True, slots=True)
class BoundWeight:
    """A context weight on a catalogue."""

    name: str
    weight: float
    concerned: int
    placements: frozenset[str]


class Truths(NamedTuple):
    """What conditions say for one request: a set of offers for each, and the values that they looked at."""

    sets: tuple[int, ...]
    scalars: list[Scalar]
    pairs: Floats
    """Shape (columns, offers): those of the conditions, then others that the model needs."""


class Rules:
    """All conditions of a workspace on a catalogue. Holds scratch memory: for one thread only."""

    def __init__(
        self,
        book: Rulebook,
        catalogue: Catalogue,
        layout: Layout,
        context: Mapping[str, ContextColumn],
        words: Dictionary,
    ) -> None:
        self.count = len(catalogue)
        self.rules = [
            BoundRule(
                read.name,
                read.rule.stage,
                read.rule.reason,
                read.keeps,
                concerned(read.rule, catalogue),
                frozenset(read.rule.placements),
                read,
            )
            for read in book.rules
        ]
        self.weights = [
            BoundWeight(
                read.name, read.weight.weight, concerned(read.weight, catalogue), frozenset(read.weight.placements)
            )
            for read in book.weights
        ]
        named = {f"rule {read.name}": read.condition for read in book.rules}
        named |= {f"weight {read.name}": read.condition for read in book.weights}
        self.conditions = Conditions(named)
        self.bound = self.conditions.bind(offer_columns(catalogue, self.conditions.offers), len(catalogue))
        self._asked: dict[str, list[tuple[int, int, int, BoundRule]]] = {}
        self._facts = ConditionInputs(self.conditions.scalars, layout.plan, context, words)
        # Where conditions match keys, what the model matches is matched with them: a family's keys are walked once a
        # decision.
        self._pairs = PairFacts(
            self.conditions.pairs, layout, catalogue, layout.personal if self.conditions.pairs else ()
        )

    def rule(self, name: str) -> BoundRule:
        """Return a rule by its name."""
        return next(rule for rule in self.rules if rule.name == name)

    def lookup(self, offer: int, truths: Truths, now: Seconds) -> Lookup:
        """Return what conditions looked at, for one offer."""
        return self.bound.lookup(offer, truths.scalars, truths.pairs, now)

    def truths(
        self, row: OnlineRow, everyone: OnlineRow, context: Mapping[str, ContextValue], now: Seconds
    ) -> Truths | None:
        """Evaluate every condition once; None where there are none."""
        if not self.conditions.names:
            return None
        scalars, pairs = self._facts(row, context, now), self._pairs(row, everyone, now)
        return Truths(self.bound.evaluate(scalars, pairs, now), scalars, pairs)

    def matched(self, truths: Truths) -> Matched | None:
        """Return what the layout need not match again for the same row and moment; None where conditions match
        nothing.
        """
        return Matched(truths.pairs, self._pairs.more) if self.conditions.pairs else None

    def allowed(
        self,
        offers: int,
        placement: str,
        truths: Truths,
        notes: dict[str, None],
        trail: list[tuple[str, int]] | None = None,
    ) -> int:
        """Return the offers that no rule keeps away at a placement.

        Args:
            offers: those that may be shown so far, as a set.
            notes: takes the reason codes of rules that kept some away.
            trail: takes each rule that kept some away, as `rule <name>`, with the offers left.
        """
        sets = truths.sets
        for at, whom, passing, rule in self._asked_at(placement):
            if sets[at] == passing:
                continue
            fallen = offers & whom & (sets[at] ^ passing)
            if fallen:
                offers ^= fallen
                if rule.reason is not None:
                    notes[rule.reason] = None
                if trail is not None:
                    trail.append((f"rule {rule.name}", offers))
        return offers

    def _asked_at(self, placement: str) -> list[tuple[int, int, int, BoundRule]]:
        """Return the rules of a placement: position, offers concerned, and the truth of its condition that lets all
        offers pass.
        """
        found = self._asked.get(placement)
        if found is None:
            full = (1 << self.count) - 1
            found = self._asked[placement] = [
                (at, rule.concerned, full if rule.keeps else 0, rule)
                for at, rule in enumerate(self.rules)
                if not rule.placements or placement in rule.placements
            ]
        return found

    def context_weights(self, placement: str, truths: Truths, chosen: NDArray[np.int32]) -> Floats | None:
        """Return the product of the weights that hold, for each chosen offer; None where none holds."""
        found: Floats | None = None
        for weight, truth in zip(self.weights, truths.sets[len(self.rules) :], strict=True):
            offers = truth & weight.concerned
            if offers and (not weight.placements or placement in weight.placements):
                if found is None:
                    found = np.ones(len(chosen))
                found[mask_of(offers, self.count)[chosen]] *= weight.weight
        return found

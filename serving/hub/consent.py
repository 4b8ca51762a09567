"""Withholding: what a customer did not allow to be used for anything that is allowed here is missing, before anything
looks at it.

Every column says what it may be used for. A request says what it is for (`purposes`), and the customer's stored consent
says for each purpose yes or no (`features.yaml`, `consent`). A column of which no purpose is left is missing for rules,
scoring, pair columns, arbitration and the journal alike. Sums over everybody are nobody's data and are never withheld.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from features.columns.rows import KeyedRow, OnlineRow, RowSchema
from features.common.moments import BEGINNING, Seconds
from features.common.types import ContextValue
from features.config.features_file import ConsentSettings as ConsentColumn
from features.config.features_file import FeaturesFile

REMEMBERED_MAX = 256
"""Sets of purposes for which what is withheld is kept ready."""

StatedConsent = Mapping[str, tuple[int, bool]]
"""What a customer said by events. By purpose: when, in microseconds since 1970, and whether it is allowed."""
NOTHING_STATED: StatedConsent = {}


@dataclass(frozen=True, slots=True)
class Consent:
    """Where a customer's answer for one purpose stands."""

    purpose: str
    slot: int
    unknown: Literal["allowed", "denied"]
    view: int
    """Whose event time says how old the answer is."""
    seconds_max: float
    """Older than this it is unknown; infinity: it holds for good."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """What is taken out of a row and a context for one set of allowed purposes.

    `names` are those of the columns, sorted, as answers list them.
    """

    names: tuple[str, ...]
    slots: NDArray[np.intp]
    families: tuple[tuple[int, tuple[int, ...]], ...]
    """Position, and which of its measures; all of them: the family is gone."""
    context: frozenset[str]

    def row(self, row: OnlineRow) -> OnlineRow:
        """Return the same row without what is withheld; the given one stays as it was."""
        numbers = row.numbers.copy()
        numbers[self.slots] = np.nan
        families: list[KeyedRow | None] = list(row.families)
        for position, measures in self.families:
            found = families[position]
            if found is not None:
                if len(measures) == len(found.values):
                    families[position] = None
                else:
                    values = found.values.copy()
                    values[list(measures)] = np.nan
                    families[position] = KeyedRow(found.keys, values, measures)
        return OnlineRow(numbers, families, row.event_times)


class ConsentPolicy:
    """Purposes of all columns of a workspace."""

    def __init__(self, features: FeaturesFile, plan: RowSchema) -> None:
        self._scalars = [
            (scalar.beside or scalar.name, frozenset(scalar.purposes), plan.scalars[f"{view.name}.{scalar.name}"])
            for view in plan.views
            for scalar in view.scalars
        ]
        self._measures = [
            (
                family.beside or measure.name,
                frozenset(measure.purposes),
                plan.families[f"{view.name}.{family.name}"],
                at,
            )
            for view in plan.views
            for family in view.families
            for at, measure in enumerate(family.measures)
        ]
        self._context = [
            (name, frozenset(column.purposes)) for name, column in features.context.items() if column.purposes
        ]
        self.known = frozenset[str]().union(
            *(purposes for _, purposes, *_ in self._scalars), *(purposes for _, purposes, *_ in self._measures)
        ) | frozenset[str]().union(*(purposes for _, purposes in self._context))
        """Every purpose that some column names."""
        self._consent = [_consent(plan, purpose, one) for purpose, one in features.consent.items()]
        self._known_sets: dict[frozenset[str], Withheld | None] = {}

    def withheld(
        self,
        row: OnlineRow,
        wanted: list[str] | None,
        stated: StatedConsent | None = NOTHING_STATED,
        now: Seconds = BEGINNING,
    ) -> Withheld | None:
        """Return what this customer did not allow; None where nothing is withheld.

        Args:
            wanted: the purposes that the request is for; None: all of them.
            stated: what the customer has said by events, which counts before the column; None when it could not be
                read: then purposes that need consent are denied.
            now: seconds since 1970: a stored answer that is older than its freshness limit is unknown.
        """
        if wanted is None and not self._consent and not stated:
            return None
        allowed = self.known if wanted is None else frozenset(wanted)
        denied = [purpose for purpose, (_, allows) in stated.items() if not allows] if stated else []
        for consent in self._consent:
            if stated is None:
                denied.append(consent.purpose)
            elif consent.purpose not in stated:
                answer = row.numbers[consent.slot]
                if now - row.event_times[consent.view] > consent.seconds_max:
                    answer = np.nan
                if answer == 0.0 or (answer != answer and consent.unknown == "denied"):
                    denied.append(consent.purpose)
        allowed = allowed.difference(denied)
        if allowed not in self._known_sets:
            made = self._for(allowed)
            if len(self._known_sets) >= REMEMBERED_MAX:
                self._known_sets.clear()
            self._known_sets[allowed] = made
        return self._known_sets[allowed]

    def _for(self, allowed: frozenset[str]) -> Withheld | None:
        scalars = [(name, slot) for name, purposes, slot in self._scalars if purposes and purposes.isdisjoint(allowed)]
        # Consent itself may always be looked at: it says what may be.
        kept = {consent.slot for consent in self._consent}
        scalars = [(name, slot) for name, slot in scalars if slot not in kept]
        measures = [
            (name, family, at)
            for name, purposes, family, at in self._measures
            if purposes and purposes.isdisjoint(allowed)
        ]
        context = frozenset(name for name, purposes in self._context if purposes.isdisjoint(allowed))
        names = tuple(sorted({name for name, _ in scalars} | {name for name, *_ in measures} | context))
        if not names:
            return None
        families: dict[int, list[int]] = {}
        for _, family, at in measures:
            families.setdefault(family, []).append(at)
        return Withheld(
            names,
            np.array([slot for _, slot in scalars], np.intp),
            tuple((family, tuple(places)) for family, places in families.items()),
            context,
        )


def _consent(plan: RowSchema, purpose: str, column: ConsentColumn) -> Consent:
    for at, view in enumerate(plan.views):
        for scalar in view.scalars:
            if scalar.name == column.column and not scalar.beside:
                limit = float("inf") if scalar.freshness_seconds is None else float(scalar.freshness_seconds)
                return Consent(purpose, plan.scalars[f"{view.name}.{scalar.name}"], column.unknown, at, limit)
    raise ValueError(f"expected the column {column.column} of the consent for {purpose}: check the workspace first")


def without(context: Mapping[str, ContextValue], names: frozenset[str]) -> dict[str, ContextValue]:
    """Return a request's context without some columns."""
    return {name: value for name, value in context.items() if name not in names}

"""What an expression may speak of: names with their kind, type, unit and allowed values. The language knows no
workspace beyond it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from features.aggregate_kinds.kinds import AGGREGATES
from features.columns.views import views_of, window_name
from features.common.timestamps import DAY_SECONDS
from features.common.types import OFFERS_CONSIDERED
from features.config.features_file import FeaturesFile
from features.expressions.nodes import Term

TIME_UNITS: dict[str, float] = {
    "seconds": 1,
    "minutes": 60,
    "hours": 3_600,
    "days": DAY_SECONDS,
    "weeks": 7 * DAY_SECONDS,
}
"""Units of time that convert into each other, in seconds; each is also the function that writes a quantity:
`hours(36)`.
"""


@dataclass(frozen=True, slots=True)
class ExpressionProblem:
    """One thing that is wrong in an expression, at a line and column of its text, both from 1."""

    line: int
    column: int
    expected: str
    got: str
    remedy: str = ""

    def __str__(self) -> str:
        told = f"line {self.line}, column {self.column}: expected {self.expected}, got {self.got}"
        return told + (f". {self.remedy}" if self.remedy else "")


Scope = Mapping[str, Term]
"""By full name: `customer.tenure_days`, `segment.loyal`, `propensity`."""


def scope_of(features: FeaturesFile, currency: str | None = None) -> dict[str, Term]:
    """Return every column of a workspace that an expression may use, whether or not the model sees it.

    Left out is what depends on which other offers are eligible: relative columns and the number of offers considered.

    Args:
        currency: the unit of `offer.value`.
    """
    scope: dict[str, Term] = {}
    for view in views_of(features):
        if view.entity == "customer":
            scope |= {f"customer.{s.name}": Term("customer", s.dtype, s.unit) for s in view.scalars}
    for name, context in features.context.items():
        if name != OFFERS_CONSIDERED:
            term = Term("context", context.dtype, context.unit, context.values, context.minimum, context.maximum)
            scope[f"context.{name}"] = term
    scope |= {"offer.offer_id": Term("offer", "category"), "offer.name": Term("offer", "category")}
    scope["offer.value"] = Term("offer", "number", currency)
    scope |= {
        f"offer.{name}": Term("offer", attribute.dtype, attribute.unit) for name, attribute in features.offer.items()
    }
    for name, pair in features.pairs.items():
        unit = "days" if AGGREGATES[pair.aggregate].dtype == "time" else pair.unit
        scope |= {f"pair.{window_name(name, window)}": Term("pair", "number", unit) for window in pair.windows}
    return scope


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the remedy for a name that nothing has: the nearest one that exists, or what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if near:
        return f"Did you mean `{near[0]}`?"
    told = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"There is {told}." if names else "There are none here."

"""Effects: what a decision asks of the ledger. A decision yields them and is sent their results; whoever runs it
decides how, and whether at all.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from features.contact_history.takes import GRANTED, Take, TakeResult
from features.ledger.budgets import BudgetBound, Fell, Moment
from features.ledger.recent import KeptArm
from serving.assignment.experiments import PendingAssignments


class Reserve(NamedTuple):
    """Take one show of each offer out of its budget: all, or none. The result says which budgets are exhausted."""

    budgets: list[BudgetBound]
    moment: Moment


class GiveBack(NamedTuple):
    """Undo a reservation: the offers are not shown after all. It has no result."""

    offers: list[int]
    moment: Moment


class Settle(NamedTuple):
    """Write sticky assignments down. The result is what holds from then on, by experiment."""

    wanted: Sequence[PendingAssignments]


Effect = Reserve | GiveBack | Take | Settle
EffectResult = list[Fell] | TakeResult | Mapping[str, KeptArm] | None
"""None: the ledger did not answer in time, and nothing that is limited may be shown."""
Effects = Generator[Effect, EffectResult, None]
"""A step that asks for effects."""


def grant(effect: Effect) -> EffectResult:
    """Return the result of an effect on a ledger that limits nothing: for replay and simulation."""
    if isinstance(effect, Take):
        return TakeResult((GRANTED,) * len(effect.contacts))
    if isinstance(effect, Settle):
        return {}
    return [""] * len(effect.budgets) if isinstance(effect, Reserve) else None

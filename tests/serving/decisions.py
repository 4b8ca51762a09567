"""Decisions of tests: for a row alone, with what the ledger has of the customer beside it where a test says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from features.columns.rows import OnlineRow
from features.common.types import Decision, DecisionRequest
from features.events.journal import Line
from serving.assignment.assignment import NOBODY, StickyArm
from serving.decision import decide as decisions
from serving.decision import eligibility
from serving.decision.case import DecisionInputs
from serving.decision.effects import Effect, EffectResult, grant
from serving.hub.consent import NOTHING_STATED, StatedConsent
from serving.state.customer import CustomerState
from serving.state.snapshot import Snapshot


def decide(
    request: DecisionRequest,
    loaded: Snapshot,
    row: OnlineRow | None,
    now: int,
    *,
    take: Callable[[Effect], EffectResult] | None = None,
    decision_id: str = "",
    record: Callable[[Line], object] | None = None,
    contacts: bytes | None = b"",
    unit: str = "",
    consent: StatedConsent | None = NOTHING_STATED,
    sticky: Mapping[str, StickyArm] | None = NOBODY,
) -> Decision:
    """One decision; without `take` nothing is limited."""
    customer = CustomerState(row, contacts, unit, consent, sticky)
    return decisions.decide(DecisionInputs(request, loaded, customer, now, decision_id, record=record), take or grant)


def eligible(
    request: DecisionRequest, loaded: Snapshot, row: OnlineRow, now: int, contacts: bytes | None = b""
) -> NDArray[np.bool_]:
    """Which offers may be shown, one truth an offer of the catalogue."""
    return eligibility.eligible(DecisionInputs(request, loaded, CustomerState(row, contacts), now))


def unknown_row(loaded: Snapshot) -> OnlineRow:
    """The row of a customer of whom nothing is known."""
    return loaded.layout.plan.nobody()

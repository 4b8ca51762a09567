"""What the stores know about the customer of a request, as a decision takes it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from features.aggregates.incremental import Fold
from features.columns.rows import OnlineRow
from features.common.moments import Micros
from features.ledger.recent import Known
from serving.assignment.assignment import NOBODY, StickyArm
from serving.hub.consent import NOTHING_STATED, StatedConsent


class CustomerState(Struct, frozen=True):
    """What the stores know about the customer of a request; by default what an empty ledger knows."""

    row: OnlineRow | None
    """With what happened since it was computed; None when the online store did not answer in time."""
    contacts: bytes | None = b""
    """The contact history; None when the ledger did not answer in time."""
    unit: str = ""
    """Who it is: the unit of the request, or the customer to whom its anonymous id was linked; empty for the unit of
    the request.
    """
    consent: StatedConsent | None = NOTHING_STATED
    """What the customer allows, by events; None when the ledger did not answer in time."""
    sticky: Mapping[str, StickyArm] | None = NOBODY
    """Sticky assignments, by experiment; None when the ledger did not answer in time."""


def customer_state(row: OnlineRow | None, known: Known | None, unit: str, fold: Fold, now: Micros) -> CustomerState:
    """Return what the stores know about a unit, with recent events folded onto the row; without sticky assignments.

    Args:
        row: what the online store has; None when it did not answer in time.
        known: what the ledger has; None when it did not answer in time.
        now: the moment of the decision.
    """
    if known is None:
        return CustomerState(row, None, unit, None)
    recent = known.recent
    if row is not None and recent.events:
        row = fold(row, recent.events, now)
    return CustomerState(row, known.contacts, known.unit, recent.consent)

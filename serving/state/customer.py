"""Whom a request is about: what the stores said of them, as a decision takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from features.aggregates.incremental import Fold
from features.columns.rows import OnlineRow
from features.common.moments import Micros
from features.ledger.recent import Known
from serving.assignment.assignment import NOBODY, Kept
from serving.hub.consent import Said


class CustomerState(NamedTuple):
    """What the stores know about the customer of a request."""

    row: OnlineRow | None
    """With what happened since it was computed; None when the store did not say in time."""
    contacts: bytes | None
    """The contact history; None when the ledger did not say in time."""
    unit: str
    """Whose they are: whom the request names, or the customer whom its anonymous id was linked to."""
    said: Said | None
    """What the customer allows, by events; None when the ledger did not say in time."""
    kept: Mapping[str, Kept] | None = NOBODY
    """Sticky assignments, by experiment; None when the ledger did not say in time."""


def person_of(row: OnlineRow | None, found: Known | None, unit: str, fold: Fold, now: Micros) -> CustomerState:
    """Return what the stores said of a unit, with what is new folded onto the row; sticky assignments left out.

    Args:
        row, found: None for what was not said in time.
        now: microseconds since 1970.
    """
    if found is None:
        return CustomerState(row, None, unit, None, None)
    recent = found.recent
    if row is not None and recent.events:
        row = fold(row, recent.events, now)
    return CustomerState(row, found.contacts, found.unit, recent.consent)

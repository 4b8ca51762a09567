"""Whom a request is about: what the stores said of them, as a decision takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from features.online import OnlineRow
from serving.assignment import NOBODY, Kept
from serving.withheld import Said


class Person(NamedTuple):
    """What is known of whom a request is about."""

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

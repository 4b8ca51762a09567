"""What is new of one customer since the online row was computed: events, consent, and whom an anonymous id belongs to.

A record lies beside the contact history, in the same store and under the same key, and is read together with it.
Decisions fold its events onto the row (`features/aggregates/incremental.py`), so that an event counts from the moment
at which it was answered, on every worker. Once the windows were computed from the lake at a later moment, the events
that they contain are trimmed: `contained` says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Struct

from features.contact_history.takes import ContactEvent

EVENTS_MAX = 1_000
"""Bound on the events of one customer that wait for their windows: the oldest go first, and come back with the next
computation.
"""


class RecentEvent(Struct, frozen=True, array_like=True, gc=False):
    """One event of a stream."""

    key: int
    """`contacts.key_of` its event id."""
    stream: str
    time: int
    """When it happened, microseconds since 1970."""
    received: int
    """When the event log took it, microseconds since 1970; ascending in each log."""
    fields: dict[str, float | str]
    """Numbers and categories of the stream, those of the offer (`offer_<attribute>`) among them; what is missing is
    absent.
    """

    def contained(self, moment: int) -> bool:
        """Return whether windows that were computed at a moment contain it: all that the log had taken by then was in
        the lake.
        """
        return self.received < moment and self.time < moment


KEPT_MAX = 400
"""Bound on the sticky assignments of one unit: the oldest go first. An `experiments.yaml` has half as many experiments.
"""

KeptArm = tuple[str, int, float]
"""A sticky assignment: the arm, the bucket version under which it was drawn, and the probability with which."""


class Recent(Struct, frozen=True, array_like=True, gc=False):
    """The record of one unit (a customer, or an anonymous id)."""

    linked: str = ""
    """Of an anonymous id: the customer that it belongs to. Then the rest is empty, or about to be moved to the
    customer.
    """
    consent: dict[str, tuple[int, bool]] = {}
    """By purpose: when the customer said so (microseconds since 1970), and whether it is allowed. The latest counts."""
    events: tuple[RecentEvent, ...] = ()
    """In the order of their keys, so that the record does not depend on the order of arrival."""
    linked_received: int = 0
    """When the event log took the link, microseconds since 1970."""
    kept: dict[str, KeptArm] = {}
    """Sticky assignments by experiment, the oldest first."""


NOTHING = Recent()

_decoder = msgspec.msgpack.Decoder(Recent)
_encoder = msgspec.msgpack.Encoder()


def encode(recent: Recent) -> bytes:
    """Return a record as it is stored; empty where there is nothing to store."""
    return b"" if recent == NOTHING else _encoder.encode(recent)


def decode(record: bytes) -> Recent:
    """Return the inverse.

    Raises:
        ValueError: when it is not one of ours.
    """
    return _decoder.decode(record) if record else NOTHING


class Known(NamedTuple):
    """What one read of the ledger gives of a unit."""

    unit: str
    """Whose it is: the unit that was asked for, or the customer that it is linked to."""
    contacts: bytes
    """The contact history, see `contacts`."""
    recent: Recent


class Heard(NamedTuple):
    """What one event means for the ledger. Hearing it again changes nothing."""

    unit: str
    contact: ContactEvent | None = None
    """An impression or an outcome, for the contact history."""
    event: RecentEvent | None = None
    consent: Mapping[str, tuple[int, bool]] = MappingProxyType({})
    identify: str = ""
    """Of an anonymous unit: the customer to link it to. A unit is linked once; the first link holds."""
    received: int = 0
    """Of a link: when the event log took it, microseconds since 1970."""

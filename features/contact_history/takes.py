"""What is asked of a contact history, and what is told to it: takes with their answers, impressions and outcomes."""

from __future__ import annotations

import math
from typing import NamedTuple

from features.common.moments import Seconds
from features.contact_history.history import IMPRESSION, OUTCOME, Entry
from features.contact_history.limits import Contact, ContactPolicy

CHOSEN_MAX = 64
"""Bound on the contacts of one take; an answer has at most 50 offers."""


class ContactEvent(NamedTuple):
    """What happened, to be noted: kind IMPRESSION or OUTCOME; `decision` and `group` are 0 where they are not known."""

    kind: int
    time: float
    offer: int
    decision: int = 0
    group: int = 0
    channel: int = 0
    what: int = 0

    def entry(self, policy: ContactPolicy) -> Entry:
        """Return the entry that is written down.

        Raises:
            ValueError: when the kind is neither, or the time is not finite.
        """
        if self.kind not in (IMPRESSION, OUTCOME) or not math.isfinite(self.time):
            raise ValueError(
                f"expected an IMPRESSION or an OUTCOME at a finite time, got the kind {self.kind} at {self.time}"
            )
        seen = self.kind == IMPRESSION
        keep = policy.contact_keep(self.offer, self.group) if seen else policy.outcome_keep(self.what)
        what = 0 if seen else self.what
        return Entry(self.time, self.offer, self.decision, self.group, self.channel, what, keep, self.kind, int(seen))


class Take(NamedTuple):
    """What one decision asks of a customer's history: room for all its contacts, counted in their order, or for none.

    A contact whose offer the same decision has taken before is granted again and not added twice, so a take may be
    repeated.
    """

    customer_id: str
    decision: int
    now: Seconds
    """Seconds since 1970."""
    contacts: tuple[Contact, ...]
    policy: ContactPolicy

    def packed(self) -> tuple[bytes, bytes]:
        """Return entries, and the positions of their limits.

        Raises:
            ValueError: when there are too many contacts, no decision, or no finite time.
        """
        most = min(CHOSEN_MAX, self.policy.contacts_max)
        if not self.decision or len(self.contacts) > most or not math.isfinite(self.now):
            raise ValueError(
                f"expected a decision, a finite time and at most {most} contacts, "
                f"got the decision {self.decision} at {self.now} with {len(self.contacts)} contacts"
            )
        now, decision = self.now, self.decision
        return b"".join([c.pack(now, decision) for c in self.contacts]), b"".join([c.choice for c in self.contacts])


GRANTED = -1


class TakeResult(NamedTuple):
    """The answer to a take: for each contact GRANTED, or the position of the first limit that fell. One that fell:
    nothing was taken.

    A contact that fell is not counted for those after it, so all that are GRANTED fit together.
    """

    fell: tuple[int, ...]

    @property
    def granted(self) -> bool:
        """Whether all was taken."""
        return self.fell.count(GRANTED) == len(self.fell)

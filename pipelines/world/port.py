"""Where a simulated world meets whoever decides: one small interface, for the desk in this process and the service
behind HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from features.common.errors import Failure
from features.common.types import Decision, DecisionRequest, Event


class DeciderRefused(Failure):
    """Whoever decides does not do what the simulation asks."""


class Told(msgspec.Struct):
    """What became of events. Nothing is lost where accepted = stored + duplicates + dead."""

    sent: int = 0
    accepted: int = 0
    """Items of the calls that were answered with 202."""
    stored: int = 0
    duplicates: int = 0
    dead: int = 0
    reasons: dict[str, int] = {}
    """Why items became dead letters, with how many."""

    @property
    def conserved(self) -> bool:
        return self.sent == self.accepted == self.stored + self.duplicates + self.dead


class Port(Protocol):
    """One decider. Moments are microseconds since 1970."""

    told: Told | None
    """None where there is no event log that counts them."""
    name: str
    """`desk` or the address."""

    def turn(self, moment: int) -> int:
        """It is now this moment of the world; returns what the decider's clock says, which decides what is valid."""
        ...

    def decide(self, request: DecisionRequest) -> Decision:
        """Return one decision, now.

        Raises:
            DeciderRefused: it is not answered.
        """
        ...

    def tell(self, events: Sequence[Event]) -> None:
        """Tell what happened, at most `types.EVENTS_MAX` events.

        Raises:
            DeciderRefused: it is not taken.
        """
        ...

    def close(self) -> None: ...

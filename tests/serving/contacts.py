"""Offers of three groups, and a ledger that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from features.contact_history.history import key_of
from features.contact_history.takes import GRANTED, Take, TakeResult
from serving.decision.effects import Effect, EffectResult, Reserve
from tests.serving import hubs
from tests.serving.hubs import NOON, microseconds

NOW = microseconds(NOON)
GROUPS = ["sales", "service", ""]
OFFERS = [hubs.offer(at, group=GROUPS[at % 3], value=float(100 - at)) for at in range(6)]


class FakeLedger:
    """Says what a test wants it to say, and remembers what it was asked."""

    def __init__(
        self,
        falls: Callable[[int], bool] = lambda _: False,
        spent: dict[str, str] | None = None,
        away: type | None = None,
    ) -> None:
        self.falls, self.away, self.asked = falls, away, list[Effect]()
        self.spent = {key_of(name): which for name, which in (spent or {}).items()}

    def __call__(self, asked: Effect) -> EffectResult:
        self.asked.append(asked)
        if self.away is not None and isinstance(asked, self.away):
            return None
        if isinstance(asked, Take):
            return TakeResult(tuple(0 if self.falls(contact.offer) else GRANTED for contact in asked.contacts))
        if isinstance(asked, Reserve):
            return [self.spent.get(budget.offer, "") for budget in asked.budgets]  # type: ignore[misc]
        return None

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.asked if isinstance(one, kind)]

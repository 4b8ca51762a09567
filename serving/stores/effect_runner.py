"""Running the effects of decisions on the ledger: contacts and budgets are taken, sticky assignments written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from features.columns.rows import StoreUnavailable
from features.common.moments import Micros
from features.contact_history.takes import Take
from features.events.journal import Settled
from features.ledger.recent import KeptArm
from serving.assignment.experiments import PendingAssignments
from serving.decision.effects import Effect, EffectResult, Reserve, Settle
from serving.stores.deadline import Deadline
from serving.stores.ledger_access import LedgerAccess


class EffectRunner:
    """Runs effects for one worker. All methods belong to the event loop's thread."""

    def __init__(self, access: LedgerAccess, deadline: Deadline, clock: Callable[[], Micros]) -> None:
        self._access, self._deadline, self._clock = access, deadline, clock
        self.on_settled: Callable[[Settled], object] = lambda _: None
        """Takes what the ledger holds of sticky assignments that were to be written down, before anybody decides by
        them.
        """

    async def run(self, effect: Effect, contacts: bytes | None) -> EffectResult:
        """Return the result of an effect; None when the ledger does not answer in time.

        Args:
            contacts: the history that the customer was read with: where it has not changed since, it saves the ledger
                work.
        """
        try:
            result = self._run_now(effect)
            if result is None:
                result = await self._run(effect, contacts)
        except (StoreUnavailable, TimeoutError) as error:
            self._access.complain(error)
            return None
        self._access.used = True
        return result

    def _run_now(self, effect: Effect) -> EffectResult:
        """Return what the ledger answers without a wait; None where it must be waited for."""
        if isinstance(effect, Take):
            return self._access.ledger.take_now(effect)
        if isinstance(effect, Reserve):
            return self._access.ledger.take_budgets_now(effect.budgets, effect.moment)
        return None

    async def _run(self, effect: Effect, contacts: bytes | None) -> EffectResult:
        ledger = self._access.ledger
        async with asyncio.timeout(self._deadline.seconds):
            if isinstance(effect, Take):
                return await ledger.take(effect, contacts)
            if isinstance(effect, Reserve):
                return await ledger.take_budgets(effect.budgets, effect.moment)
            if isinstance(effect, Settle):
                return await self._settle(effect)
            await ledger.give_back(effect.offers, effect.moment)
            return None

    async def _settle(self, effect: Settle) -> Mapping[str, KeptArm]:
        """Return what holds of the sticky assignments that are wanted, by experiment."""
        settling = [self._settle_unit(wanted) for wanted in effect.wanted]
        stored = [await settling[0]] if len(settling) == 1 else await asyncio.gather(*settling)
        return {experiment: arm for arms in stored for experiment, arm in arms.items()}

    async def _settle_unit(self, wanted: PendingAssignments) -> dict[str, KeptArm]:
        """Return what holds of the sticky assignments of one unit, by experiment."""
        stored = await self._access.ledger.settle(*wanted)
        arms = {experiment: stored[experiment] for experiment in wanted.arms if experiment in stored}
        self.on_settled(Settled(wanted.unit, self._clock(), arms, wanted.over))
        return arms

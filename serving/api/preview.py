"""Enquiries: which arms a unit has, and what it would be offered, asked for itself. Nobody is exposed, and nothing is
taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from features.common.moments import in_seconds
from features.common.types import ACCOUNT, ContextValue, Decision, DecisionRequest
from features.workspace.experiments import ReadExperiment
from serving.assignment.assignment import Assigned, Assignment, StickyArm, Units
from serving.decision.answer import CONTACTS_UNAVAILABLE, FEATURES_UNAVAILABLE
from serving.decision.case import DecisionInputs
from serving.decision.decide import decide
from serving.decision.effects import Settle
from serving.http import problems
from serving.hub.consent import without
from serving.reload.reloader import Reloader
from serving.state.snapshot import Snapshot

CUSTOMER_COLUMN = "customer."


class Answered(NamedTuple):
    """What the experiments say, and of whom."""

    units: Units
    sticky: Mapping[str, StickyArm] | None
    """By experiment, what was written down before; None when it could not be read."""
    assigned: Assigned
    lacks: tuple[str, ...] = ()
    """Why this is less than it could be, as decisions say it; nothing where all answered that were asked."""

    def of(self, experiment: str) -> Assignment:
        """Return what one experiment says."""
        return next(one for one in self.assigned.assignments if one.experiment == experiment)


class Enquiry:
    """Asks on behalf of the routes of one worker."""

    def __init__(self, reloader: Reloader) -> None:
        self.reloader = reloader
        self._prepared: tuple[Snapshot | None, frozenset[str]] = (None, frozenset())

    def serving(self) -> Snapshot:
        """Return what serves.

        Raises:
            NotReady: nothing does yet.
        """
        if self.reloader.loaded is None:
            raise problems.NotReady(self.reloader.refusal or "the worker is loading")
        return self.reloader.loaded

    async def ask(
        self, loaded: Snapshot, units: Units, context: Mapping[str, ContextValue], only: str = ""
    ) -> Answered:
        """Return what the experiments say to a unit, now. Stores are read only where it matters; one that does not
        answer knows nothing.

        Args:
            units: an account that is given holds; else the one that customer or context name.
            context: checked already.
            only: the one experiment that is asked; all when empty.
        """
        now, states, needs = self.reloader.clock(), loaded.experiment_states, self._needs(loaded)
        if units.customer and not (only in needs if only else needs):
            return Answered(units, {}, states.assigned(units, None, context, {}, now, only))
        given = dict(context)
        if units.account and states.account_of_context is not None:
            given[states.account_of_context] = units.account  # whose sticky assignments count
        request = DecisionRequest(units.customer, context=given, anonymous_id=units.anonymous or None)
        own = request.unit or ACCOUNT + units.account
        customer = await self.reloader.stores.customers.known(own, loaded, now, request)
        row = loaded.layout.plan.nobody() if customer.row is None else customer.row
        withheld = loaded.hub.purposes.withheld(row, None, customer.consent)
        if withheld is not None:
            row, context = withheld.row(row), without(context, withheld.context)
        if request.unit:
            found = states.units(request, customer.unit, row, context, in_seconds(now))
            units = found._replace(account=units.account or found.account)
        sticky = customer.sticky
        lacks = (() if customer.row is not None else (FEATURES_UNAVAILABLE,)) + (
            () if sticky is not None else (CONTACTS_UNAVAILABLE,)
        )
        return Answered(units, sticky, states.assigned(units, row, context, sticky or {}, now, only), lacks)

    def lacked(self, loaded: Snapshot, answered: Answered, experiment: str) -> tuple[str, ...]:
        """Return the missing inputs that may affect one experiment; a missing identity link affects all that run."""
        if not answered.lacks or loaded.workspace.experiments.experiments[experiment].status != "running":
            return ()
        return answered.lacks if not answered.units.customer or experiment in self._needs(loaded) else ()

    async def settle(self, loaded: Snapshot, answered: Answered, experiment: str) -> Assignment:
        """Return the arm of one experiment, from now on: a sticky one is written down where none was. Unsure stores
        write nothing.
        """
        found = answered.of(experiment)
        if found.to_store is None or answered.sticky is None:
            return found
        one = Assigned(answered.assigned.group, (found,))
        stored = await self.reloader.stores.effects.run(
            Settle(loaded.experiment_states.wanted(answered.units, one, answered.sticky)), None
        )
        return loaded.experiment_states.settled(one, stored).assignments[0] if isinstance(stored, Mapping) else found

    async def glimpse(self, request: DecisionRequest) -> Decision:
        """Return what a request would be answered. It is no decision: nothing is journalled, taken or written.

        Raises:
            UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
        """
        loaded, now = self.serving(), self.reloader.clock()
        customer = await self.reloader.stores.customers.known(request.unit, loaded, now, request)
        return decide(DecisionInputs(request, loaded, customer, now))

    def _needs(self, loaded: Snapshot) -> frozenset[str]:
        """Experiments of a state for which the stores are read."""
        if self._prepared[0] is not loaded:
            self._prepared = (
                loaded,
                frozenset(read.key for read in loaded.experiment_states.experiments.experiments if _reads(read)),
            )
        return self._prepared[1]


def _reads(read: ReadExperiment) -> bool:
    if read.entry.status != "running":
        return False
    columns = () if read.targeting is None else read.targeting.names
    of_customer = any(name.startswith(CUSTOMER_COLUMN) for name in columns)
    return read.entry.sticky or of_customer or read.entry.unit == "account"

"""The experiments of one snapshot: who is in which arm, which state decides there, and what is written down of it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple

import numpy as np

from features.columns.rows import OnlineRow
from features.common.moments import BEGINNING_US, Micros, Seconds, in_seconds
from features.common.types import ACCOUNT, ANONYMOUS, ContextValue, DecisionRequest
from features.config.experiments import Changes, ExperimentsFile
from features.expressions.nodes import Term
from features.ledger.recent import KeptArm
from features.workspace import variants
from features.workspace.experiments import Experiments, read_experiments
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from serving.assignment.arm_states import LOGICS, S, groups_in_use, on_models, state_of_arms, workspace_of_group
from serving.assignment.assignment import NOBODY, Assigned, Assigner, StickyArm, Units
from serving.conditions.conditions import BoundConditions, Conditions
from serving.conditions.inputs import ConditionInputs
from training.bundle.bundle import Bundle

EVERYWHERE: frozenset[str] | None = None
"""Of an experiment that concerns the decisions for all placements."""


class PendingAssignments(NamedTuple):
    """Sticky assignments of one unit that are to be written down."""

    unit: str
    arms: dict[str, KeptArm]
    over: dict[str, KeptArm]
    """What was read, and is to be replaced."""


class ExperimentStates(Generic[S]):
    """The experiments of one state. Holds scratch memory: for one thread only.

    Args:
        loaded: the state that decides where nothing is changed; it must outlive this.
        bundles: of the models that arms name, by that name.

    Raises:
        BadBundle: an arm names a model that is not there, or cannot serve.

    Attributes:
        active: whether anybody may be in an experiment or a group; else decisions need not ask.
        sticky: whether an assignment may be written down.
        loads: the states with a bundle of their own, the serving one aside.
    """

    def __init__(self, loaded: S, bundles: Mapping[str, Bundle]) -> None:
        workspace = loaded.workspace
        file = workspace.experiments
        self.experiments = _read(workspace)
        self.assigner = Assigner.of(self.experiments)
        running = [read for read in self.experiments.experiments if read.entry.status == "running"]
        held = groups_in_use(file)
        self.active = bool(running or held)
        self.sticky = any(read.entry.sticky for read in running)
        self._sticky = {read.key: read.entry.unit for read in running if read.entry.sticky}
        self._concerned = {read.key: _concerned([arm.changes for arm in read.entry.arms.values()]) for read in running}
        self._base = weakref.ref(loaded)
        named = _account(file.account)
        self._account = (
            ConditionInputs(named, loaded.layout.plan, workspace.features.context, loaded.layout.words)
            if named
            else None
        )
        self.account_of_context = (
            None if file.account is None or not file.account.startswith("context.") else file.account.partition(".")[2]
        )
        """The column of the context that holds the account; None where none does."""
        self._conditions = Conditions({read.key: read.targeting for read in running if read.targeting is not None})
        self._at = {key: at for at, key in enumerate(self._conditions.names)}
        self._bound: BoundConditions = self._conditions.bind({}, 1)
        self._facts = ConditionInputs(
            self._conditions.scalars, loaded.layout.plan, workspace.features.context, loaded.layout.words
        )
        self.loads = [] if not self.active else list((bases := on_models(loaded, bundles)).values())
        self._changing = {(key, arm) for key, arms in variants.changing(file).items() for arm in arms}
        self._arms: dict[variants.Arms, S | None] = {}
        self._groups = {name: loaded.changed(workspace_of_group(name, workspace), LOGICS[name]) for name in held}
        if self.active:
            changes = variants.changing(file)
            for arms in variants.combinations(file):
                self._arms[arms] = state_of_arms(loaded, bases, [changes[key][arm] for key, arm in arms])

    def units(
        self, request: DecisionRequest, unit: str, row: OnlineRow, context: Mapping[str, ContextValue], now: Seconds
    ) -> Units:
        """Return the ids of who asks.

        Args:
            unit: whose case it is: the request's own, or the customer whom its anonymous id was linked to.
            row, context: without what is withheld.
            now: seconds since 1970.
        """
        customer = request.customer_id or ("" if unit.startswith(ANONYMOUS) else unit)
        account = "" if self._account is None else str(self._account(row, context, now)[0] or "")
        return Units(customer, request.anonymous_id or "", account)

    def assigned(
        self,
        units: Units,
        row: OnlineRow | None,
        context: Mapping[str, ContextValue],
        sticky: Mapping[str, StickyArm] = NOBODY,
        now: Micros = BEGINNING_US,
        only: str = "",
    ) -> Assigned:
        """Return what every experiment says to a unit; see `Assigner.assign`.

        Args:
            row: None where nothing is known of the customer.
            sticky: by experiment, what was written down for its own unit.
            now: microseconds since 1970.
            only: the one experiment that is asked; all when empty.
        """
        truths: tuple[int, ...] = ()

        def targeted(key: str) -> bool:
            nonlocal truths
            if not truths:
                known = self._nobody() if row is None else row
                seconds = in_seconds(now)
                truths = self._bound.evaluate(self._facts(known, context, seconds), np.empty((0, 1)), seconds)
            return bool(truths[self._at[key]])

        return self.assigner.assign(units, targeted, now, sticky, only)

    def state(self, assigned: Assigned) -> S:
        """Return what decides under these arms, or in this group."""
        group = assigned.group.name
        if group is not None:
            return self._groups[group]
        arms = tuple(
            [
                (one.experiment, one.arm)
                for one in assigned.assignments
                if one.arm and (one.experiment, one.arm) in self._changing
            ]
        )
        return (self._arms[arms] if arms else None) or self._serving()

    def sticky_units(self, request: DecisionRequest) -> list[str]:
        """Return the other units named by the request whose sticky assignments apply."""
        kinds, units = set(self._sticky.values()), []
        if "anonymous" in kinds and request.customer_id and request.anonymous_id:
            units.append(ANONYMOUS + request.anonymous_id)
        if "account" in kinds and self.account_of_context is not None:
            account = request.context.get(self.account_of_context)
            if account is not None and account != "":
                units.append(ACCOUNT + str(account))
        return units

    def account_unit(self, row: OnlineRow | None, now: Seconds) -> str:
        """Return the unit of the account that a customer's row names; empty where it names none, or its sticky
        assignments do not apply.
        """
        if (
            row is None
            or self._account is None
            or self.account_of_context is not None
            or "account" not in self._sticky.values()
        ):
            return ""
        account = self._account(row, {}, now)[0]
        return f"{ACCOUNT}{account}" if account else ""

    def sticky_arms(
        self, stored: Mapping[str, Mapping[str, KeptArm]], own: str, request: DecisionRequest
    ) -> dict[str, StickyArm]:
        """Return, by experiment, what was written down for its own unit.

        Args:
            stored: what the ledger has of each unit that was looked at.
            own: whose case it is; see `units`.
        """
        sticky: dict[str, StickyArm] = {}
        for key, kind in self._sticky.items():
            if kind == "customer":
                arms = stored.get(own) if not own.startswith(ANONYMOUS) else None
            elif kind == "anonymous":
                arms = stored.get(ANONYMOUS + request.anonymous_id) if request.anonymous_id else None
            else:
                arms = next((arms for unit, arms in stored.items() if unit.startswith(ACCOUNT)), None)
            if arms and key in arms:
                sticky[key] = StickyArm(*arms[key])
        return sticky

    def wanted(self, units: Units, assigned: Assigned, sticky: Mapping[str, StickyArm]) -> list[PendingAssignments]:
        """Return what is to be written down, by unit; nothing where all of it is."""
        pending: dict[str, PendingAssignments] = {}
        for assignment in assigned.assignments:
            if assignment.to_store is None:
                continue
            experiment = assignment.experiment
            unit = self.unit(experiment, units)
            of_unit = pending.setdefault(unit, PendingAssignments(unit, {}, {}))
            of_unit.arms[experiment] = _packed(assignment.to_store)
            if experiment in sticky:
                of_unit.over[experiment] = _packed(sticky[experiment])
        return list(pending.values())

    def unit(self, experiment: str, units: Units) -> str:
        """Return the unit of an experiment as the ledger and the lake name it."""
        kind = self.experiments.file.experiments[experiment].unit
        if kind == "customer":
            return units.customer
        return ANONYMOUS + units.anonymous if kind == "anonymous" else ACCOUNT + units.account

    def settled(self, assigned: Assigned, stored: Mapping[str, KeptArm]) -> Assigned:
        """Return what holds after what was wanted was written down, or another request was first.

        Args:
            stored: what the ledger has from now on, by experiment.
        """
        assignments = tuple(
            [
                (
                    assignment
                    if assignment.to_store is None or assignment.experiment not in stored
                    else self.assigner.settled(assignment, StickyArm(*stored[assignment.experiment]))
                )
                for assignment in assigned.assignments
            ]
        )
        return Assigned(assigned.group, assignments)

    def exposed(self, experiment: str, placements: Iterable[str]) -> bool:
        """Return whether an arm of an experiment changes, or could have changed, what is decided for these
        placements.
        """
        concerned = self._concerned[experiment]
        return concerned is None or not concerned.isdisjoint(placements)

    def _serving(self) -> S:
        loaded = self._base()
        assert loaded is not None, "the state that these experiments belong to is gone"
        return loaded

    def _nobody(self) -> OnlineRow:
        return self._serving().layout.plan.nobody()


def _read(workspace: Workspace) -> Experiments:
    if workspace.experiments == ExperimentsFile():
        return Experiments(workspace.experiments, ())
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    read = read_experiments(workspace.experiments, book, workspace.ramps)
    for one in read.experiments:
        if one.targeting is None and one.entry.targeting is not None:
            raise ValueError(
                f"expected a condition that reads as `targeting` of {one.key}, got one with problems: check the"
                " workspace first"
            )
    return read


def _packed(arm: StickyArm) -> KeptArm:
    """Return a sticky assignment as the ledger has it."""
    return arm.arm, arm.bucket_version, 0.0 if arm.probability is None else arm.probability


def _account(account: str | None) -> dict[str, Term]:
    """Return the column of the account, as `ConditionInputs` takes it."""
    if account is None:
        return {}
    kind, _, _ = account.partition(".")
    return {account: Term("customer" if kind == "customer" else "context", "category")}


def _concerned(changes: Iterable[Changes]) -> frozenset[str] | None:
    """Return the placements whose decisions some arm changes, or could change."""
    placements: set[str] = set()
    for change in changes:
        if change.model or change.arbitration or change.rules or change.exploration:
            return EVERYWHERE
        placements |= set(change.placements)
    return frozenset(placements)

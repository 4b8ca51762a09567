"""The experiments of one loaded state: who is in which arm, and the state that decides there.

States of arms and control groups share bundle, kernel, tables and layout with the one that they are made of; they are
made where it is made, aside, each combination of arms that one request can have. An arm with another model brings
another bundle.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from features.columns.layout import Layout
from features.columns.rows import OnlineRow
from features.common.moments import BEGINNING_US, Micros, Seconds, in_seconds
from features.common.types import ACCOUNT, ANONYMOUS, ContextValue, DecisionRequest
from features.config.experiments import CONTROL_GROUPS, Changes, ExperimentsFile
from features.expressions.nodes import Term
from features.ledger.recent import KeptArm
from features.workspace import variants
from features.workspace.experiments import Experiments, read_experiments
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from serving.assignment.assignment import HOLDOUT, NOBODY, Assigned, Assigner, Kept, Units
from serving.conditions.conditions import BoundConditions, Conditions
from serving.conditions.inputs import ConditionInputs
from serving.hub.exploration import Explorer
from serving.hub.hub import USUAL, Logic
from training.bundle.bundle import BadBundle, Bundle

EVERYWHERE: frozenset[str] | None = None
"""Of an experiment that concerns the decisions for all placements."""

ELIGIBILITY: Logic = replace(USUAL, stages=("eligibility",))
LOGICS: dict[str, Logic] = {
    HOLDOUT: Logic(weighted=False, personal=False, explores=False),
    "random_eligible": Logic(explorer=Explorer("gap", floor=1.0, salt="random_eligible")),
    "propensity_only": USUAL,
    "no_levers": USUAL,
    "eligibility_only": ELIGIBILITY,
    "random_propensity": Logic(blind=True, explorer=Explorer("weight", salt="random_propensity")),
}
"""What the holdout and each control group do otherwise, beside what `_workspace_of` changes."""
assert set(LOGICS) == {HOLDOUT, *CONTROL_GROUPS}


class DecidingState(Protocol):
    """What experiments need of a state that decides."""

    workspace: Workspace
    bundle: Bundle

    @property
    def layout(self) -> Layout:
        """Return where each column stands."""
        ...

    def changed(self, workspace: Workspace, logic: Logic = USUAL) -> Self:
        """Return the state of an arm or a control group."""
        ...

    def on(self, bundle: Bundle) -> Self:
        """Return the same files and offers on another model."""
        ...


S = TypeVar("S", bound=DecidingState)


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
        held = _held(file)
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
        self.loads = [] if not self.active else list((bases := _bases(loaded, bundles)).values())
        self._changing = {(key, arm) for key, arms in variants.changing(file).items() for arm in arms}
        self._arms: dict[variants.Arms, S | None] = {}
        self._groups = {name: loaded.changed(_workspace_of(name, workspace), LOGICS[name]) for name in held}
        if self.active:
            changes = variants.changing(file)
            for arms in variants.combinations(file):
                self._arms[arms] = _of_arms(loaded, bases, [changes[key][arm] for key, arm in arms])

    def units(
        self, request: DecisionRequest, unit: str, row: OnlineRow, context: Mapping[str, ContextValue], now: Seconds
    ) -> Units:
        """Who asks.

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
        kept: Mapping[str, Kept] = NOBODY,
        now: Micros = BEGINNING_US,
        only: str = "",
    ) -> Assigned:
        """Return what every experiment says to a unit; see `Assigner.assign`.

        Args:
            row: None where nothing is known of the customer.
            kept: by experiment, what was written down for its own unit.
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

        return self.assigner.assign(units, targeted, now, kept, only)

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

    def keepers(self, request: DecisionRequest) -> list[str]:
        """Return the other units named by the request whose sticky assignments apply."""
        kinds, found = set(self._sticky.values()), []
        if "anonymous" in kinds and request.customer_id and request.anonymous_id:
            found.append(ANONYMOUS + request.anonymous_id)
        if "account" in kinds and self.account_of_context is not None:
            account = request.context.get(self.account_of_context)
            if account is not None and account != "":
                found.append(ACCOUNT + str(account))
        return found

    def account_keeper(self, row: OnlineRow | None, now: Seconds) -> str:
        """Return the unit of the account that a customer's row names; empty where it names none, or none is asked
        for.
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

    def kept(self, found: Mapping[str, Mapping[str, KeptArm]], own: str, request: DecisionRequest) -> dict[str, Kept]:
        """By experiment, what was written down for its own unit.

        Args:
            found: what is kept of each unit that was looked at.
            own: whose case it is; see `units`.
        """
        kept: dict[str, Kept] = {}
        for key, kind in self._sticky.items():
            if kind == "customer":
                arms = found.get(own) if not own.startswith(ANONYMOUS) else None
            elif kind == "anonymous":
                arms = found.get(ANONYMOUS + request.anonymous_id) if request.anonymous_id else None
            else:
                arms = next((arms for unit, arms in found.items() if unit.startswith(ACCOUNT)), None)
            if arms and key in arms:
                kept[key] = Kept(*arms[key])
        return kept

    def wanted(self, units: Units, assigned: Assigned, kept: Mapping[str, Kept]) -> list[PendingAssignments]:
        """Return what is to be written down, by unit; nothing where all of it is."""
        found: dict[str, PendingAssignments] = {}
        for one in assigned.assignments:
            if one.kept is None:
                continue
            unit = self.unit(one.experiment, units)
            wanted = found.setdefault(unit, PendingAssignments(unit, {}, {}))
            wanted.arms[one.experiment] = _packed(one.kept)
            if one.experiment in kept:
                wanted.over[one.experiment] = _packed(kept[one.experiment])
        return list(found.values())

    def unit(self, experiment: str, units: Units) -> str:
        """Return the unit of an experiment as the ledger and the lake name it."""
        kind = self.experiments.file.experiments[experiment].unit
        if kind == "customer":
            return units.customer
        return ANONYMOUS + units.anonymous if kind == "anonymous" else ACCOUNT + units.account

    def settled(self, assigned: Assigned, stored: Mapping[str, KeptArm]) -> Assigned:
        """After what was wanted was written down, or another request was first: what holds, by experiment."""
        found = tuple(
            [
                (
                    one
                    if one.kept is None or one.experiment not in stored
                    else self.assigner.settled(one, Kept(*stored[one.experiment]))
                )
                for one in assigned.assignments
            ]
        )
        return Assigned(assigned.group, found)

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


def _packed(kept: Kept) -> KeptArm:
    return kept.arm, kept.bucket_version, 0.0 if kept.probability is None else kept.probability


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


def _held(file: ExperimentsFile) -> list[str]:
    """Return the holdout and the control groups that somebody may be in."""
    shares = {HOLDOUT: 0.0 if file.holdout is None else file.holdout.share}
    if file.control_groups is not None:
        shares |= dict(zip(CONTROL_GROUPS, file.control_groups.shares, strict=True))
    return [name for name, share in shares.items() if share > 0]


def _account(account: str | None) -> dict[str, Term]:
    """Return the column of the account, as `ConditionInputs` takes it."""
    if account is None:
        return {}
    kind, _, _ = account.partition(".")
    return {account: Term("customer" if kind == "customer" else "context", "category")}


def _concerned(changes: Iterable[Changes]) -> frozenset[str] | None:
    """Return the placements whose decisions some arm changes, or could change."""
    places: set[str] = set()
    for change in changes:
        if change.model or change.arbitration or change.rules or change.exploration:
            return EVERYWHERE
        places |= set(change.placements)
    return frozenset(places)


def _bases(loaded: S, bundles: Mapping[str, Bundle]) -> dict[str, S]:
    """By the model that arms name, the state on its bundle."""
    made: dict[str, S] = {}
    for name in variants.aliases(loaded.workspace.experiments):
        if name not in bundles:
            raise BadBundle(
                f"expected a published bundle of the model `{name}`, which an arm of experiments.yaml names, got none: "
                f"run `opportune publish --alias {name}`"
            )
        made[name] = loaded if bundles[name].id == loaded.bundle.id else loaded.on(bundles[name])
    return made


def _of_arms(loaded: S, bases: Mapping[str, S], changes: list[Changes]) -> S | None:
    """Return the state of a combination of arms; None: the state that serves."""
    model = next((change.model for change in reversed(changes) if change.model is not None), None)
    base, workspace = loaded if model is None else bases[model], variants.with_changes(loaded.workspace, changes)
    made = base if workspace == loaded.workspace else base.changed(workspace)
    return None if made is loaded else made


def _workspace_of(group: str, workspace: Workspace) -> Workspace:
    if group == "propensity_only":
        return variants.by_propensity(workspace)
    return variants.without_levers(workspace) if group == "no_levers" else workspace

"""What the routes of experiments take and answer."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from features.common.types import CONTEXT_TEXT_CHARACTERS_MAX, Context, ExperimentKey, Id
from features.config.experiments import CONTROL_GROUPS, Experiment, Hashing, Status, Unit
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import State
from serving.assignment.assignment import Assignment, Reason
from serving.state.snapshot import Snapshot

ASSIGNMENTS_MAX = 500
EXPERIMENTS_ASKED_MAX = 200


class ArmView(Struct, frozen=True):
    """An arm; `share` is its exact part of the units that take part."""

    arm: str
    weight: float | None
    share: float
    control: bool
    description: str


class RampView(Struct, frozen=True):
    """Where the ramp of an experiment is; `share` is the arm's part of all units."""

    arm: str
    state: State
    share: float
    steps: tuple[float, ...]


class ExperimentView(Struct, frozen=True):
    """An experiment, as its file declares it."""

    key: str
    description: str
    unit: Unit
    status: Status
    start: str | None
    end: str | None
    hash: Hashing
    arms: tuple[ArmView, ...]
    coverage: float
    covered: float
    """The exact part of the units that takes part: of the namespace times the coverage."""
    namespace: str | None
    targeting: str | None
    sticky: bool
    bucket_version: int
    ramp: RampView | None
    """None where it has none: then the weights hold."""


class ExperimentsAnswer(Struct, frozen=True):
    """All experiments, in the order of the file; the share of the holdout, and those of the control groups that there
    are.
    """

    experiments: tuple[ExperimentView, ...]
    holdout: float | None
    control_groups: dict[str, float]
    config: str
    """Digest of the files that decide, as decisions have it."""


class AssignmentView(Struct, frozen=True):
    """What one experiment says to one unit. Without an arm the unit is not in it, and `reason` says why."""

    experiment: str
    arm: str | None
    reason: Reason
    probability: float | None
    """P(arm | in the experiment)."""
    covered: float
    """P(in the experiment)."""
    bucket: int | None
    """What the hash gave, in the tool's own count; None where it was not asked."""


class UnitAssignment(Struct, frozen=True):
    """The answer to one question about one unit."""

    unit: str
    group: str | None
    """The holdout or control group of the unit."""
    assignment: AssignmentView
    degraded: tuple[str, ...] = ()
    """Why it may be less than it could be, as decisions say it."""


class AssignmentRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Who asks: at least one of the three ids."""

    customer_id: Id = ""
    anonymous_id: Id | None = None
    account: Annotated[str, Meta(min_length=1, max_length=CONTEXT_TEXT_CHARACTERS_MAX)] | None = None
    """The column's own value where it is absent."""
    context: Context = {}
    experiments: Annotated[list[ExperimentKey], Meta(min_length=1, max_length=EXPERIMENTS_ASKED_MAX)] | None = None
    """All of them when absent."""


class AssignmentRequests(Struct, frozen=True, forbid_unknown_fields=True):
    """Several units, answered in order."""

    requests: Annotated[list[AssignmentRequest], Meta(min_length=1, max_length=ASSIGNMENTS_MAX)]


class AssignmentsView(Struct, frozen=True):
    """What the experiments say to one unit, in the order of the file."""

    group: str | None
    assignments: tuple[AssignmentView, ...]
    degraded: tuple[str, ...] = ()
    """Why some of them may be less than they could be, as decisions say it."""


class AssignmentsAnswer(Struct, frozen=True):
    """In the order of the requests."""

    results: tuple[AssignmentsView, ...]


def experiments_view(snapshot: Snapshot) -> ExperimentsAnswer:
    """Return all experiments of what serves."""
    file = snapshot.workspace.experiments
    views = []
    for read in snapshot.experiment_states.experiments.experiments:
        entry: Experiment = read.entry
        arms = tuple(
            ArmView(name, arm.weight, share, name == read.control, arm.description)
            for (name, arm), share in zip(entry.arms.items(), read.split.shares, strict=True)
        )
        namespace = None if entry.namespace is None else entry.namespace.name
        covered = read.namespace_share * read.split.covered
        views.append(
            ExperimentView(
                read.key,
                entry.description,
                entry.unit,
                entry.status,
                entry.start,
                entry.end,
                entry.hash,
                arms,
                entry.coverage,
                covered,
                namespace,
                entry.targeting,
                entry.sticky,
                entry.bucket_version,
                _ramp_view(read),
            )
        )
    groups = {} if file.control_groups is None else dict(zip(CONTROL_GROUPS, file.control_groups.shares, strict=True))
    holdout = None if file.holdout is None else file.holdout.share
    return ExperimentsAnswer(
        tuple(views), holdout, {name: share for name, share in groups.items() if share}, snapshot.hub.config
    )


def _ramp_view(read: ReadExperiment) -> RampView | None:
    plan, standing = read.entry.ramp, read.standing
    return None if plan is None or standing is None else RampView(plan.arm, standing.state, standing.share, plan.steps)


def assignment_view(assignment: Assignment) -> AssignmentView:
    """Return an assignment as answers show it."""
    return AssignmentView(
        assignment.experiment,
        assignment.arm,
        assignment.reason,
        assignment.probability,
        assignment.covered,
        assignment.bucket,
    )

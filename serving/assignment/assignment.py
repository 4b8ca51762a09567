"""Which arm of each experiment a unit gets at a moment: pure, without I/O, the same everywhere and always.

In this order: an experiment that is not running, or not now, assigns nobody. A unit of the holdout, or of a control
group, is in no experiment: its decisions follow one known logic, which an arm would change. Who was assigned before
stays, if the experiment is sticky, whatever became of namespace, targeting and split. Then the namespace, targeting,
coverage and split decide.

Two probabilities belong to an assignment, both over units as the hash spreads them: `covered`, P(in the experiment |
targeted, and neither held out nor in a control group) = share of the namespace x coverage; and `probability`, P(arm |
in the experiment). P(arm) is their product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, get_args

from features.common.moments import Micros
from features.config.experiments import CONTROL_GROUPS
from features.workspace.experiments import Experiments, ReadExperiment, control_groups_of, holdout_of

HOLDOUT = "holdout"

Reason = Literal[
    "split",
    "sticky",
    "draft",
    "stopped",
    "not_started",
    "rolled_back",
    "ended",
    "no_unit",
    "holdout",
    "control_group",
    "blocked",
    "namespace",
    "not_targeted",
    "not_covered",
]
"""Why a unit has the arm that it has, or none. `no_unit`: the request does not name a unit of that kind. `blocked`: it
was assigned under a bucket version that is no longer wanted. `not_started` is before the start, or before its ramp was
started; `rolled_back`: its ramp was.
"""


class Units(NamedTuple):
    """Who asks: the ids that a request has, as the business writes them; empty where it has none."""

    customer: str = ""
    anonymous: str = ""
    account: str = ""


class StickyArm(NamedTuple):
    """An assignment as it is written down for a unit, once: the first one stays."""

    arm: str
    bucket_version: int
    probability: float | None = None
    """With which the arm was drawn; None where nobody wrote it down."""


class ControlGroup(NamedTuple):
    """The holdout or control group of a unit."""

    name: str | None
    """`holdout`, one of `CONTROL_GROUPS`, or None for all others."""
    probability: float
    """Of being in it; of all others for None."""


class Assignment(NamedTuple):
    """What one experiment says to one unit."""

    experiment: str
    reason: Reason
    arm: str | None = None
    """None: not in the experiment."""
    probability: float | None = None
    """P(arm | in the experiment); of a sticky arm that with which it was drawn."""
    covered: float = 0.0
    """P(in the experiment); see above."""
    bucket: int | None = None
    """What the hash gave, in the tool's own count; None where it was not asked."""
    to_store: StickyArm | None = None
    """What is to be written down for the unit; None where nothing is."""


class Assigned(NamedTuple):
    """What all experiments say to one unit, in the order of the file."""

    group: ControlGroup
    assignments: tuple[Assignment, ...]

    @property
    def writes(self) -> dict[str, StickyArm]:
        """Return what is to be written down, by experiment: only where nothing of this bucket version is yet."""
        return {one.experiment: one.to_store for one in self.assignments if one.to_store is not None}


Targeted = Callable[[str], bool]
"""Whether the targeting of an experiment, by its key, is true; asked only of experiments that have one. Unknown is not
true.
"""

NOBODY: Mapping[str, StickyArm] = {}


class _Asked:
    """One experiment with what never changes made ready."""

    def __init__(self, read: ReadExperiment) -> None:
        entry = read.entry
        self.key, self.split, self.namespace, self.arms = read.key, read.split, read.namespace, read.arms
        self.targeted, self.sticky = read.targeting is not None, entry.sticky
        self.version, self.version_min = entry.bucket_version, entry.min_bucket_version
        self.unit = Units._fields.index(entry.unit)
        self.start = float("-inf") if read.start is None else read.start
        self.end = float("inf") if read.end is None else read.end
        self.covered = read.namespace_share * read.split.covered
        self.refused: dict[Reason, Assignment] = {
            reason: Assignment(read.key, reason, None, None, self.covered) for reason in _WITHOUT
        }
        never = _NEVER.get(entry.status) or (None if read.standing is None else _NEVER.get(read.standing.state))
        self.never: Assignment | None = None if never is None else self.refused[never]
        self.probabilities = dict(zip(read.arms, read.split.shares, strict=True))
        self.given = [
            (arm, share, StickyArm(arm, self.version, share) if self.sticky else None)
            for arm, share in zip(read.arms, read.split.shares, strict=True)
        ]

    def ask(self, unit: str, targeted: Targeted, stored: StickyArm | None) -> Assignment:
        """Return the assignment of a unit in no group, while the experiment runs."""
        if stored is not None and self.sticky:
            if stored.bucket_version < self.version_min:
                return self.refused["blocked"]
            if stored.bucket_version == self.version and stored.arm in self.probabilities:
                return self.again(stored)
        if self.namespace is not None and not self.namespace(unit):
            return self.refused["namespace"]
        if self.targeted and not targeted(self.key):
            return self.refused["not_targeted"]
        at, bucket = self.split(unit)
        if at < 0:
            return Assignment(self.key, "not_covered", None, None, self.covered, bucket)
        arm, share, write = self.given[at]
        return Assignment(self.key, "split", arm, share, self.covered, bucket, write)

    def again(self, stored: StickyArm) -> Assignment:
        """Return the arm that was written down. Its probability is that of the split of today where none was written
        with it.
        """
        probability = self.probabilities[stored.arm] if stored.probability is None else stored.probability
        return Assignment(self.key, "sticky", stored.arm, probability, self.covered)


_NEVER: dict[str, Reason] = {
    "draft": "draft",
    "stopped": "stopped",
    "not_started": "not_started",
    "rolled_back": "rolled_back",
}
"""By the status of an experiment, or the state of its ramp."""
_WITHOUT: tuple[Reason, ...] = tuple(
    reason for reason in get_args(Reason) if reason not in ("split", "sticky", "not_covered")
)


class Assigner:
    """Assigns units to the arms of all experiments of a workspace."""

    def __init__(self, experiments: Experiments) -> None:
        file = experiments.file
        self.experiments = experiments
        self._asked = [_Asked(read) for read in experiments.experiments]
        self._by_key = {asked.key: asked for asked in self._asked}
        holdout = None if file.holdout is None else holdout_of(file.holdout)
        control = None if file.control_groups is None else control_groups_of(file.control_groups)
        held = 0.0 if holdout is None else holdout.covered
        parts = (
            [0.0] * len(CONTROL_GROUPS) if control is None else [share * control.covered for share in control.shares]
        )
        self._held = ControlGroup(HOLDOUT, held)
        self._controls = [
            ControlGroup(name, (1 - held) * part) for name, part in zip(CONTROL_GROUPS, parts, strict=True)
        ]
        self._nobody = ControlGroup(None, 1.0)
        self._rest = ControlGroup(None, (1 - held) * (1 - (0.0 if control is None else control.covered)))
        self._holdout, self._control = holdout, control

    @classmethod
    def of(cls, experiments: Experiments) -> Assigner:
        """Make ready what `features.workspace.experiments.read_experiments` read."""
        return cls(experiments)

    @property
    def groups(self) -> tuple[ControlGroup, ...]:
        """All others, the holdout, and the control groups in their order, each with its probability."""
        return (self._rest, self._held, *self._controls)

    def group(self, units: Units) -> ControlGroup:
        """Return the holdout or control group of the customer, or of the anonymous id before log-in. Nobody is in
        none.
        """
        unit = units.customer or units.anonymous
        if not unit:
            return self._nobody
        if self._holdout is not None and self._holdout(unit)[0] == 0:
            return self._held
        if self._control is not None:
            at, _ = self._control(unit)
            if at >= 0:
                return self._controls[at]
        return self._rest

    def assign(
        self, units: Units, targeted: Targeted, now: Micros, sticky: Mapping[str, StickyArm] = NOBODY, only: str = ""
    ) -> Assigned:
        """Return what every experiment says to a unit.

        Args:
            targeted: see `Targeted`.
            now: microseconds since 1970.
            sticky: by experiment, what was written down for this unit before.
            only: the one experiment that is asked; all when empty.
        """
        group = self.group(units)
        reason: Reason | None = None if group.name is None else "holdout" if group.name == HOLDOUT else "control_group"
        assignments = []
        for asked in (self._by_key[only],) if only else self._asked:
            if asked.never is not None:
                assignments.append(asked.never)
            elif now < asked.start:
                assignments.append(asked.refused["not_started"])
            elif now >= asked.end:
                assignments.append(asked.refused["ended"])
            elif not (unit := units[asked.unit]):
                assignments.append(asked.refused["no_unit"])
            elif reason is not None:
                assignments.append(asked.refused[reason])
            else:
                assignments.append(asked.ask(unit, targeted, sticky.get(asked.key)))
        return Assigned(group, tuple(assignments))

    def settled(self, assignment: Assignment, stored: StickyArm) -> Assignment:
        """Return the assignment after the write that it wanted: another request may have been first, and what it wrote
        holds.
        """
        asked = self._by_key[assignment.experiment]
        if stored.bucket_version != asked.version or stored.arm not in asked.probabilities:
            return assignment
        return assignment._replace(to_store=None) if stored.arm == assignment.arm else asked.again(stored)

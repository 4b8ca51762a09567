"""`experiments.yaml` as structs: which units get which arm, and what an arm changes. Unknown keys are refused.

What an arm changes is said in the words of `policies.yaml` and `offers.yaml`. `features/validation/experiments.py`
checks what types cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from features.bucketing.hashing import Encoding
from features.bucketing.splits import ARMS_MAX
from features.bucketing.tools import NAMES
from features.common.timestamps import Duration, Moment
from features.common.types import LIMIT_OFFERS_MAX, Name, OfferId
from features.config.model_file import MODEL_NAME_PATTERN
from features.config.policies import Group, Lever

EXPERIMENTS_MAX = 200
RANGES_MAX = 50
BUCKET_VERSION_MAX = 1_000_000
SEED_CHARACTERS_MAX = 200
STEPS_MAX = 20
STEP_PARTS = 1_000
"""Steps of a ramp are whole numbers of so many parts, which the buckets of every hash can give exactly."""
RAMP_UNITS_MAX = 100_000_000

Key = Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)]
"""Of an experiment or an arm, as the A/B tool spells it."""
Share = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[str, Meta(max_length=SEED_CHARACTERS_MAX)]
Unit = Literal["customer", "anonymous", "account"]
Status = Literal["draft", "running", "stopped"]
if TYPE_CHECKING:
    Hashing = str
else:  # whatever the tools are: a file that names another is refused with all of them
    Hashing = Literal[NAMES]
Tolerated = Annotated[float, Meta(ge=0, le=100)]
ControlGroup = Literal["random_eligible", "propensity_only", "no_levers", "eligibility_only", "random_propensity"]
CONTROL_GROUPS: tuple[ControlGroup, ...] = (
    "random_eligible",
    "propensity_only",
    "no_levers",
    "eligibility_only",
    "random_propensity",
)
"""In the order in which their shares are cut."""
RAMP_STEPS = (0.01, 0.05, 0.10, 0.25, 0.50, 1.0)


class ArbitrationChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an arm ranks by: the keys of `arbitration` in policies.yaml. What is given here stands instead of what
    stands there.
    """

    formula: str | None = None
    worth: dict[Name, Annotated[float, Meta(ge=0)]] = {}
    weights: dict[Name, Lever] = {}
    """Context weights by name; their conditions stay."""
    offers: dict[OfferId, Lever] = {}
    """Levers of offers."""
    groups: dict[Group, Lever] = {}
    """Levers of groups."""


class RulesChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rules that an arm does without. Those of the stage eligibility (law, contract) hold for everybody."""

    off: Annotated[tuple[Name, ...], Meta(min_length=1)]


class PlacementChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an arm changes of a placement of offers.yaml; what is absent stays."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_OFFERS_MAX)] | None = None
    groups: tuple[str, ...] | None = None
    per_category: Annotated[int, Meta(ge=1)] | None = None
    per_group: Annotated[int, Meta(ge=1)] | None = None
    fallback: tuple[OfferId, ...] | None = None


class ExplorationChange(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much an arm explores, by inverse-gap weighting."""

    gamma: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    """The larger, the more the best offer is shown."""
    floor: Share | None = None
    """The part of all shows that is spread evenly over the eligible offers."""


class Changes(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an arm does otherwise. An arm without changes decides as the workspace says."""

    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    """An alias (`challenger`) or a version in quotes (`"12"`) of the registry."""
    arbitration: ArbitrationChange | None = None
    rules: RulesChange | None = None
    placements: dict[Name, PlacementChange] = {}
    exploration: ExplorationChange | None = None


class Arm(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the ways to decide that an experiment compares."""

    weight: Annotated[float, Meta(ge=0, le=100_000)] | None = None
    """Its part of the covered units: weights of all arms add up to 1, Unleash's are whole numbers of any sum. All
    absent: all equal.
    """
    ranges: Annotated[tuple[tuple[Share, Share], ...], Meta(min_length=1, max_length=RANGES_MAX)] | None = None
    """Instead of `weight`: the very buckets, as `[[from, to], …]` of 0 to 1, as a tool has them after its split was
    changed.
    """
    control: bool = False
    """What the others are compared with; the first arm where none says so."""
    description: str = ""
    changes: Changes = Changes()


class Namespace(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Experiments of one namespace never share a unit: each has a range of its own."""

    name: Annotated[str, Meta(min_length=1, max_length=SEED_CHARACTERS_MAX)]
    range: tuple[Share, Share]


class Guardrails(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a ramp watches: the harm that is tolerated, as a part of what the control has; 0 tolerates none. Null: it is
    not watched.
    """

    conversion: Tolerated | None = 0.0
    """The part of units with the label's outcome; less is harm."""
    value: Tolerated | None = None
    """What units are worth; less is harm. Off, since a few large values hide much."""
    dismissals: Tolerated | None = 0.0
    withdrawn: Tolerated | None = 0.0
    """Consents."""
    degraded: Tolerated | None = 0.0
    """The part of decisions, as `slow`."""
    slow: Tolerated | None = 0.0


class Ramp(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A staged rollout: the share of an arm rises step by step, while nothing speaks of harm."""

    arm: Key
    steps: Annotated[tuple[Annotated[float, Meta(gt=0, le=1)], ...], Meta(min_length=1, max_length=STEPS_MAX)] = (
        RAMP_STEPS
    )
    """Shares of all units, each larger than the one before."""
    hold: Duration = "1d"
    """How long each step lasts at least."""
    window: Duration = "12h"
    """How long a unit is watched from its first exposure on; it counts when that is over."""
    units: Annotated[int, Meta(ge=1, le=RAMP_UNITS_MAX)] = 500
    """Of each arm, first exposed since the step began and watched, before the next one."""
    patience: Duration | None = "14d"
    """A step that cannot go on for so long is rolled back; null: it waits."""
    guardrails: Guardrails = Guardrails()


class Bounded(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a single unit may count in a number of an experiment's report; one of both."""

    cap: Annotated[float, Meta(gt=0)] | None = None
    """In the number's own unit: more counts as so much, and less than its negative as that."""
    winsorize: Annotated[float, Meta(gt=0.5, lt=1)] | None = None
    """A quantile, of the units of all arms that have anything: 0.99 bounds the largest one of a hundred, and the lowest
    where it is below zero.
    """


class Goals(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds for the numbers that goals are made of, so that one unit cannot hide what all others do."""

    value: Bounded | None = None
    clicks: Bounded | None = None
    impressions: Bounded | None = None
    decisions: Bounded | None = None


class Experiment(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arms, and who gets them."""

    arms: Annotated[dict[Key, Arm], Meta(max_length=ARMS_MAX)]
    """Two at least."""
    description: str = ""
    unit: Unit = "customer"
    """What is randomized: a customer, an anonymous id, or what the file's `account` names."""
    status: Status = "draft"
    start: Moment | None = None
    end: Moment | None = None
    """Exclusive."""
    coverage: Share = 1.0
    """The part of the units that takes part."""
    targeting: str | None = None
    """A condition on customer and context: only where it is true."""
    namespace: Namespace | None = None
    goals: Goals | None = None
    """Instead of those of the file."""
    ramp: Ramp | None = None
    """Raises an arm's share step by step; then weights, ranges and coverage are the ramp's."""
    sticky: bool = False
    """Whether a unit keeps its first arm when split, coverage, targeting or namespace change."""
    bucket_version: Annotated[int, Meta(ge=0, le=BUCKET_VERSION_MAX)] = 0
    """A higher one draws everybody again."""
    min_bucket_version: Annotated[int, Meta(ge=0, le=BUCKET_VERSION_MAX)] = 0
    """Who was assigned under a lower one is in the experiment no more."""
    hash: Hashing = "growthbook-v2"
    encoding: Encoding = "utf-8"
    """`utf-16` hashes ids outside ASCII as GrowthBook's kits for JavaScript and Python do; for GrowthBook's hashes
    only.
    """
    seed: Seed | int | None = None
    """GrowthBook's seed, a text, the experiment's key when absent; LaunchDarkly's, a whole number, none when absent."""
    salt: Seed | None = None
    """Of Eppo, Statsig and LaunchDarkly; the experiment's key when absent."""
    traffic_salt: Seed | None = None
    """Eppo's, for coverage; `<salt>-traffic` when absent."""
    rule: Seed | None = None
    """Statsig's rule salt; the experiment's key when absent."""
    group: Seed | None = None
    """Unleash's group id; the experiment's key when absent."""
    parent: Seed | None = None
    """Optimizely's experiment id; the experiment's key when absent."""
    flag: Seed | None = None
    """LaunchDarkly's flag key; the experiment's key when absent."""


class Holdout(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Customers, or anonymous ids before log-in, that get no personalization, and are in no experiment."""

    share: Share
    salt: Annotated[str, Meta(min_length=1, max_length=SEED_CHARACTERS_MAX)] = "holdout"
    """Another one draws others."""


class ControlGroups(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares of customers, or anonymous ids before log-in, that are decided by one known logic, and are in no
    experiment.
    """

    random_eligible: Share = 0.0
    """A random one of the eligible offers."""
    propensity_only: Share = 0.0
    """By propensity alone."""
    no_levers: Share = 0.0
    """Priorities without levers."""
    eligibility_only: Share = 0.0
    """Rules of the stage eligibility only."""
    random_propensity: Share = 0.0
    """Priorities in which the propensity is drawn."""
    salt: Annotated[str, Meta(min_length=1, max_length=SEED_CHARACTERS_MAX)] = "control_groups"

    @property
    def shares(self) -> tuple[float, ...]:
        """In the order of `CONTROL_GROUPS`."""
        return tuple(getattr(self, name) for name in CONTROL_GROUPS)


class ExperimentsFile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`experiments.yaml`: experiments, the holdout, control groups."""

    account: str | None = None
    """The column that holds the account: a category, as `customer.household` or `context.account`."""
    holdout: Holdout | None = None
    control_groups: ControlGroups | None = None
    goals: Goals = Goals()
    """Of all experiments that have none of their own, and of the holdout and the control groups."""
    experiments: Annotated[dict[Key, Experiment], Meta(max_length=EXPERIMENTS_MAX)] = {}

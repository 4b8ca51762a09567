"""The report of an experiment as it is printed and sent: the verdict on the split, then arms, goals with their
intervals, guardrails, and how long it still takes.
"""

from __future__ import annotations

from msgspec import Struct

from pipelines.experiments.outliers import HeldValues, Outlier
from pipelines.experiments.split import SplitReport
from pipelines.statistics.multiple_testing import Correction

NO_LIFT = "the control's mean is not above zero"


class ReportSettings(Struct, frozen=True, kw_only=True):
    """How a report is read.

    Attributes:
        sequential: decide by intervals that hold at all looks together, rather than by those of one planned look.
        cuped: narrow by what units did before.
        detect: the lift that one wants to be able to see.
    """

    sequential: bool = True
    cuped: bool = True
    correction: Correction = "holm"
    detect: float = 0.05


class ArmReport(Struct, frozen=True):
    """An arm; `share` is what the file says today, `counted` are the units that the metrics are of."""

    arm: str
    is_control: bool
    share: float
    units: int
    exposures: int
    open: int
    counted: int
    conversions: int
    conversion: float | None
    value: float


class GoalReport(Struct, frozen=True):
    """A goal in one arm against the control; None where nothing can be said yet. Intervals are of 95 %.

    Attributes:
        treated, control: with CUPED, what they would be with equal pasts.
        low, high, p: of what decides, sequential or fixed; `p_corrected` over all goals and arms.
        kept: the part of the variance that the past leaves; 1 without CUPED.
        detectable: the smallest true lift that one look at the present size would show in four of five cases.
        days: from now on, at the traffic of the latest days, until the lift asked for would be seen; 0 now, None never.
        verdict: `higher`, `lower`, `no difference shown`, `no difference possible` (no unit differs from another) or
            `too few yet`.
        no_lift: why there is no lift, where the difference has a meaning all the same; None else.
    """

    metric: str
    arm: str
    control: float | None
    treated: float | None
    difference: float | None
    lift: float | None
    fixed: tuple[float | None, float | None]
    sequential: tuple[float | None, float | None]
    difference_fixed: tuple[float | None, float | None]
    difference_sequential: tuple[float | None, float | None]
    p: float | None
    p_corrected: float | None
    kept: float | None
    detectable: float | None
    days: float | None
    verdict: str
    no_lift: str | None = None


class GuardrailReport(Struct, frozen=True):
    """A guardrail in one arm; `p` is one-sided, of no harm. Verdicts: `harm`, `no harm shown`, `too few yet`."""

    metric: str
    arm: str
    control: float | None
    treated: float | None
    p: float | None
    verdict: str


class CourseReport(Struct, frozen=True):
    """The lift of a goal in one arm as it was after each day of first exposures, with both intervals; None where
    nothing can be said.
    """

    metric: str
    arm: str
    lift: tuple[float | None, ...]
    fixed: tuple[tuple[float | None, float | None], ...]
    sequential: tuple[tuple[float | None, float | None], ...]


class ExperimentReport(Struct, frozen=True, kw_only=True):
    """All of it. Moments are RFC 3339; `days` those of first exposures, `cumulative` the units by then, by day and arm.

    `bounds` are the numbers that were held to bounds, of which all figures then are; `outliers` those that one unit
    dominates.
    """

    experiment: str
    at: str
    status: str
    outcome: str
    window: str
    open_windows: bool
    decided_by: str
    correction: str
    detect: float
    control: str
    split: SplitReport
    arms: tuple[ArmReport, ...]
    goals: tuple[GoalReport, ...]
    guardrails: tuple[GuardrailReport, ...]
    not_recorded: tuple[str, ...]
    bounds: tuple[HeldValues, ...]
    outliers: tuple[Outlier, ...]
    days: tuple[str, ...]
    cumulative: tuple[tuple[int, ...], ...]
    courses: tuple[CourseReport, ...]


class Subject(Struct, frozen=True, kw_only=True):
    """What the file says of the experiment; `shares` are those of the arms, in the order of the question."""

    status: str
    shares: tuple[float, ...]

"""The report of an experiment: the verdict on the split first, then arms, goals with their intervals, guardrails, and
how long it still takes.

Goals are decided by the sequential interval unless a fixed look was planned, and their P is corrected over all goals
and arms. Guardrails are tested for harm alone, each for itself: a correction would hide harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, rfc3339
from pipelines.experiments.data import NUMBERS, Question, Read
from pipelines.experiments.metrics import GOALS, GUARDRAILS, Metric
from pipelines.experiments.outliers import HeldValues, Outlier
from pipelines.experiments.split import SplitReport, split_report
from pipelines.statistics.inference import (
    ALPHA,
    ENOUGH_CONVERSIONS,
    ENOUGH_UNITS,
    Comparison,
    Interval,
    compare,
    detectable,
    harm_p,
    harm_p_sequential,
    units_needed,
)
from pipelines.statistics.multiple_testing import Correction, corrected
from pipelines.statistics.summaries import Summary, merged, nothing

NO_DIFFERENCE_POSSIBLE = "no difference possible"
"""Verdict where all units of both arms did the same."""
NO_LIFT = "the control's mean is not above zero"
TRAFFIC_DAYS = 7
"""The latest days with exposures, whose traffic is that of the days to come."""


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


def report_of(read: Read, question: Question, subject: Subject, settings: ReportSettings) -> ExperimentReport:
    """Judge what was read."""
    split = split_report(read, question, subject.shares)
    empty = nothing(len(NUMBERS))
    courses = [
        list(accumulate((day[at] for day in read.daily), merged, initial=empty))[1:] for at in range(len(question.arms))
    ]
    totals = [course[-1] if course else empty for course in courses]
    control = question.arms.index(question.control)
    days_counted = [day.units for day in read.drawn]
    asked = [(metric, at) for metric in GOALS for at in range(len(question.arms)) if at != control]
    goals, curves = [], []
    for metric, at in asked:
        measure = metric.measure(read.recorded | {"converted"}, settings.cuped)  # that nobody converted is known
        if measure is None:
            continue
        found = compare(totals[at], totals[control], measure)
        is_enough = _enough(metric, totals[at], totals[control])
        goals.append(
            _goal(metric, question.arms[at], found, is_enough, settings, _traffic(days_counted, (at, control)))
        )
        over = compare(_stacked(courses[at]), _stacked(courses[control]), measure)
        curves.append(
            _course(
                metric,
                question.arms[at],
                over,
                [_enough(metric, *two) for two in zip(courses[at], courses[control], strict=True)],
            )
        )
    missing = [metric.name for metric in (*GOALS, *GUARDRAILS) if metric.measure(read.recorded) is None]
    return ExperimentReport(
        experiment=question.experiment,
        at=rfc3339(question.now),
        status=subject.status,
        outcome=question.outcome,
        window=_duration(question.window_seconds),
        open_windows=question.open_windows,
        decided_by="sequential" if settings.sequential else "fixed",
        correction=settings.correction,
        detect=settings.detect,
        control=question.control,
        split=split,
        arms=tuple(_arm(read, question, subject, totals[at], at) for at in range(len(question.arms))),
        goals=with_verdicts(goals, settings),
        guardrails=tuple(_guardrails(read, question, totals, control, settings)),
        not_recorded=tuple(missing),
        bounds=read.bounds,
        outliers=read.outliers,
        days=tuple(rfc3339(day * DAY_SECONDS * MICROSECONDS)[:10] for day in read.days),
        cumulative=tuple(tuple(int(course[day].units) for course in courses) for day in range(len(read.days))),
        courses=tuple(curves),
    )


def _arm(read: Read, question: Question, subject: Subject, total: Summary, at: int) -> ArmReport:
    count, sums = int(total.units), total.means * total.units
    converted = round(float(sums[NUMBERS.index("converted")]))
    return ArmReport(
        question.arms[at],
        question.arms[at] == question.control,
        subject.shares[at],
        read.units[at],
        read.exposures[at],
        read.open[at],
        count,
        converted,
        converted / count if count else None,
        float(sums[NUMBERS.index("value")]),
    )


def _enough(metric: Metric, treated: Summary, control: Summary) -> bool:
    """Return whether the central limit theorem has begun. Guardrails count the events of both arms: harm is that one of
    them has all.

    Where no unit of either arm had an event, and there are units enough, they are alike: nothing has to begin.
    """
    events = [float(one.means[NUMBERS.index(metric.events)] * one.units) for one in (treated, control)]
    fewest = sum(events) if metric.role == "guardrail" else min(events)
    is_still = metric.role == "goal" and not any(events)
    return bool(min(treated.units, control.units) >= ENOUGH_UNITS and (is_still or fewest >= ENOUGH_CONVERSIONS - 1e-6))


def _goal(
    metric: Metric, arm: str, found: Comparison, is_enough: bool, settings: ReportSettings, a_day: float
) -> GoalReport:
    p = found.p_sequential if settings.sequential else found.p
    error, control, units = float(found.difference_error), float(found.control), float(found.units)
    smallest = detectable(error) / control if is_enough and control > 0 and error > 0 else None
    needed = (
        units_needed(error, units, settings.detect * control, sequential=settings.sequential)
        if is_enough and control > 0
        else None
    )
    return GoalReport(
        metric.name,
        arm,
        _number(control),
        _number(found.treated),
        _number(found.difference),
        _number(found.lift),
        _ends(found.lift_fixed, is_enough),
        _ends(found.lift_sequential, is_enough),
        _ends(found.difference_fixed, is_enough),
        _ends(found.difference_sequential, is_enough),
        _number(p) if is_enough else None,
        None,
        _number(found.kept),
        _number(smallest),
        None if needed is None or a_day <= 0 else max(needed - units, 0.0) / a_day,
        NO_DIFFERENCE_POSSIBLE if is_enough and error == 0 == float(found.difference) else "",
        NO_LIFT if control <= 0 else None,
    )


def with_verdicts(goals: Sequence[GoalReport], settings: ReportSettings) -> tuple[GoalReport, ...]:
    """Goals that are told together, with their P corrected over all of them."""
    found = corrected([np.nan if goal.p is None else goal.p for goal in goals], settings.correction)
    return tuple(
        replace(goal, p_corrected=_number(p), verdict=_verdict(goal, _number(p)))
        for goal, p in zip(goals, found, strict=True)
    )


def _verdict(goal: GoalReport, p: float | None) -> str:
    if goal.verdict:
        return goal.verdict
    if p is None or goal.difference is None:
        return "too few yet"
    return "no difference shown" if p >= ALPHA else "higher" if goal.difference > 0 else "lower"


def _guardrails(
    read: Read, question: Question, totals: Sequence[Summary], control: int, settings: ReportSettings
) -> list[GuardrailReport]:
    found = []
    for metric in GUARDRAILS:
        measure = metric.measure(read.recorded)
        for at, arm in enumerate(question.arms):
            if measure is None or at == control:
                continue
            seen = compare(totals[at], totals[control], measure)
            one_look = harm_p(seen.difference, seen.difference_error, seen.freedom)
            p = (
                harm_p_sequential(seen.difference, seen.difference_error, seen.units)
                if settings.sequential
                else one_look
            )
            shown = _number(p) if _enough(metric, totals[at], totals[control]) else None
            verdict = "too few yet" if shown is None else "harm" if shown < ALPHA else "no harm shown"
            found.append(
                GuardrailReport(metric.name, arm, _number(seen.control), _number(seen.treated), shown, verdict)
            )
    return found


def _course(metric: Metric, arm: str, over: Comparison, enough: Sequence[bool]) -> CourseReport:
    def at(interval: Interval, day: int) -> tuple[float | None, float | None]:
        return _ends(Interval(interval.low[day], interval.high[day]), enough[day])

    days = range(len(enough))
    return CourseReport(
        metric.name,
        arm,
        tuple(_number(over.lift[day]) if enough[day] else None for day in days),
        tuple(at(over.lift_fixed, day) for day in days),
        tuple(at(over.lift_sequential, day) for day in days),
    )


def _stacked(course: Sequence[Summary]) -> Summary:
    return Summary(*(np.stack(part) for part in zip(*course, strict=True)))


def _traffic(days: Sequence[Sequence[int]], arms: tuple[int, int]) -> float:
    """New units a day of two arms, over the latest days; the last one, which is not over, counts where there is no
    other.
    """
    latest = days[-TRAFFIC_DAYS - 1 : -1] or days
    return sum(day[at] for day in latest for at in arms) / max(len(latest), 1)


def _ends(interval: Interval, is_enough: bool) -> tuple[float | None, float | None]:
    return (_number(interval.low), _number(interval.high)) if is_enough else (None, None)


def _number(value: Any) -> float | None:
    """None for what is not a number: JSON has no other word for it."""
    return float(value) if value is not None and isfinite(value) else None


def _duration(seconds: int) -> str:
    for length, unit in ((DAY_SECONDS, "d"), (3_600, "h")):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds // 60}m"

"""Judge what was read of an experiment: the split first, then goals with their intervals, and guardrails.

Goals are decided by the sequential interval unless a fixed look was planned, and their P is corrected over all goals
and arms. Guardrails are tested for harm alone, each for itself: a correction would hide harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np
from msgspec.structs import replace

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, rfc3339
from pipelines.experiments.cohort import Question
from pipelines.experiments.data import NUMBERS, Read
from pipelines.experiments.metrics import GOALS, GUARDRAILS, Metric
from pipelines.experiments.report import (
    NO_LIFT,
    ArmReport,
    CourseReport,
    ExperimentReport,
    GoalReport,
    GuardrailReport,
    ReportSettings,
    Subject,
)
from pipelines.experiments.split import split_report
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
from pipelines.statistics.multiple_testing import corrected
from pipelines.statistics.summaries import Summary, merged, nothing

NO_DIFFERENCE_POSSIBLE = "no difference possible"
"""Verdict where all units of both arms did the same."""
TRAFFIC_DAYS = 7
"""The latest days with exposures, whose traffic is that of the days to come."""


def report_of(read: Read, question: Question, subject: Subject, settings: ReportSettings) -> ExperimentReport:
    """Return the report of what was read."""
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
    """Return goals that are told together, with their P corrected over all of them."""
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
    """Return the new units a day of two arms, over the latest days; the last one, which is not over, counts where there
    is no other.
    """
    latest = days[-TRAFFIC_DAYS - 1 : -1] or days
    return sum(day[at] for day in latest for at in arms) / max(len(latest), 1)


def _ends(interval: Interval, is_enough: bool) -> tuple[float | None, float | None]:
    return (_number(interval.low), _number(interval.high)) if is_enough else (None, None)


def _number(value: Any) -> float | None:
    """Return a number; None for what is none, which JSON cannot say otherwise."""
    return float(value) if value is not None and isfinite(value) else None


def _duration(seconds: int) -> str:
    for length, unit in ((DAY_SECONDS, "d"), (3_600, "h")):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds // 60}m"

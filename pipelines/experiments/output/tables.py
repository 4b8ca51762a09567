"""An experiment's report as people read it: the split first and loud, then tables, then what to keep in mind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pipelines.experiments.report import NO_LIFT, ExperimentReport, GoalReport, GuardrailReport
from pipelines.output import console
from pipelines.statistics.sample_ratio import MISMATCH_P

P_SHOWN_MIN = 0.0001


def print_report(found: ExperimentReport) -> None:
    """Print a report on standard output."""
    print_figures(found, sections(found))
    for line in notes(found):
        console.out.print(line, highlight=False, markup=False)


def print_figures(found: ExperimentReport, tables: Iterable[tuple[str, list[str], list[list[Any]], int]]) -> None:
    """Print the verdict on the split and its headlines, then the tables (title, columns, rows, columns of text); those
    without rows are left out.
    """
    if found.split.alarm:
        console.out.print(
            "[bold white on red] SAMPLE-RATIO MISMATCH [/bold white on red] do not trust the figures below",
            highlight=False,
        )
    for line in headlines(found):
        console.out.print(line, highlight=False, markup=False)
    for title, columns, rows, texts in tables:
        if rows:
            console.table(f"\n{title}", columns, rows, texts)
    console.out.print()


def headlines(found: ExperimentReport) -> Iterator[str]:
    """Return the verdict on the split, its causes, its warnings."""
    split = found.split
    counted = " : ".join(f"{count:,}" for count in split.units)
    awaited = " : ".join(f"{count:,.0f}" for count in split.expected)
    verdict = "does not fit" if split.alarm else "fits"
    yield (
        f"{found.experiment} ({found.status}), {found.at}: the split {verdict}: {counted} units, expected {awaited}"
        f" (p {_p(split.p)}, alarm below {MISMATCH_P})."
    )
    for cause in split.causes:
        yield f"  likely: {cause}."
    for warning in split.warnings:
        yield f"  note: {warning}."


def sections(found: ExperimentReport) -> Iterator[tuple[str, list[str], list[list[Any]], int]]:
    """Tables: title, columns, rows, how many columns are texts."""
    yield (
        f"Arms; counted are units whose window of {found.window} is {'open or ' if found.open_windows else ''}closed",
        ["arm", "share", "units", "exposures", "open", "counted", "converted", "conversion", "value"],
        [
            [
                f"{one.arm} (control)" if one.is_control else one.arm,
                _part(one.share),
                one.units,
                one.exposures,
                one.open,
                one.counted,
                one.conversions,
                _part(one.conversion, 2),
                one.value,
            ]
            for one in found.arms
        ],
        1,
    )
    ways = ("one planned look", "any number of looks")
    fixed, sequential = (
        f"{way}{' (decides)' if decides else ''}" for way, decides in zip(ways, _decides(found), strict=True)
    )
    yield (
        "Lift over the control, with intervals that hold the truth in 95 of 100 experiments",
        ["metric", "arm", "control", "arm has", "lift", fixed, sequential, "p", "p corrected", "verdict"],
        [
            [
                one.metric,
                one.arm,
                *means(one),
                *lift(one),
                one.p,
                one.p_corrected,
                one.verdict,
            ]
            for one in found.goals
        ],
        2,
    )
    yield (
        "Guardrails: more is worse; p of no harm, each for itself",
        ["metric", "arm", "control", "arm has", "p", "verdict"],
        [[one.metric, one.arm, *means(one), one.p, one.verdict] for one in found.guardrails],
        2,
    )
    yield (
        "What could be seen",
        ["metric", "arm", "lift detectable now", f"days until {found.detect:+.1%} is seen", "variance kept by CUPED"],
        [[one.metric, one.arm, _part(one.detectable), _days(one.days), _part(one.kept)] for one in found.goals],
        2,
    )


def means(one: GoalReport | GuardrailReport) -> list[Any]:
    """Return the cells of what both arms have; an arm without units has no mean."""
    return ["none" if value is None else value for value in (one.control, one.treated)]


def lift(goal: GoalReport) -> list[str | None]:
    """Return the cells of a lift and its intervals for one look and for any number; where there is no lift, those of
    the difference.
    """
    if goal.no_lift is not None:
        return ["no lift", _amounts(goal.difference_fixed), _amounts(goal.difference_sequential)]
    return ["none" if goal.lift is None else _part(goal.lift), _range(goal.fixed), _range(goal.sequential)]


def _decides(found: ExperimentReport) -> tuple[bool, bool]:
    return found.decided_by == "fixed", found.decided_by == "sequential"


def notes(found: ExperimentReport) -> Iterator[str]:
    """Return what the figures mean, and what is not there."""
    if found.decided_by == "sequential":
        yield "Verdicts stand however often this report is read."
    else:
        yield (
            "Verdicts stand for one look at a size that was planned before: reading on until something shows makes"
            " false alarms."
        )
    if found.correction == "none":
        yield "P is not corrected for the number of goals and arms."
    else:
        holds = (
            "the chance of even one false alarm" if found.correction == "holm" else "the part of alarms that are false"
        )
        yield (
            f"P is corrected over all goals and arms ({found.correction}: holds {holds}); intervals and guardrails are"
            " not."
        )
    for one in found.bounds:
        counts = " : ".join(f"{count:,}" for count in one.units)
        ends = f"{one.high:g}" if one.low >= 0 else f"{one.low:g} to {one.high:g}"
        yield (
            f"{one.number} is bounded at {ends} (`{one.by}`), in all figures: {counts} units had more than"
            f" that{' or less' if one.low < 0 else ''}."
        )
    for outlier in found.outliers:
        yield (
            f"One unit, with {outlier.largest:g}, makes {outlier.share:.0%} of the variance of {outlier.number}, which"
            f" hides what the others do. In experiments.yaml, `goals: {{{outlier.number}: {{winsorize: 0.99}}}}`, or"
            " `cap` with an amount, bounds what a single unit counts."
        )
    without = dict.fromkeys(goal.metric for goal in found.goals if goal.no_lift is not None)
    if without:
        yield (
            f"No lift of {', '.join(without)}: {NO_LIFT}. Intervals are those of the difference, in the metric's own"
            " unit."
        )
    if found.open_windows:
        yield (
            "Units with open windows count with what they did so far: conversions that come late are missing, in all"
            " arms."
        )
    if found.not_recorded:
        yield (
            f"Nothing was recorded of: {', '.join(found.not_recorded)}. Requests that failed have no arm and are in no"
            " figure."
        )


def _p(value: float) -> str:
    return f"= {value:.4f}" if value >= P_SHOWN_MIN else f"below {P_SHOWN_MIN}"


def _part(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{value:.{digits}%}"


def _range(ends: tuple[float | None, float | None]) -> str | None:
    return None if ends[0] is None or ends[1] is None else f"{ends[0]:+.1%} to {ends[1]:+.1%}"


def _amounts(ends: tuple[float | None, float | None]) -> str | None:
    return None if ends[0] is None or ends[1] is None else f"{ends[0]:+.4g} to {ends[1]:+.4g}"


def _days(value: float | None) -> str | None:
    return None if value is None else "now" if value == 0 else f"{value:,.0f}"

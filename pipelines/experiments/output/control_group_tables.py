"""The report of the holdout and the control groups as people read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.experiments.control_groups import GroupsReport, as_experiment
from pipelines.experiments.output.tables import lift, means, notes, print_figures
from pipelines.output import console


def print_groups(found: GroupsReport) -> None:
    """On standard output: the verdict on the split first, what each part is worth, then what to keep in mind."""
    told = as_experiment(found)
    print_figures(told, sections(found))
    console.out.print(
        "A lift above zero is what a part is worth: everybody has it but the group.", highlight=False, markup=False
    )
    for line in notes(told):
        console.out.print(line, highlight=False, markup=False)


def sections(found: GroupsReport) -> Iterator[tuple[str, list[str], list[list[Any]], int]]:
    """Tables: title, columns, rows, how many columns are texts."""
    yield (
        f"Groups; counted are units whose window of {found.window} is {'open or ' if found.open_windows else ''}closed",
        ["group", "share", "units", "decisions", "open", "counted", "converted", "conversion", "value"],
        [
            [
                one.arm,
                _percent(one.share, 2),
                one.units,
                one.exposures,
                one.open,
                one.counted,
                one.conversions,
                _percent(one.conversion, 2),
                one.value,
            ]
            for one in found.groups
        ],
        1,
    )
    decides = {
        "fixed": ("one planned look (decides)", "any number of looks"),
        "sequential": ("one planned look", "any number of looks (decides)"),
    }
    yield (
        (
            "What each part is worth: lift of what is usual over the group, with intervals that hold the truth in 95 of"
            " 100 cases"
        ),
        [
            "metric",
            "worth of",
            "over the group",
            "group has",
            "usual",
            "lift",
            *decides[found.decided_by],
            "p corrected",
            "verdict",
        ],
        [
            [
                goal.metric,
                part.worth,
                part.group,
                *means(goal),
                *lift(goal),
                goal.p_corrected,
                goal.verdict,
            ]
            for part in found.parts
            for goal in part.goals
        ],
        3,
    )
    yield (
        "Guardrails: more is worse; p that the part does no harm, each for itself",
        ["metric", "part", "over the group", "group has", "usual", "p", "verdict"],
        [
            [one.metric, part.worth, part.group, *means(one), one.p, one.verdict]
            for part in found.parts
            for one in part.guardrails
        ],
        3,
    )
    yield (
        "What could be seen",
        ["metric", "over the group", "lift detectable now", f"days until {found.detect:+.1%} is seen"],
        [
            [goal.metric, part.group, _percent(goal.detectable, 1), None if goal.days is None else f"{goal.days:,.0f}"]
            for part in found.parts
            for goal in part.goals
        ],
        2,
    )


def _percent(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}%}"

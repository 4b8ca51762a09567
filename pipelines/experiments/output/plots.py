"""Pictures of an experiment: the lift over time with its intervals, exposures by arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.experiments.report import CourseReport, ExperimentReport
from pipelines.output import figures as output_figures
from pipelines.output.figures import titled
from pipelines.statistics.summaries import Floats
from training.fitting.plots import ACCENT, INK, PALE

UNITS_PLOT = "units.png"
WIDTH_INCHES = 7.2
NOBODY_KNOWS: Mapping[str, float] = {}
COLOURS = (INK, ACCENT, "#7a9e3b", "#8a6fb0", "#c39b2e", "#4d8fac")


def figures(found: ExperimentReport, truths: Mapping[str, float] = NOBODY_KNOWS) -> dict[str, Figure]:
    """By file name; a picture a goal, of those that have anything to show, and one of units.

    Args:
        truths: by metric the true lift of an experiment with two arms, where somebody knows it.
    """
    made = {UNITS_PLOT: units(found)}
    for metric in dict.fromkeys(course.metric for course in found.courses):
        shown = [
            course
            for course in found.courses
            if course.metric == metric and any(one is not None for one in course.lift)
        ]
        if shown:
            made[f"lift_{metric.replace(' ', '_')}.png"] = lift(found, metric, shown, truths.get(metric))
    return made


def write_plots(found: ExperimentReport, folder: Path, truths: Mapping[str, float] = NOBODY_KNOWS) -> list[Path]:
    """Draw all pictures into a folder that is made if need be; returns the files. The same report gives the same
    bytes.
    """
    return output_figures.write(figures(found, truths), folder)


def lift(found: ExperimentReport, metric: str, courses: Sequence[CourseReport], truth: float | None = None) -> Figure:
    """Return what was known after each day: the lift, the interval for any number of looks as a band, that for one look
    as lines.
    """
    mark = "; SAMPLE-RATIO MISMATCH" if found.split.alarm else ""
    figure, axes = titled(f"{found.experiment}: lift of {metric} over {found.control}{mark}", WIDTH_INCHES)
    days = _days(found)
    axes.axhline(0, color=PALE, linewidth=1)
    if truth is not None:
        axes.axhline(truth, color=ACCENT, linewidth=1.2, linestyle="--", label=f"truth, {truth:+.1%}")
    for course, colour in zip(courses, COLOURS * len(courses), strict=False):
        low, high = _ends(course.sequential)
        axes.fill_between(
            days, low, high, color=colour, alpha=0.15, linewidth=0, label=f"{course.arm}, any number of looks"
        )
        for end, label in zip(_ends(course.fixed), (f"{course.arm}, one look", None), strict=True):
            axes.plot(days, end, color=colour, linewidth=0.7, linestyle=":", label=label)
        axes.plot(days, _numbers(course.lift), color=colour, linewidth=1.8, marker="o", markersize=3, label=course.arm)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
    axes.set(xlabel="day of first exposure, all until then")
    axes.legend(frameon=False, fontsize=8)
    figure.autofmt_xdate()
    return figure


def units(found: ExperimentReport) -> Figure:
    """Units with a first exposure until each day, by arm."""
    figure, axes = titled(f"{found.experiment}: units that count", WIDTH_INCHES)
    counts = np.array(found.cumulative).reshape(-1, len(found.arms))
    for at, (arm, colour) in enumerate(zip(found.arms, COLOURS * len(found.arms), strict=False)):
        axes.plot(_days(found), counts[:, at], color=colour, label=f"{arm.arm}, share {arm.share:.1%}")
    axes.set(xlabel="day of first exposure", ylabel="units")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.autofmt_xdate()
    return figure


def _days(found: ExperimentReport) -> Floats:
    return np.array([date.fromisoformat(day) for day in found.days], dtype="datetime64[D]")


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values])


def _ends(intervals: Sequence[tuple[float | None, float | None]]) -> tuple[Floats, Floats]:
    return _numbers([low for low, _ in intervals]), _numbers([high for _, high in intervals])

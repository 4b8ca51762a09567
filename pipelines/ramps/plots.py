"""The picture of a ramp: the share of its arm over time, with the verdicts that moved it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from features.common.moments import Micros
from features.common.timestamps import from_microseconds, parse_moment
from features.workspace.ramps import RampLine, Verdict
from pipelines.output import figures
from pipelines.output.figures import titled
from training.fitting.plots import ACCENT, INK, PALE

WIDTH_INCHES = 7.2
MARKS: dict[Verdict, tuple[str, str]] = {
    "start": ("o", INK),
    "proceed": ("^", INK),
    "finish": ("*", INK),
    "by_hand": ("D", PALE),
    "roll_back": ("v", ACCENT),
    "hold": (".", PALE),
}


def share_over_time(key: str, lines: Sequence[RampLine], now: Micros) -> Figure:
    """Steps until now, microseconds since 1970; a ramp without a record has an empty picture."""
    figure, axes = titled(f"{key}: share of {lines[-1].arm if lines else 'the arm'}", WIDTH_INCHES)
    moments = np.array(
        [from_microseconds(at).replace(tzinfo=None) for at in (*(parse_moment(one.moment) for one in lines), now)]
    )
    shares = np.array([one.share for one in lines])
    if lines:
        axes.step(moments, [*shares, shares[-1]], where="post", color=INK, linewidth=1.4)
    for verdict, (marker, colour) in MARKS.items():
        at = [number for number, one in enumerate(lines) if one.verdict == verdict]
        if at:
            axes.scatter(
                moments[at], shares[at], marker=marker, color=colour, zorder=3, label=verdict.replace("_", " ")
            )
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(-0.05, 1.05)
    if lines:
        axes.legend(frameon=False, fontsize=8)
    figure.autofmt_xdate()
    return figure


def write_plot(key: str, lines: Sequence[RampLine], now: Micros, folder: Path) -> Path:
    """Draw it into a folder that is made if need be; returns the file."""
    return figures.write({f"ramp_{key}.png": share_over_time(key, lines, now)}, folder)[0]

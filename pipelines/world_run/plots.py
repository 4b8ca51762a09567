"""Pictures of a judged run: reliability, the course of regret, new offers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.output import figures
from pipelines.output.figures import titled
from pipelines.world_run.report import WorldReport
from training.fitting.plots import ACCENT, INK, PALE

RELIABILITY, REGRET, NEW_OFFERS = "reliability.png", "regret.png", "new_offers.png"
WIDTH_INCHES = 6.4
GROUPS_SHOWN = {"known": ACCENT, "cold starts": INK, "new offers": "#7a9e3b"}
OFFERS_PLOTTED = 25


def write_plots(found: WorldReport, folder: Path) -> list[Path]:
    """Draw all pictures into a folder that is made if need be; returns the files. The same report gives the same
    bytes.
    """
    return figures.write(
        {RELIABILITY: reliability(found), REGRET: regret(found), NEW_OFFERS: new_offers(found)}, folder
    )


def reliability(found: WorldReport) -> Figure:
    """Propensities against true probabilities; on the diagonal a propensity is the truth."""
    figure, axes = titled("Propensities against true probabilities", WIDTH_INCHES)
    shown = [one for one in found.calibration if one.group in GROUPS_SHOWN]
    top = max([max(part.predicted, part.true) for one in shown for part in one.bins], default=0.0) * 1.05 + 1e-9
    axes.plot([0, top], [0, top], color=PALE, linewidth=1, label="truth")
    for one in shown:
        axes.plot(
            [part.predicted for part in one.bins],
            [part.true for part in one.bins],
            marker="o",
            color=GROUPS_SHOWN[one.group],
            label=f"{one.group}, error {one.ece:.4f}",
        )
    axes.set(xlabel="propensity, tenths of what was shown", ylabel="true probability", xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False)
    return figure


def regret(found: WorldReport) -> Figure:
    """Return what was lost against the oracle so far, beside a uniform policy."""
    figure, axes = titled("Regret against the oracle", WIDTH_INCHES)
    course = found.regret.course
    visits = np.linspace(0, found.regret.visits, len(course))
    axes.plot(visits, [uniform for _, uniform in course], color=INK, label="uniform policy")
    axes.plot(visits, [served for served, _ in course], color=ACCENT, linewidth=2, label="served")
    axes.set(xlabel="visits of customers", ylabel="regret so far (EUR)")
    axes.legend(frameon=False)
    return figure


def new_offers(found: WorldReport) -> Figure:
    """Return how often offers that began during the run were shown, beside how often the oracle would have."""
    figure, axes = titled("Offers that began during the run", WIDTH_INCHES)
    offers = sorted(found.new_offers, key=lambda one: -one.oracle)[:OFFERS_PLOTTED]
    places = np.arange(len(offers))
    axes.barh(places - 0.2, [one.oracle for one in offers], 0.38, color=PALE, label="oracle")
    axes.barh(places + 0.2, [one.shown for one in offers], 0.38, color=ACCENT, label="served")
    axes.set_yticks(places, [one.offer_id for one in offers])
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="times shown")
    axes.legend(frameon=False)
    return figure

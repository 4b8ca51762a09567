"""Pictures of reports: one look, and files that are the same for the same report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from features.common.files import as_given
from training.fitting.plots import INK

HEIGHT_INCHES = 4.4


def titled(title: str, width_inches: float) -> tuple[Figure, Axes]:
    """Return an empty figure with its title and without the frame's upper and right edge."""
    figure = Figure(figsize=(width_inches, HEIGHT_INCHES), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


@as_given()
def write(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Draw figures into a folder that is made if need be; returns the files, named by the keys. The same figures give
    the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120, metadata={"Software": None})
    return [folder / name for name in figures]

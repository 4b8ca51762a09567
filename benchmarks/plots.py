"""Plots of a run, as SVG: cost against offers, trees and columns; where a decision's time goes; the bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

from benchmarks import machine
from benchmarks.report import Report

LINES = {
    "(c) obvious composition, embedded": ("obvious composition, LMDB", "#b3402a", "s"),
    "(d) ours, redis": ("Opportune, Redis", "#d99a2b", "^"),
    "(d) ours, embedded": ("Opportune, embedded", "#1f6f8b", "o"),
}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw what the run has figures for; returns the files."""
    mpl.rcParams["svg.hashsalt"] = "opportune"  # the same figures give the same file
    made = []
    for name, plot in (("offers", _offers), ("stages", _stages), ("scoring", _scoring), ("growth", _growth)):
        figure, axes = plt.subplots(
            1, 2 if name == "growth" else 1, figsize=(9 if name == "growth" else 7, 4), layout="constrained"
        )
        if plot(report, axes):
            figure.supxlabel(machine.line(report.machine), fontsize=5, color="#777777")
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            made.append(folder / f"{name}.svg")
        plt.close(figure)
    return made


def _by_offers(report: Report, rival: str, kind: str, what: str) -> list[tuple[int, float]]:
    rows = [
        row for row in report.rows if row["kind"] == kind and row["rival"].startswith(rival) and row["workers"] == 1
    ]
    return sorted({row["offers"]: row[what] for row in rows}.items())


def _offers(report: Report, axes: Any) -> bool:
    drawn = False
    for rival, (label, colour, marker) in LINES.items():
        points = _by_offers(report, rival, "latency", "p50")
        if len(points) > 1:
            axes.loglog(*zip(*points, strict=True), color=colour, marker=marker, label=label)
            drawn = True
    echo = _by_offers(report, "(a)", "latency", "p50")
    if echo:
        axes.axhline(echo[0][1], color="#777777", linestyle=":", label="bare uvicorn echo")
    axes.set(
        xlabel="offers considered",
        ylabel="p50 over HTTP, ms",
        title="One decision, one connection, 200 trees of 31 leaves, 40 columns",
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return drawn


def _stages(report: Report, axes: Any) -> bool:
    rows = {
        row["offers"]: row
        for row in report.rows
        if row["kind"] == "stages" and row["rival"].startswith("(d) ours, embedded")
    }
    if not rows:
        return False
    sizes, bottom = sorted(rows), [0.0] * len(rows)
    names = [name for name in rows[sizes[0]] if name in ("read", "eligible", "score", "rank", "record")]
    for name in names:
        heights = [rows[size][name] for size in sizes]
        axes.bar([f"{size:,}" for size in sizes], heights, bottom=bottom, label=name)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set(
        xlabel="offers considered",
        ylabel="median ms (Server-Timing)",
        title="Where the time of a decision goes, inside the server",
    )
    axes.legend(frameon=False)
    return True


def _scoring(report: Report, axes: Any) -> bool:
    seconds = dict(report.scoring.get("seconds", {}))
    seconds |= {name: one["seconds"] for name, one in report.scoring.get("others", {}).items() if isinstance(one, dict)}
    for name, points in seconds.items():
        axes.loglog(
            [int(count) for count in points], [value * 1e3 for value in points.values()], marker="o", label=name
        )
    axes.set(
        xlabel="offers scored for one customer", ylabel="ms, one thread", title="Scoring alone: 200 trees of 31 leaves"
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return bool(seconds)


def _growth(report: Report, axes: Any) -> bool:
    for axis, name in zip(axes, ("trees", "columns"), strict=True):
        points = report.growth.get(name, [])
        for what in ("kernel", "booster"):
            axis.semilogy([one["size"] for one in points], [one[what] * 1e6 for one in points], marker="o", label=what)
        axis.set(xlabel=name if name == "trees" else "customer columns", ylabel="us for 200 offers, one thread")
        axis.legend(frameon=False)
        axis.grid(alpha=0.3)
    return bool(report.growth)

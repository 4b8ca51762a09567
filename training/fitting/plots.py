"""Pictures of a model: what people would rather look at than read."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INK, PALE, ACCENT = "#1f3a4d", "#c9d3da", "#d1603d"
IMPORTANT_MAX = 25


def _figure(title: str, width: float = 6.4, height: float = 4.4) -> tuple[Figure, Axes]:
    """Return a figure of its own: pyplot would keep it, and is not for threads."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def calibration(bins: list[dict[str, float]], method: str) -> Figure:
    """Predicted against observed, with two standard errors; on the diagonal a probability means what it says."""
    figure, axes = _figure(f"Calibration on the test slice ({method})")
    predicted, observed = [part["predicted"] for part in bins], [part["observed"] for part in bins]
    top = max(*predicted, *observed, 1e-6) * 1.1
    axes.plot([0, top], [0, top], color=PALE, linewidth=1, label="perfect")
    axes.errorbar(
        predicted,
        observed,
        [2 * part["standard_error"] for part in bins],
        fmt="o",
        color=ACCENT,
        ecolor=INK,
        capsize=2,
        label="tenths of the rows",
    )
    axes.set(xlabel="predicted probability", ylabel="observed rate", xlim=(0, top), ylim=(0, top))
    axes.legend(frameon=False)
    return figure


def gain(labels: Floats, scores: dict[str, Floats]) -> Figure:
    """Part of all successes found in the best scored part of the rows, for each model."""
    figure, axes = _figure("Cumulative gain on the test slice")
    part = np.linspace(0, 1, 201)
    axes.plot(part, part, color=PALE, linewidth=1, label="random")
    for name, values in scores.items():
        found = np.r_[0, np.cumsum(labels[np.argsort(-values, kind="stable")])] / labels.sum()
        axes.plot(part, found[(part * len(labels)).astype(int)], label=name, linewidth=2 if name == "model" else 1)
    axes.set(xlabel="part of the rows, best first", ylabel="part of the successes", xlim=(0, 1), ylim=(0, 1.01))
    axes.legend(frameon=False)
    return figure


def ranking(metrics: dict[str, dict[str, float]], shown: tuple[str, ...] = ("mrr", "ndcg@10", "hit_rate@3")) -> Figure:
    """Ranking metrics of the model beside the baselines."""
    figure, axes = _figure("Ranking within the decision, against the baselines", 7.2)
    width = 0.8 / len(metrics)
    for at, (name, values) in enumerate(metrics.items()):
        places = np.arange(len(shown)) + (at - (len(metrics) - 1) / 2) * width
        bars = axes.bar(
            places,
            [values[key] for key in shown],
            width * 0.92,
            label=name,
            color=ACCENT if name == "model" else None,
            alpha=1 if name == "model" else 0.55,
        )
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=1)
    axes.set_xticks(np.arange(len(shown)), shown)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False, ncols=3, fontsize=8)
    return figure


def importance(gains: dict[str, float]) -> Figure:
    """Total gain of the splits of each column, the most important ones."""
    best = sorted(gains.items(), key=lambda item: item[1])[-IMPORTANT_MAX:]
    figure, axes = _figure("Importance (gain)", 6.4, 1 + 0.24 * len(best))
    axes.barh([name for name, _ in best], [value for _, value in best], color=INK)
    axes.tick_params(axis="y", labelsize=8)
    return figure


def shows(offers: list[str], before: list[int], after: list[int], title: str) -> Figure:
    """Return how often offers are shown before and after a change, the first at the top."""
    figure, axes = _figure(title, 7.2, 1.2 + 0.3 * max(len(offers), 1))
    places = np.arange(len(offers))
    axes.barh(places - 0.2, before, 0.38, color=PALE, label="before")
    axes.barh(places + 0.2, after, 0.38, color=ACCENT, label="after")
    axes.set_yticks(places, offers)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="decisions in which it is shown")
    axes.legend(frameon=False)
    return figure


def learning(losses: list[float], rounds: int) -> Figure:
    """Log loss on the stopping slice by round, and where it was stopped."""
    figure, axes = _figure("Early stopping")
    axes.plot(np.arange(1, len(losses) + 1), losses, color=INK)
    axes.axvline(rounds, color=ACCENT, linewidth=1)
    axes.set(xlabel="rounds", ylabel="log loss on the later slice")
    return figure

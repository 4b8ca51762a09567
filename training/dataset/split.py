"""Decisions on both sides of the cut: time is cut, never shuffled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.common.moments import Micros
from features.workspace import timeline
from features.workspace.timeline import Timeline
from features.workspace.workspace import Workspace
from training.dataset.examples import Examples, NoExamples


@dataclass(frozen=True)
class DatasetSplit:
    """Where time was cut, in microseconds, and the decisions on each side, as masks."""

    cut: int
    stopping_cut: int
    fit: NDArray[np.bool_]
    stopping: NDArray[np.bool_]
    test: NDArray[np.bool_]


def split_of(workspace: Workspace, examples: Examples, now: Micros, *, fixed: bool = True) -> DatasetSplit:
    """Cut time, after `model.yaml`.

    Args:
        fixed: whether `split.cut` counts; it is a moment of the imported history, which recorded decisions all come
            after.

    Raises:
        NoExamples: a side of the cut has no decisions, or none with a success.
    """
    settings, moved = workspace.model.split, timeline.recorded(workspace) or Timeline()
    if settings.cut is not None and fixed:
        cut = moved.from_source(timeline.parse_moment(settings.cut))
    else:
        closed = np.sort(examples.times[examples.closes <= now])
        if not len(closed):
            raise NoExamples(
                "expected decisions whose attribution window is closed, got none. Shorten `label.within` or wait."
            )
        cut = int(closed[int(len(closed) * (1 - settings.test_share))])
    training = (examples.closes <= cut) & (examples.times < cut)
    test = (examples.times >= cut) & ~examples.strangers
    if not settings.open_windows:
        test &= examples.closes <= now
    if not training.any() or not test.any():
        raise NoExamples(
            f"expected decisions on both sides of the cut {timeline.shown(moved, cut)}, got {training.sum()} before and"
            f" {test.sum()} after."
        )
    times = np.sort(examples.times[training])
    stopping_cut = int(times[min(len(times) - 1, int(len(times) * (1 - settings.stopping_share)))])
    stopping = training & (examples.times >= stopping_cut) & ~examples.strangers
    fit = training & (examples.times < stopping_cut)
    for name, side in (("training", fit), ("early stopping", stopping), ("test", test)):
        if not examples.labels[side[examples.decision]].any():
            raise NoExamples(
                f"expected a success among the {side.sum()} decisions for {name}, got none. Move `split.cut` in"
                " model.yaml, or bring more history."
            )
    return DatasetSplit(cut, stopping_cut, fit, stopping, test)

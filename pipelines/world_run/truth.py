"""What an experiment's arms truly do in a simulated world: the same visits under each arm, and the true probabilities
of what was shown.

A unit's conversion is P(at least one acceptance in the window after its first exposure), given the slates that it was
shown: 1 - product(1 - p x P(the delay ends inside the window)). Its value is the sum of the same probabilities x
values. No unit's decisions depend on those of another, so that every unit can be had in every arm, and the lift is that
of the very units of the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from msgspec.structs import replace as changed

from features.config.experiments import ExperimentsFile
from features.workspace.workspace import Workspace
from pipelines.world.outcomes import late_by
from pipelines.world.settings import DAY, NOW, WINDOW_DAYS, Floats, Integers
from pipelines.world.visits import Visits
from pipelines.world.world import World
from pipelines.world_run.driver import Driven, drive
from pipelines.world_run.in_process import DeskPort


@dataclass(frozen=True)
class Expected:
    """Of each exposed customer, in the order of `who`: P(converted), and the expected value in euros."""

    who: Integers
    converted: Floats
    value: Floats


def everybody_in(workspace: Workspace, experiment: str, arm: str) -> Workspace:
    """Return a workspace in which whoever takes part in an experiment is decided for as in one arm, and which has no
    other experiment.
    """
    entry = workspace.experiments.experiments[experiment]
    arms = {name: changed(one, changes=entry.arms[arm].changes) for name, one in entry.arms.items()}
    return replace(workspace, experiments=ExperimentsFile(experiments={experiment: changed(entry, arms=arms)}))


def driven_in(
    world: World,
    visits: Visits,
    workspace: Workspace,
    shift: int,
    real: bool,
    tell: Callable[[str, float], None] = lambda *_: None,
) -> Driven:
    """Return the visits again, by a desk in this process that leaves nothing behind.

    Args:
        real: decide at the real clock, as a service does.
    """
    port = DeskPort(workspace, NOW, shift, real=real)
    try:
        return drive(world, visits, port, "truth", shift, tell)
    finally:
        port.close()


def expected_of(world: World, driven: Driven, compressed: bool = False) -> Expected:
    """Return what the truth says of every customer who was exposed: at each visit after log-in.

    Args:
        compressed: all that follows the first exposure falls into the window, as where a run passes in minutes.
    """
    visits = driven.visits
    first = first_exposures(world, visits)
    begin = first[visits.who]
    known = begin < np.iinfo(np.int64).max
    begin, at, who = begin[known], visits.at[known], visits.who[known]
    inside = (1.0 if compressed else late_by(begin + WINDOW_DAYS * DAY - at)) - late_by(begin - at)
    true = driven.outcomes.probability[known] * inside[:, None]
    values = np.where(driven.slates[known] < 0, 0.0, world.offers.value[np.maximum(driven.slates[known], 0)])
    count, units = len(first), np.flatnonzero(first < np.iinfo(np.int64).max)
    none = np.bincount(who, np.log1p(-true).sum(1), count)
    value = np.bincount(who, (true * values).sum(1), count)
    return Expected(units, np.asarray(-np.expm1(none[units])), np.asarray(value[units], np.float64))


def first_exposures(world: World, visits: Visits) -> Integers:
    """Return when each customer was first decided for under their own name, microseconds since 1970, the largest number
    where never.
    """
    first = np.full(len(world.customers), np.iinfo(np.int64).max)
    own = ~visits.anonymous
    np.minimum.at(first, visits.who[own], visits.at[own])
    return first

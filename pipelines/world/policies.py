"""What policies are truly worth: the oracle that knows the truth, the uniform one that knows nothing, and the one that
decided.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.world.settings import SLATE_OFFERS, Floats, Integers, Truths
from pipelines.world.visits import Visits
from pipelines.world.world import EXAMINED, World

ROWS_EACH = 2_048
"""Visits that are worked on at once, which bounds memory."""


class Worth(NamedTuple):
    """What each visit is expected to bring under three policies, in euros, and what the oracle shows; shape (visits,).

    Attributes:
        slates: what the oracle shows, -1 where fewer offers are eligible; shape (visits, SLATE_OFFERS).
        eligible: how many offers the policies choose from.
    """

    served: Floats
    oracle: Floats
    uniform: Floats
    slates: Integers
    eligible: Integers


def worth_of(world: World, visits: Visits, slates: NDArray[np.integer], clock: Integers) -> Worth:
    """Hold slates against those of the oracle and of a uniform draw, among the offers that were valid.

    The chance of each rank is a factor, so that showing offers in the order of relevance x value is best (rearrangement
    inequality).

    Args:
        slates: what was shown, -1 for none.
        clock: when it was decided, in the world's time by the decider's clock: what is valid goes by it.
    """
    count = len(visits)
    served, oracle, uniform, eligible = np.empty(count), np.empty(count), np.empty(count), np.empty(count, np.int64)
    best = np.empty((count, SLATE_OFFERS), np.int64)
    for rows, valid, gains in gains_of(world, visits, clock):
        number = valid.sum(1)
        size = np.minimum(number, SLATE_OFFERS)
        served[rows] = worth(gains, slates[rows])
        best[rows] = best_slates(gains, valid)
        oracle[rows] = worth(gains, best[rows])
        mean = np.where(valid, gains, 0.0).sum(1) / np.maximum(number, 1)
        uniform[rows] = np.concatenate([[0.0], np.cumsum(EXAMINED)])[size] * mean
        eligible[rows] = number
    return Worth(served, oracle, uniform, best, eligible)


def gains_of(world: World, visits: Visits, clock: Integers) -> Iterator[tuple[slice, Truths, Floats]]:
    """Some visits at a time: which offers are valid, and relevance x value of all of them, each of shape (visits,
    offers).
    """
    every = np.arange(len(world.offers))
    for start in range(0, len(visits), ROWS_EACH):
        rows = slice(start, min(start + ROWS_EACH, len(visits)))
        who = visits.who[rows]
        relevance = world.relevance(
            who, visits.at[rows], visits.channel[rows], np.broadcast_to(every, (len(who), len(every)))
        )
        yield rows, world.offers.valid(clock[rows]), relevance * world.offers.value


def best_slates(gains: Floats, valid: Truths) -> Integers:
    """Return the slates of the oracle, best first; equal gains in the order of the offers."""
    order = np.argsort(np.where(valid, -gains, np.inf), axis=1, kind="stable")[:, :SLATE_OFFERS]
    return np.asarray(np.where(np.take_along_axis(valid, order, 1), order, -1))


def worth(gains: Floats, slates: NDArray[np.integer]) -> Floats:
    """Return what slates are expected to bring; ranks without an offer bring nothing."""
    each = np.where(slates < 0, 0.0, np.take_along_axis(gains, np.maximum(slates, 0), 1))
    return np.asarray((each * EXAMINED[: slates.shape[1]]).sum(1))

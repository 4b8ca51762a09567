"""What comes of slates that were shown: who sees, accepts, clicks, turns down, and after how long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.world.settings import DAY, WINDOW_DAYS, Floats, Integers, Truths
from pipelines.world.visits import Visits
from pipelines.world.world import EXAMINED, World

DISMISSED_SHARE = 0.08
"""Part of what is seen and not accepted that is turned down at once."""
BOT_CLICKS_SHARE = 0.3
DELAY_DAYS = 1.5
"""Mean of the exponential delay of an acceptance, which is cut at the attribution window."""
AT_ONCE = 2_000_000
"""Microseconds from the decision to the impression; clicks and dismissals follow after as many again."""

SOONEST, LATEST = 2 * AT_ONCE, WINDOW_DAYS * DAY - AT_ONCE
"""Bounds of the delay of an acceptance, microseconds."""
MOST = 1.0 - np.exp(-WINDOW_DAYS / DELAY_DAYS)
"""The part of the exponential distribution that lies before the cut."""


def late_by(after: Integers) -> Floats:
    """P(an acceptance comes less than so many microseconds after its decision), given that it comes; 0 where that is
    below 0.
    """
    days = np.maximum(after, 0) / DAY
    return np.asarray(
        np.where(after <= SOONEST, 0.0, np.where(after > LATEST, 1.0, -np.expm1(-days / DELAY_DAYS) / MOST))
    )


@dataclass(frozen=True)
class Outcomes:
    """What came of each offer shown, arrays of shape (slates, ranks).

    Attributes:
        probability: the true probability of acceptance at this rank.
        seen, accepted, clicked, dismissed: what happened; what was not seen has no outcome, and bots see everything.
        delay: microseconds from the decision to the acceptance, less than the attribution window.
    """

    probability: Floats
    seen: Truths
    accepted: Truths
    clicked: Truths
    dismissed: Truths
    delay: Integers


def follow(world: World, visits: Visits, slates: NDArray[np.integer], rows: slice = slice(None)) -> Outcomes:
    """Let the world answer slates of some visits.

    Args:
        slates: positions of offers in the order shown, -1 for none, shape (visits, at most SLATE_OFFERS).
    """
    who, ranks = visits.who[rows], slates.shape[1]
    luck = visits.luck[rows, :ranks]
    probability = world.probability(who, visits.at[rows], visits.channel[rows], slates)
    bot = world.customers.bot[who][:, None]
    seen = (slates >= 0) & ((luck[:, :, 0] < EXAMINED[:ranks]) | bot)
    accepted = seen & (luck[:, :, 1] * EXAMINED[:ranks] < probability)
    clicked = accepted | (seen & bot & (luck[:, :, 2] < BOT_CLICKS_SHARE))
    dismissed = seen & ~accepted & ~bot & (luck[:, :, 2] < DISMISSED_SHARE)
    days = -DELAY_DAYS * np.log1p(-MOST * luck[:, :, 3])
    late = np.clip((days * DAY).astype(np.int64), SOONEST, LATEST)
    return Outcomes(probability, seen, accepted, clicked, dismissed, late)

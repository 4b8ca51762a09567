"""Exploration: slates that are drawn, with the exact probability of each offer shown.

A slate is drawn place by place, without putting back. At each place the candidates are the offers that may be shown
next (diversity, exclusions and whole bundles respected), and the law gives each a probability. What is stated with an
offer is the probability that it is drawn at its place, given the offers at the places before it; the product over a
slate is that of the slate.

The draw is a hash of salt, unit, placement, place and period of time: the same request is answered the same way, on
every worker, and replay draws what was drawn.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from features.bucketing.fnv import fnv1a_bytes
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS, duration_seconds
from features.config.policies import Exploration
from serving.hub.slate import Answer, PlacementRequest, Ties, together
from serving.kernel.top_k import mix

Floats = NDArray[np.float64]
Law = Literal["gap", "weight"]
"""`gap`: inverse-gap weighting of priorities; `weight`: each with a probability in proportion to its priority."""

_SCORES = numba.types.Array(numba.float64, 1, "C", readonly=True)
_TWO_TO_53 = 9007199254740992.0
_OFFSET = 2_166_136_261
"""Where 32-bit FNV-1a begins."""


@numba.njit(numba.float64(numba.uint64, numba.uint64), nogil=True, cache=True)
def _uniform(seed, place):  # type: ignore[no-untyped-def]
    """At least 0 and below 1, in steps of 2^-53."""
    return np.float64(mix(mix(seed) ^ place) >> np.uint64(11)) / _TWO_TO_53


@numba.njit(
    numba.float64(_SCORES, numba.boolean[::1], numba.float64, numba.float64, numba.boolean, numba.float64[::1]),
    nogil=True,
    cache=True,
)
def _probabilities(scores, live, gamma, floor, weighted, out):  # type: ignore[no-untyped-def]
    """Write the probability of each live candidate into `out`, 0 for others; returns the place of the best, the first
    of equals, or -1 without candidates.

    Priorities below zero count as zero. Gaps are parts of the best priority, so that the currency of values does not
    matter; where the best is zero, there are none.
    """
    best, count, total = -1, 0, 0.0
    for at in range(scores.shape[0]):
        out[at] = 0.0
        if live[at]:
            count += 1
            total += max(scores[at], 0.0)
            if best < 0 or scores[at] > scores[best]:
                best = at
    if best < 0:
        return -1.0
    top = max(scores[best], 0.0)
    rest = 1.0
    for at in range(scores.shape[0]):
        if not live[at]:
            continue
        if weighted:
            out[at] = max(scores[at], 0.0) / total if total > 0.0 else 1.0 / count
        elif at != best:
            gap = 1.0 - max(scores[at], 0.0) / top if top > 0.0 else 0.0
            # Infinite gamma and no gap: as for every finite one.
            out[at] = max(floor / count, 1.0 / (count + gamma * gap) if gap > 0.0 else 1.0 / count)
            rest -= out[at]
    if not weighted:
        out[best] = max(rest, 0.0)
    return float(best)


@numba.njit(numba.int64(_SCORES, numba.float64, numba.int64), nogil=True, cache=True)
def _drawn(probabilities, uniform, best):  # type: ignore[no-untyped-def]
    """Return the best where the draw is below its probability, else the others in their order: more weight on the best
    moves nobody elsewhere.
    """
    if uniform < probabilities[best]:
        return best
    reached, last = probabilities[best], best
    for at in range(probabilities.shape[0]):
        if at != best and probabilities[at] > 0.0:
            reached += probabilities[at]
            last = at
            if uniform < reached:
                return at
    return last


class Slate(NamedTuple):
    """What was drawn: positions in the catalogue, the probability of each, and what is shown so far, with it."""

    offers: list[int]
    probabilities: Floats
    answer: Answer


class Explorer:
    """Draws slates by one law.

    Args:
        gamma: of `gap`; infinite: only the floor is drawn.
        floor: of `gap`; 1 draws all offers alike.
        period: how long a unit is shown the same draw, in microseconds.
    """

    def __init__(
        self,
        law: Law,
        gamma: float = np.inf,
        floor: float = 0.0,
        salt: str = "exploration",
        period: int = 86_400 * MICROSECONDS,
    ):
        self.law, self.gamma, self.floor, self.salt, self.period = law, gamma, floor, salt, period

    @classmethod
    def of(cls, exploration: Exploration) -> Explorer | None:
        """Return what policies ask for; None where they ask for nothing to be drawn."""
        if exploration.gamma is None and exploration.floor == 0:
            return None
        period = duration_seconds(exploration.period) * MICROSECONDS
        return cls("gap", exploration.gamma or np.inf, exploration.floor, exploration.salt, round(period))

    def probabilities(self, scores: Floats, live: NDArray[np.bool_]) -> tuple[Floats, int]:
        """Return the probability of each candidate to be drawn next, and the place of the best among them; -1 where
        there is none.
        """
        found = np.empty(len(scores))
        best = int(_probabilities(scores, live, self.gamma, self.floor, self.law == "weight", found))
        return found, best

    def draw(
        self,
        scores: Floats,
        chosen: NDArray[np.int32],
        live: NDArray[np.bool_],
        wanted: PlacementRequest,
        offers: int,
        ties: Ties,
        answer: Answer,
        seed: int,
    ) -> Slate:
        """Draw one slate.

        Args:
            scores: priorities of the chosen offers, which stand at these positions of the catalogue.
            live: which of them may be shown here; `offers` are the same as a set, with those that may fill what is
                left.
            answer: what is shown so far; it stays as it is.
            seed: see `seed`.
        """
        answer, live = answer.copy(), live.copy()
        slate: list[int] = []
        stated: list[float] = []
        bound = not ties.none or wanted.per_category is not None or wanted.per_group is not None or bool(answer.shown)
        while len(slate) < wanted.limit:
            next_ = _feasible(chosen, live, slate, wanted, offers, ties, answer) if bound else live
            found, best = self.probabilities(scores, next_)
            if best < 0:
                break
            at = int(_drawn(found, _uniform(seed, len(slate)), best))
            offer = int(chosen[at])
            whole = together(offer, ties)
            for one in whole:
                answer.add(one, ties)
            slate += whole
            stated += [float(found[at]), *[1.0] * (len(whole) - 1)]
            live[at] = False
            if len(whole) > 1:
                live[np.isin(chosen, whole)] = False
        for offer in wanted.fallback:
            if ties.fits(slate, offer, wanted, offers, answer):
                whole = together(offer, ties)
                for one in whole:
                    answer.add(one, ties)
                slate += whole
                stated += [1.0] * len(whole)
        return Slate(slate, np.array(stated), answer)

    def seed(self, unit: str, placement: str, now: Micros) -> int:
        """Return the seed of the draws of one unit at one placement in one period. Requests of nobody in particular are
        drawn one by one.
        """
        when = now // self.period if unit else now
        return int(
            fnv1a_bytes(_OFFSET, "\x1f".join((self.salt, unit, placement, str(when))).encode("utf-8", "surrogatepass"))
        )


def _feasible(
    chosen: NDArray[np.int32],
    live: NDArray[np.bool_],
    slate: list[int],
    wanted: PlacementRequest,
    offers: int,
    ties: Ties,
    answer: Answer,
) -> NDArray[np.bool_]:
    """Return which of the live candidates may be shown next, after a slate."""
    fits = [
        bool(may) and ties.fits(slate, int(at), wanted, offers, answer)
        for at, may in zip(chosen.tolist(), live.tolist(), strict=True)
    ]
    return np.array(fits, bool)

"""The best of many scores, in machine code: one pass, and no array that is not the answer."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

_SCORES = numba.types.Array(numba.float64, 1, "C", readonly=True)
_DRAWS = numba.types.Array(numba.uint64, 1, "C", readonly=True)
_CHOSEN = numba.types.Array(numba.int32, 1, "C", readonly=True)


@numba.njit(numba.uint64(numba.uint64), nogil=True, cache=True)
def mix(value):  # type: ignore[no-untyped-def]
    """Spread a number over all 64 bits (the finalizer of splitmix64, Steele et al. 2014): one to one, so no new
    ties.
    """
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@numba.njit(numba.int64(_SCORES, _DRAWS, _CHOSEN, numba.uint64, numba.int32[::1]), nogil=True, cache=True)
def _best(scores, draws, chosen, seed, out):  # type: ignore[no-untyped-def]
    """Keep the best so far in order; most offers fail the comparison with the last of them."""
    found, most = 0, out.shape[0]
    for at in range(scores.shape[0]):
        if found == most and scores[at] < scores[out[most - 1]]:
            continue
        draw = mix(draws[chosen[at]] ^ seed)
        place = found
        while place > 0:
            other = out[place - 1]
            if scores[at] < scores[other]:
                break
            if scores[at] == scores[other] and draw >= mix(draws[chosen[other]] ^ seed):
                break
            place -= 1
        if place == most:
            continue
        for later in range(min(found, most - 1), place, -1):
            out[later] = out[later - 1]
        out[place] = at
        found = min(found + 1, most)
    return found


def best(
    scores: NDArray[np.float64], draws: NDArray[np.uint64], chosen: NDArray[np.int32], seed: int, limit: int
) -> NDArray[np.int32]:
    """Positions of the best scores, best first; equal scores in an order drawn by a hash.

    Args:
        scores: one an offer considered.
        draws: one number an offer of the catalogue.
        chosen: positions in the catalogue of the offers considered.
        seed: what the draw depends on beside the offer.
        limit: at most so many.
    """
    out = np.empty(min(limit, len(scores)), np.int32)
    if len(out):
        _best(scores, draws, chosen, seed, out)
    return out

"""Sets of offers of one catalogue, and those that are valid for every customer at a placement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.common.moments import Micros
from serving.conditions.bitsets import mask_of


@dataclass(slots=True, eq=False)
class OfferSet:
    """Some offers of a catalogue, in the forms that the steps of a decision take."""

    bits: int
    """Bit i is offer i of the catalogue."""
    mask: NDArray[np.bool_]
    """One truth an offer of the catalogue."""
    positions: NDArray[np.int32]
    """Positions in the catalogue, ascending."""
    encoded: tuple[int, bytes] | None = None
    """The set as records hold it. Whoever records it first fills this in: many decisions share one set."""


def offer_set(bits: int, offers: int) -> OfferSet:
    """Return the set with these bits, of a catalogue of so many offers."""
    mask = mask_of(bits, offers)
    return OfferSet(bits, mask, mask.nonzero()[0].astype(np.int32))


@dataclass(frozen=True, slots=True)
class ValidOffers:
    """What holds for every customer at one placement, from `since` until `until` (exclusive)."""

    since: Micros
    until: Micros
    valid: int
    """Offers within their validity, whatever the placement, as a set."""
    shown: OfferSet
    """Of those, the ones that the placement may show."""

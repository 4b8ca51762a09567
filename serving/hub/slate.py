"""The slate: which of the ranked offers are shown together. No offer twice, diversity kept, exclusions and bundles
respected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from features.columns.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """What one placement wants.

    Attributes:
        limit: at most so many offers.
        per_category, per_group: at most so many of one category or group; None is without bound.
        fallback: positions of offers that fill what is left.
    """

    limit: int
    per_category: int | None = None
    per_group: int | None = None
    fallback: tuple[int, ...] = ()


class Ties:
    """What binds offers of a catalogue to each other: groups, categories, exclusions, bundles; by position."""

    def __init__(self, catalogue: Catalogue, bundles: Iterable[Sequence[str]]) -> None:
        index = catalogue.index
        self.group = [offer.group for offer in catalogue.offers]
        self.category = [offer.category for offer in catalogue.offers]
        self.excludes: dict[int, frozenset[int]] = {}
        """Both ways: who excludes is excluded."""
        pairs = [
            (at, index[other])
            for at, offer in enumerate(catalogue.offers)
            for other in offer.excludes
            if other in index
        ]
        for one, other in [*pairs, *((other, one) for one, other in pairs)]:
            self.excludes[one] = self.excludes.get(one, frozenset()) | {other}
        self.bundle: dict[int, tuple[int, ...]] = {}
        for members in bundles:
            # A member that the catalogue does not have can never be shown, and so neither can the others: -1 is no
            # offer.
            positions = tuple(index.get(member, -1) for member in members)
            self.bundle |= dict.fromkeys((at for at in positions if at >= 0), positions)

    @property
    def none(self) -> bool:
        """Whether offers are free of each other."""
        return not self.excludes and not self.bundle

    def fits(self, slate: list[int], offer: int, wanted: PlacementRequest, offers: int, answer: Answer) -> bool:
        """Return whether an offer, with all of its bundle, may be shown next; see `fill`."""
        whole = together(offer, self)
        if len(whole) > 1 and not all(one >= 0 and (offers >> one & 1 or one in wanted.fallback) for one in whole):
            return False
        return offer not in answer.shown and _fits(slate, whole, wanted, self, answer)


@dataclass(slots=True)
class Answer:
    """What is shown so far, over all placements of a request."""

    shown: set[int] = field(default_factory=set)
    excluded: set[int] = field(default_factory=set)

    def copy(self) -> Answer:
        return Answer(set(self.shown), set(self.excluded))

    def add(self, offer: int, ties: Ties) -> None:
        self.shown.add(offer)
        self.excluded |= ties.excludes.get(offer, frozenset())


def together(offer: int, ties: Ties) -> list[int]:
    """Return an offer and the others of its bundle, in the order in which they are shown."""
    bundle = ties.bundle.get(offer)
    return [offer] if bundle is None else [offer, *(member for member in bundle if member != offer)]


def fill(
    wanted: PlacementRequest, order: Sequence[int], offers: int, ties: Ties, answer: Answer, whole: bool = True
) -> list[int]:
    """Return the offers of one placement, in the order in which they are shown; they are added to `answer`.

    An offer of a bundle is shown with all of its bundle, right after each other from the best on, or not at all.

    Args:
        order: positions of offers that may be shown here, best first.
        offers: all that may be shown here, as a set; more than `order` where not all of them were ordered.
        whole: whether `order` has all of them; else none is shown for being a fallback, since a better one may follow.
    """
    slate: list[int] = []
    for offer in (*order, *(wanted.fallback if whole else ())):
        if len(slate) >= wanted.limit:
            break
        if ties.fits(slate, offer, wanted, offers, answer):
            shown = together(offer, ties)
            for one in shown:
                answer.add(one, ties)
            slate += shown
    return slate


def _fits(slate: list[int], whole: list[int], wanted: PlacementRequest, ties: Ties, answer: Answer) -> bool:
    if len(slate) + len(whole) > wanted.limit:
        return False
    for at, offer in enumerate(whole):
        if (
            offer in answer.shown
            or offer in answer.excluded
            or not ties.excludes.get(offer, frozenset()).isdisjoint(whole[:at])
        ):
            return False
    after = [*slate, *whole]
    return _within(after, ties.category, wanted.per_category) and _within(after, ties.group, wanted.per_group)


def _within(offers: list[int], names: list[str], most: int | None) -> bool:
    """Return whether no name but the empty one occurs more than `most` times."""
    if most is None:
        return True
    met = [names[offer] for offer in offers if names[offer]]
    return all(met.count(name) <= most for name in set(met))

"""The step that ranks: fill the slates of all placements by priority."""

from __future__ import annotations

from features.aggregates.partitions import fnv1a
from serving.conditions.bitsets import mask_of
from serving.decision.case import Case, PlacementCase
from serving.decision.scoring import priorities
from serving.hub.exploration import Explorer
from serving.hub.slate import Answer, PlacementRequest, fill
from serving.kernel import top_k

ORDERED_EXTRA = 24
"""Where offers bind each other, so many more than wanted are ordered at first, and all only when those do not fill a
slate.
"""


def arrange(case: Case) -> None:
    """Fill the slates of all placements: no offer twice, and none that may not be shown any more."""
    snapshot, considered, answer = case.deciding, case.considered, None
    hub, seed = snapshot.hub, fnv1a(case.unit)
    for place in case.places:
        if place.priorities is None:
            place.priorities = priorities(case, place)
        limit = case.request.limit or place.placement.limit
        if hub.explorer is not None:
            answer = _drawn(case, place, limit, hub.explorer, answer or Answer())
        elif len(case.places) == 1 and place.name in hub.free and place.allowed == considered.bits:
            place.best = top_k.best(place.priorities, snapshot.draws, considered.positions, seed, limit)
            place.slate = considered.positions[place.best].tolist()
        else:
            answer = _filled(case, place, limit, seed, answer or Answer())
        place.propensities = case.propensities_of(place.best)
        place.scores = (
            hub.arbiter.scaled(place.propensities) if place.priorities is case.raw else place.priorities[place.best]
        )


def _filled(case: Case, place: PlacementCase, limit: int, seed: int, answer: Answer) -> Answer:
    """Fill one slate where offers bind each other; return what is shown so far, with it."""
    assert place.priorities is not None
    snapshot, chosen = case.deciding, case.considered.positions
    wanted = _wanted(place, limit)
    many = limit + ORDERED_EXTRA
    while True:
        best = top_k.best(place.priorities, snapshot.draws, chosen, seed, many)
        order = [offer for offer in chosen[best].tolist() if place.allowed >> offer & 1]
        attempt, whole = answer.copy(), many >= len(chosen)
        place.slate = fill(wanted, order, place.allowed, snapshot.hub.ties, attempt, whole)
        if len(place.slate) == limit or whole:
            break
        many = len(chosen)
    place.best = case.among(place.slate)
    return attempt


def _drawn(case: Case, place: PlacementCase, limit: int, explorer: Explorer, answer: Answer) -> Answer:
    """Draw one slate; return what is shown so far, with it."""
    assert place.priorities is not None
    snapshot, chosen = case.deciding, case.considered.positions
    live = mask_of(place.allowed, len(snapshot.catalogue))[chosen]
    seed = explorer.seed(case.unit, place.name, case.now)
    drawn = explorer.draw(
        place.priorities, chosen, live, _wanted(place, limit), place.allowed, snapshot.hub.ties, answer, seed
    )
    place.slate, place.probabilities = drawn.offers, drawn.probabilities
    place.best = case.among(place.slate)
    return drawn.answer


def _wanted(place: PlacementCase, limit: int) -> PlacementRequest:
    return PlacementRequest(limit, place.placement.per_category, place.placement.per_group, place.fallback)

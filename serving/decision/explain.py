"""Why, and why not: what a decision looked at, of the very values that it decided with. For people who may see a
customer's data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.decision.case import Case, PlacementCase
from serving.decision.explain_dropped import stopped
from serving.kernel.shap import grouped

EXPLAINED_OFFERS_MAX = 20
"""Offers that are explained with all their columns: those shown, then the next best."""
NOT_SHOWN_MAX = 2_000
"""Offers that were not shown and are listed with what stopped them: those that came furthest first."""
CONTRIBUTIONS_MAX = 10
"""Columns that are listed by what they contribute to a score, the largest first; the rest is one line."""
RANK, SLATE = "rank", "slate"
"""What stops an offer that may be shown: others have more priority; or it does not fit beside those that are shown."""


def why(case: Case) -> dict[str, Any]:
    """Return the explanation of a decision: the customer and the moment, then for each placement funnel, offers shown,
    and offers not shown.
    """
    layout = case.deciding.layout
    return {
        "offers": len(case.deciding.catalogue),
        "customer": _named([*layout.customer, *layout.context], case.shared, case),
        "withheld": [] if case.withheld is None else list(case.withheld.names),
        "placements": {place.name: _placement(case, place) for place in case.places},
    }


def _placement(case: Case, place: PlacementCase) -> dict[str, Any]:
    slate, left = place.slate, place.allowed
    ranks = np.argsort(-_ordering(place), kind="stable")
    ranked = [int(case.considered.positions[at]) for at in ranks if left >> int(case.considered.positions[at]) & 1]
    following = [offer for offer in ranked if offer not in set(slate)][: max(0, EXPLAINED_OFFERS_MAX - len(slate))]
    return {
        "funnel": {step: offers.bit_count() for step, offers in place.trail or ()} | {"shown": len(slate)},
        "shown": [_scored(case, place, offer) for offer in slate],
        "considered": [_scored(case, place, offer) for offer in following],
        "not_shown": _not_shown(case, place, ranked),
    }


def _scored(case: Case, place: PlacementCase, offer: int) -> dict[str, Any]:
    """Return one offer with the terms of its priority, and what each column contributes to its score."""
    snapshot, at = case.deciding, int(case.among([offer])[0])
    arbiter, layout, weights = snapshot.hub.arbiter, snapshot.layout, place.weights
    row = np.concatenate([case.shared, snapshot.offer_values[offer], case.pairs[at]])
    found = snapshot.explainer.explain(row)
    groups = grouped(found.values, snapshot.bundle.contract.columns)
    rest = sum(group.contribution for group in groups[CONTRIBUTIONS_MAX:])
    listed = [
        {"column": group.name, "contribution": group.contribution}
        for group in groups[:CONTRIBUTIONS_MAX]
        if group.contribution
    ]
    return {
        "offer_id": snapshot.catalogue.offers[offer].offer_id,
        "name": snapshot.catalogue.offers[offer].name,
        "fallback": not place.allowed >> offer & 1,
        "priority": _priority(case, place, offer),
        "propensity": _propensity(case, at),
        "context_weight": 1.0 if weights is None else float(weights[at]),
        "value": float(arbiter.values[offer]),
        "lever": float(arbiter.levers[offer]),
        "raw": float(case.raw[at]),
        "base": found.base,
        "method": found.method,
        "contributions": listed + ([{"column": "all others", "contribution": rest}] if rest else []),
        "columns": _named(layout.offer, snapshot.offer_values[offer], case) | _named(layout.pair, case.pairs[at], case),
    }


def _not_shown(case: Case, place: PlacementCase, ranked: list[int]) -> list[dict[str, Any]]:
    """Return what stopped each offer that is not shown, and the smallest change that would have let it come first, or
    pass.
    """
    shown, found = set(case.shown()), list[dict[str, Any]]()
    priorities = [_priority(case, place, offer) for offer in place.slate if place.allowed >> offer & 1]
    full = len(place.slate) >= (case.request.limit or place.placement.limit)
    first, least = max(priorities, default=0.0), min(priorities, default=-np.inf) if full else -np.inf
    for rank, offer in enumerate(ranked):
        if offer not in shown and len(found) < NOT_SHOWN_MAX:
            found.append(_outranked(case, place, offer, rank + 1, first, least))
    everyone = (1 << len(case.deciding.catalogue)) - 1
    steps = [("catalogue", everyone), *(place.trail or ())]
    for (_, before), (step, after) in reversed(list(pairwise(steps))):
        fallen = before & ~after
        while fallen and len(found) < NOT_SHOWN_MAX:
            offer = (fallen & -fallen).bit_length() - 1
            fallen &= fallen - 1
            if offer not in shown:  # as a fallback it may be
                found.append(stopped(case, place, offer, step))
    return found


def _outranked(case: Case, place: PlacementCase, offer: int, rank: int, first: float, least: float) -> dict[str, Any]:
    """Return an offer that might have been shown, but for others: by how much lever or value would have to grow.

    Args:
        first, least: the highest and the lowest priority of what is shown; the lowest is minus infinity where there is
            room left.
    """
    arbiter, priority = case.deciding.hub.arbiter, _priority(case, place, offer)
    entry = case.deciding.catalogue.offers[offer]
    told: dict[str, Any] = {
        "offer_id": entry.offer_id,
        "name": entry.name,
        "stopped_by": RANK,
        "rank": rank,
        "priority": priority,
    }
    if arbiter.plain and 0 < priority < first:
        factor = float(np.nextafter(first / priority, np.inf))
        told["would_be_first"] = {
            "lever": factor * float(arbiter.levers[offer]),
            "or_value": factor * float(arbiter.values[offer]),
            "or_propensity_times": factor,
        }
    if priority > least:
        told["stopped_by"], told["because"] = SLATE, [_unfit(case, place, offer)]
    return told


def _unfit(case: Case, place: PlacementCase, offer: int) -> str:
    """Return why an offer of good rank does not fit beside those that are shown."""
    ties, shown = case.deciding.hub.ties, set(case.shown())
    if ties.excludes.get(offer, frozenset()) & shown:
        return "it excludes, or is excluded by, an offer that is shown"
    if offer in ties.bundle:
        return "not all offers of its bundle can be shown"
    for what, most, names in (
        ("category", place.placement.per_category, ties.category),
        ("group", place.placement.per_group, ties.group),
    ):
        if most is not None and names[offer] and sum(names[at] == names[offer] for at in place.slate) >= most:
            return f"{place.name} shows at most {most} of one {what}, here {names[offer]}"
    return "it does not fit beside the others"


def _priority(case: Case, place: PlacementCase, offer: int) -> float:
    """Return the priority of an offer on the scale that answers show: where the raw score orders alike, that of the
    propensity, in its plain terms.
    """
    at = int(case.among([offer])[0])
    if place.priorities is not case.raw:
        return float(_ordering(place)[at])
    return float(case.deciding.hub.arbiter.scaled(np.array([_propensity(case, at)]))[0])


def _ordering(place: PlacementCase) -> NDArray[np.float64]:
    assert place.priorities is not None
    return place.priorities


def _propensity(case: Case, at: int) -> float:
    return float(case.propensities_of(np.array([at], np.int32))[0])


def _named(columns: list[Any], values: NDArray[np.float64], case: Case) -> dict[str, float | str | None]:
    layout = case.deciding.layout
    return {column.name: layout.shown(column, value) for column, value in zip(columns, values, strict=True)}

"""The step that scores: lay the columns as training laid them, run the kernel, and turn scores into priorities."""

from __future__ import annotations

import numpy as np

from features.common.types import OFFERS_CONSIDERED
from serving.decision.case import Case, Floats, PlacementCase


def score(case: Case) -> None:
    """Compute the raw score of every offer that may be shown anywhere."""
    snapshot, chosen, seconds = case.deciding, case.considered.positions, case.seconds
    layout, context = snapshot.layout, {**case.context, OFFERS_CONSIDERED: len(chosen)}
    row = case.scored_row = case.row if snapshot.hub.logic.personal else layout.plan.nobody()
    case.shared = layout.shared_values(row, context, seconds)
    matched = None if case.truths is None or row is not case.row else snapshot.hub.rules.matched(case.truths)
    case.pairs = layout.pair_values(row, snapshot.everyone, snapshot.offer_values, chosen, seconds, matched)
    case.raw = np.empty(len(chosen))
    snapshot.kernel.score(case.shared, snapshot.prepared_offers, chosen, case.pairs, case.raw)


def priorities(case: Case, place: PlacementCase) -> Floats:
    """Return what orders the scored offers at a placement, shape (scored,); sets the place's context weights.

    Where nothing but the propensity counts it is the raw score, which orders alike.
    """
    snapshot, chosen, place.weights = case.deciding, case.considered.positions, None
    hub = snapshot.hub
    if case.truths is not None:
        place.weights = hub.rules.context_weights(place.name, case.truths, chosen)
    if place.weights is None and hub.arbiter.by_propensity and hub.explorer is None:
        return case.raw
    if case.propensities is None:
        case.propensities = snapshot.calibrate(case.raw)
    propensities = np.ones(len(case.raw)) if hub.logic.blind else case.propensities
    return hub.arbiter.priorities(
        propensities, place.weights, chosen, case.scored_row, snapshot.everyone, case.context, case.seconds
    )

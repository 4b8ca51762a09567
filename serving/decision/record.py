"""What the journal keeps of a decision: what was considered, with which columns and scores, what was shown, under which
arms.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.common.types import Decision, DecisionRequest
from features.events.journal import GivenTo, Line, considered_of, line_of
from serving.assignment.assignment import Assigned
from serving.decision.case import Case, PlacementCase
from serving.state.offer_sets import OfferSet


def line_of_case(case: Case, decision: Decision, took_us: int) -> Line:
    """Return the line of an answered case.

    Args:
        took_us: microseconds from the read of the customer to the answer.
    """
    places, first, snapshot, considered = case.places, case.places[0], case.deciding, case.considered
    best, propensities, scores = first.best, first.propensities, first.scores
    if len(places) > 1:
        best = np.concatenate([place.best for place in places])
        propensities = np.concatenate([place.propensities for place in places])
        scores = np.concatenate([place.scores for place in places])
    drawn = None if first.probabilities is None else np.concatenate([_probabilities(place) for place in places])
    assigned, (arms, units) = case.assigned, ((), ()) if case.assigned is None else _arms(case, case.assigned)
    return line_of(
        _request(case),
        decision,
        case.now,
        snapshot.versions,
        considered.encoded or _encoded(considered),
        best,
        considered.positions[best],
        propensities,
        scores,
        case.raw,
        case.shared,
        case.pairs,
        snapshot.offer_values,
        drawn,
        ("", 1.0) if assigned is None else (assigned.group.name or "", assigned.group.probability),
        arms,
        units,
        took_us,
    )


def _encoded(offers: OfferSet) -> tuple[int, bytes]:
    """Return a set of offers as the journal writes it, and leave that with the set for the next decision."""
    offers.encoded = considered_of(offers.mask, offers.positions)
    return offers.encoded


def _probabilities(place: PlacementCase) -> NDArray[np.float64]:
    assert place.probabilities is not None, "all places of a request are drawn, or none"
    return place.probabilities


def _request(case: Case) -> DecisionRequest:
    """Return the request as the journal keeps it: with its unit as the customer, and without what was withheld."""
    request = case.request
    if case.withheld is None and case.unit is request.customer_id:
        return request
    return msgspec.structs.replace(request, customer_id=case.unit, context=case.context)


def _arms(case: Case, assigned: Assigned) -> tuple[tuple[GivenTo, ...], tuple[str, ...]]:
    """Return the arms of a unit as the journal keeps them, and the units that have them; no units where all arms are
    those of the decision's own.
    """
    states, placements, own = case.serving.experiment_states, case.request.asked, True
    arms: list[GivenTo] = []
    units: list[str] = []
    for assignment in assigned.assignments:
        if assignment.arm is not None:
            experiment = assignment.experiment
            exposed = states.exposed(experiment, placements)
            probability = assignment.probability or 0.0
            arms.append((experiment, assignment.arm, probability, assignment.covered, assignment.reason, exposed))
            units.append(states.unit(experiment, case.units))
            own &= units[-1] == case.unit
    return tuple(arms), () if own else tuple(units)

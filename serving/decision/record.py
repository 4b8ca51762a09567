"""What the journal keeps of a decision: what was considered, with which columns and scores, what was shown, under which
arms.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.common.types import Decision, DecisionRequest
from features.events.journal import GivenTo, Line, line_of
from serving.assignment.assignment import Assigned
from serving.decision.case import Case, PlacementCase


def written(case: Case, decision: Decision, took_us: int) -> Line:
    """What the journal keeps: what was considered, with which columns and scores, what was shown, and how many
    microseconds that took.
    """
    places, one = case.places, case.places[0]
    best, propensities, scores = one.best, one.propensities, one.scores
    if len(places) > 1:
        best = np.concatenate([place.best for place in places])
        propensities, scores = (
            np.concatenate([getattr(place, what) for place in places]) for what in ("propensities", "scores")
        )
    drawn = None if one.probabilities is None else np.concatenate([_stated(place) for place in places])
    assigned, (given, units) = case.assigned, ((), ()) if case.assigned is None else _given(case, case.assigned)
    return line_of(
        _request(case),
        decision,
        case.now,
        case.loaded.versions,
        case.considered,
        best,
        case.chosen[best],
        propensities,
        scores,
        case.raw,
        case.shared,
        case.pairs,
        case.loaded.offer_values,
        drawn,
        ("", 1.0) if assigned is None else (assigned.group.name or "", assigned.group.probability),
        given,
        units,
        took_us,
    )


def _stated(place: PlacementCase) -> NDArray[np.float64]:
    assert place.probabilities is not None, "all places of a request are drawn, or none"
    return place.probabilities


def _request(case: Case) -> DecisionRequest:
    """Return the request as the journal keeps it: about whom it was, and without what was withheld."""
    request = case.request
    if case.withheld is None and case.unit is request.customer_id:
        return request
    return msgspec.structs.replace(request, customer_id=case.unit, context=case.context)


def _given(case: Case, assigned: Assigned) -> tuple[tuple[GivenTo, ...], tuple[str, ...]]:
    """Return the same as the journal keeps them, and whose they are where that is not the decision's own unit."""
    trials, asked, own = case.trials, case.request.asked, True
    given: list[GivenTo] = []
    units: list[str] = []
    for one in assigned.assignments:
        if one.arm is not None:
            exposed = trials.exposed(one.experiment, asked)
            given.append((one.experiment, one.arm, one.probability or 0.0, one.covered, one.reason, exposed))
            units.append(trials.unit(one.experiment, case.units))
            own &= units[-1] == case.unit
    return tuple(given), () if own else tuple(units)

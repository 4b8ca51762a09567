"""The step that answers: the decision as frontends get it."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS, rfc3339
from features.common.types import Decision, GivenArm, RankedOffer
from serving.assignment.assignment import Assigned
from serving.decision.case import Case, Positions
from serving.decision.explain import why
from serving.hub.request_check import locale_of
from serving.state.snapshot import Snapshot
from serving.state.treatments import treatment_for

FEATURES_UNAVAILABLE, FEATURES_STALE, CONTACTS_UNAVAILABLE = (
    "features_unavailable",
    "features_stale",
    "contacts_unavailable",
)
DEGRADED = (FEATURES_UNAVAILABLE, FEATURES_STALE, CONTACTS_UNAVAILABLE)
"""Every reason for which an answer may be less than it could be."""


def answer(case: Case, decision_id: str, row_read: bool) -> Decision:
    """Return the answer of a case whose slates are filled.

    Args:
        row_read: whether the online store answered.
    """
    snapshot, request, assigned = case.deciding, case.request, case.assigned
    return Decision(
        decision_id=decision_id,
        customer_id=request.customer_id,
        placement=",".join([place.name for place in case.places]),
        offers=_ranked_offers(case),
        model=snapshot.stamp,
        degraded=_degraded(case, row_read),
        considered=len(case.considered.positions),
        expires_at=_expiry(snapshot, case.shown(), case.now),
        config=snapshot.hub.config,
        withheld=() if case.withheld is None else case.withheld.names,
        notes=tuple(case.notes),
        explanation=msgspec.UNSET if not request.explain else why(case),
        experiments=msgspec.UNSET if assigned is None else _arms(assigned),
        group=msgspec.UNSET if assigned is None else assigned.group.name,
    )


def _ranked_offers(case: Case) -> list[RankedOffer]:
    snapshot, several = case.deciding, case.request.placements is not None
    catalogue, treatments = snapshot.catalogue.offers, snapshot.treatments
    channel, locale = case.channel, locale_of(snapshot.workspace, case.context)
    ranked: list[RankedOffer] = []
    stated = case.assigned is not None or snapshot.hub.explorer is not None
    for place in case.places:
        propensities = place.propensities.tolist()
        scores = propensities if place.scores is place.propensities else place.scores.tolist()
        reasons = _reasons(case, place.best) if snapshot.reasons else None
        name = place.name if several else msgspec.UNSET
        drawn = None if place.probabilities is None else place.probabilities.tolist()
        for at, offer in enumerate(place.slate):
            probability = msgspec.UNSET if not stated else 1.0 if drawn is None else drawn[at]
            treatment, codes = treatment_for(treatments[offer], channel, locale), reasons[at] if reasons else ()
            offer_id = catalogue[offer].offer_id
            ranked.append(
                RankedOffer(at + 1, offer_id, scores[at], propensities[at], treatment, codes, name, probability)
            )
    return ranked


def _degraded(case: Case, row_read: bool) -> tuple[str, ...]:
    """Return why the answer is less than it could be."""
    reasons: tuple[str, ...] = () if row_read else (FEATURES_UNAVAILABLE,)
    if row_read and case.deciding.freshness.stale(case.row.event_times, case.seconds):
        reasons = (FEATURES_STALE,)
    if case.contacts is None or case.sticky_unknown:
        reasons += (CONTACTS_UNAVAILABLE,)
    return reasons


def _arms(assigned: Assigned) -> tuple[GivenArm, ...]:
    """Return the arms of the unit, as frontends get them."""
    return tuple(
        [
            GivenArm(assignment.experiment, assignment.arm, assignment.probability or 0.0, assignment.reason)
            for assignment in assigned.assignments
            if assignment.arm
        ]
    )


def _reasons(case: Case, best: Positions) -> list[tuple[str, ...]]:
    """Return the reason codes of the offers shown: those whose column is above zero."""
    snapshot = case.deciding
    codes: list[list[str]] = [[] for _ in best]
    row, chosen = case.scored_row, case.considered.positions
    for name, code in snapshot.reasons:
        values = snapshot.layout.column(
            name, row, snapshot.everyone, snapshot.offer_values, case.pairs, chosen, case.seconds
        )
        for place, at in enumerate(best):
            if values[at] > 0 and code not in codes[place]:
                codes[place].append(code)
    return [tuple(found) for found in codes]


def _expiry(snapshot: Snapshot, shown: list[int], now: Micros) -> str:
    """Return until when an answer is good: as long as the workspace says, never beyond an offer that it shows; whole
    seconds.
    """
    end = now + snapshot.answer_microseconds
    for offer in shown:
        until = snapshot.catalogue.offers[offer].valid_until
        if until is not None and until < end:
            end = until
    return _second(end // MICROSECONDS)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Return a whole second as RFC 3339: answers of the same second share it."""
    return rfc3339(seconds * MICROSECONDS)

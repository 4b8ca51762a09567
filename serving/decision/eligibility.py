"""The step that finds what may be shown: validity, placement, exclusions, rules, quiet hours, contact history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from serving.conditions.bitsets import mask_of
from serving.decision.case import Case, DecisionInputs, Trail
from serving.decision.withholding import open_case
from serving.state.offer_sets import offer_set


def consider(case: Case) -> None:
    """Find the offers that may be shown at each placement, and so those that are scored."""
    snapshot = case.deciding
    catalogue, hub = snapshot.catalogue, snapshot.hub
    case.truths = hub.rules.truths(case.row, snapshot.everyone, case.context, case.seconds)
    excluded = scored = 0
    for offer_id in case.request.exclude:
        position = catalogue.index.get(offer_id)
        if position is not None:
            excluded |= 1 << position
    for place in case.places:
        name = place.name
        valid = snapshot.valid_offers(name, case.now)
        shown, spare, trail = valid.shown.bits, hub.fallbacks[name], None
        if case.traced:
            trail = place.trail = [("valid", valid.valid), ("placement", shown)]
        # What may fill the rest is asked about together with what belongs here: asking twice costs twice.
        left = _narrowed(case, name, shown | valid.valid & hub.fallback_sets[name], excluded, trail)
        place.allowed = left & shown
        scored |= left
        if spare:
            place.fallback = tuple([offer for offer in spare if left >> offer & 1])
        if trail is not None:
            place.trail = [(step, offers & shown if at > 1 else offers) for at, (step, offers) in enumerate(trail)]
    case.considered = valid.shown if scored == shown else offer_set(scored, len(catalogue))


def _narrowed(case: Case, placement: str, offers: int, excluded: int, trail: Trail | None) -> int:
    """Leave out what the request, a rule, the hour or the contact history keeps away; return what is left."""
    hub = case.deciding.hub
    if excluded:
        offers &= ~excluded
        if trail is not None:
            trail.append(("not_excluded", offers))
    if case.truths is not None:
        offers = hub.rules.allowed(offers, placement, case.truths, case.notes, trail)
    kept_away = (
        hub.quiet.fallen(placement, case.channel, case.row, case.context, case.seconds) if hub.quiet.hours else []
    )
    if hub.contacting.needed:
        kept_away = [*kept_away, *hub.contacting.fallen(case.contacts, placement, case.channel, case.seconds)]
    for name, fallen in kept_away:
        if offers & fallen:
            offers &= ~fallen
            if trail is not None:
                trail.append((name, offers))
    return offers


def eligible(inputs: DecisionInputs) -> NDArray[np.bool_]:
    """Return which offers may be shown at the request's placements, one truth an offer of the catalogue.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    case = open_case(inputs)
    consider(case)
    union = 0
    for place in case.places:
        union |= place.allowed
    return mask_of(union, len(inputs.serving.catalogue))

"""The case of one request: what is known, step by step, on the way to a decision. Explanations look at it
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.aggregates.partitions import fnv1a
from features.columns.rows import OnlineRow
from features.common.moments import Micros, Seconds, in_seconds
from features.common.types import OFFERS_CONSIDERED, ContextValue, DecisionRequest
from features.config.schema import Placement
from features.events.journal import considered_of
from serving.assignment.assignment import Assigned, Units
from serving.assignment.experiments import ExperimentStates
from serving.conditions.bitsets import mask_of
from serving.hub.consent import NOTHING_SAID, Said, Withheld, without
from serving.hub.exploration import Explorer
from serving.hub.request_check import channel_of, check_request
from serving.hub.rules import Truths
from serving.hub.slate import Answer, PlacementRequest, fill
from serving.kernel import top_k
from serving.state.snapshot import Snapshot

Positions = NDArray[np.int32]
Floats = NDArray[np.float64]
Trail = list[tuple[str, int]]
"""Steps that left offers out, each with the offers that were left over, as a set: bit i is offer i of the catalogue."""

NOT_ASKED = Units()
ORDERED_EXTRA = 24
"""Where offers bind each other, so many more than wanted are ordered at first, and all only when those do not fill a
slate.
"""


@dataclass(slots=True, eq=False)
class PlacementCase:
    """One placement that a request asks for; what follows `placement` is set step by step."""

    name: str
    placement: Placement
    allowed: int = field(init=False)
    """Offers that may be shown here, as a set."""
    fallback: tuple[int, ...] = ()
    """Offers that may fill what is left."""
    trail: Trail | None = None
    """Kept where the case is traced."""
    weights: Floats | None = field(init=False)
    """Context weights of the scored; None where all are 1."""
    priorities: Floats | None = None
    """What orders the scored offers."""
    slate: list[int] = field(init=False)
    """Positions in the catalogue, in the order in which they are shown."""
    best: Positions = field(init=False)
    """The same as places among the scored."""
    propensities: Floats = field(init=False)
    """Calibrated, of the slate."""
    scores: Floats = field(init=False)
    """Priorities of the slate, as answers show them."""
    probabilities: Floats | None = None
    """With which each of the slate is drawn to its place; None where nothing is drawn."""

    def drop(self, offers: int, why: str) -> None:
        """Leave offers out."""
        if self.allowed & offers:
            self.allowed &= ~offers
            if self.trail is not None:
                self.trail.append((why, self.allowed))
        if self.fallback:
            self.fallback = tuple(at for at in self.fallback if not offers >> at & 1)


@dataclass(slots=True, eq=False)
class Case:
    """A request held against `Snapshot`, then each step's result."""

    request: DecisionRequest
    unit: str
    """Whose case it is: the request's, or the customer whom its anonymous id was linked to."""
    loaded: Snapshot
    row: OnlineRow
    """Without what is withheld."""
    contacts: bytes | None
    """The contact history; None when it could not be read, or the ledger did not answer."""
    context: dict[str, ContextValue]
    now: Micros
    channel: str
    places: list[PlacementCase]
    """In the order asked."""
    withheld: Withheld | None
    notes: dict[str, None]
    """Reason codes of rules that kept offers away, in order."""
    traced: bool = False
    """Whether each place keeps its trail: for explanations and simulations."""
    truths: Truths | None = None
    scored: int = 0
    chosen: Positions = field(init=False)
    """The offers of `scored`, ascending."""
    seconds: Seconds = field(init=False)
    """`now`, as what computes with it takes it."""
    considered: tuple[int, bytes] = field(init=False)
    """The same as the journal writes them."""
    shared: Floats = field(init=False)
    pairs: Floats = field(init=False)
    raw: Floats = field(init=False)
    trials: ExperimentStates[Snapshot] = field(init=False)
    """Those of the state that serves, whichever decides."""
    units: Units = NOT_ASKED
    assigned: Assigned | None = None
    """Arms and group; None where the workspace has no experiments that run, and no groups."""
    unkept: bool = False
    """Whether sticky assignments could not be read, or written down."""
    propensities: Floats | None = None
    """Of the scored; None while only those shown need be calibrated."""

    def __post_init__(self) -> None:
        self.seconds = in_seconds(self.now)

    @property
    def used(self) -> OnlineRow:
        """The row that scores and priorities look at: in the holdout that of nobody."""
        return self.row if self.loaded.hub.logic.personal else self.loaded.layout.plan.nobody()

    def try_out(self, units: Units, assigned: Assigned, state: Snapshot) -> None:
        """Decide as the arms, or the group, of the unit say."""
        self.trials, self.units, self.assigned = self.loaded.trials, units, assigned
        if state is not self.loaded:
            self.loaded = state
            for place in self.places:
                place.placement = state.workspace.offers.placements[place.name]

    def keep(self) -> None:
        """Copy what lies in the scratch memory of `Snapshot`: for a case that waits while others are decided."""
        self.shared = self.shared.copy()
        if self.truths is not None and self.traced:
            self.truths = self.truths._replace(pairs=self.truths.pairs.copy())

    def among(self, offers: list[int]) -> Positions:
        """Return where offers of the catalogue stand among the scored."""
        return np.searchsorted(self.chosen, offers).astype(np.int32)

    def propensities_of(self, best: Positions) -> Floats:
        """Calibrated propensities of some of the scored."""
        return self.loaded.calibrate(self.raw[best]) if self.propensities is None else self.propensities[best]

    def shown(self) -> list[int]:
        """Positions of all offers shown, in the order of the answer."""
        return (
            self.places[0].slate if len(self.places) == 1 else [offer for place in self.places for offer in place.slate]
        )


def opened(
    request: DecisionRequest,
    loaded: Snapshot,
    row: OnlineRow | None,
    contacts: bytes | None,
    now: Micros,
    unit: str = "",
    said: Said | None = NOTHING_SAID,
) -> Case:
    """Return a request held against the workspace, and what of the customer may be used for it.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    places = [PlacementCase(name, placement) for name, placement in check_request(loaded.workspace, request)]
    known, context = row if row is not None else loaded.layout.plan.nobody(), request.context
    withheld = loaded.hub.purposes.withheld(known, request.purposes, said, in_seconds(now))
    if withheld is not None:
        known, context = withheld.row(known), without(context, withheld.context)
    channel = channel_of(loaded.workspace, context)
    return Case(
        request,
        unit or request.unit,
        loaded,
        known,
        contacts,
        context,
        now,
        channel,
        places,
        withheld,
        {},
        request.explain,
    )


def consider(case: Case) -> None:
    """Which offers may be shown at each placement, and so which are scored."""
    loaded = case.loaded
    case.truths = loaded.hub.rules.truths(case.row, loaded.everyone, case.context, case.seconds)
    excluded = 0
    for offer_id in case.request.exclude:
        at = loaded.catalogue.index.get(offer_id)
        if at is not None:
            excluded |= 1 << at
    for place in case.places:
        standing = loaded.standing(place.name, case.now)
        spare, trail = loaded.hub.fallbacks[place.name], None
        if case.traced:
            trail = place.trail = [("valid", standing.valid), ("placement", standing.bits)]
        # What may fill the rest is asked about together with what belongs here: asking twice costs twice.
        asked = standing.bits | standing.valid & loaded.hub.fallback_sets[place.name]
        left = _narrowed(case, place.name, asked, excluded, trail)
        place.allowed = left & standing.bits
        case.scored |= left
        if spare:
            place.fallback = tuple(at for at in spare if left >> at & 1)
        if trail is not None:
            place.trail = [
                (step, offers & standing.bits if at > 1 else offers) for at, (step, offers) in enumerate(trail)
            ]
    if case.scored == standing.bits:
        case.chosen, case.considered = standing.positions, standing.considered
    else:
        mask = mask_of(case.scored, len(loaded.catalogue))
        case.chosen = mask.nonzero()[0].astype(np.int32)
        case.considered = considered_of(mask, case.chosen)


def _narrowed(case: Case, placement: str, offers: int, excluded: int, trail: Trail | None) -> int:
    """Leave out what the request, a rule, the hour or the contact history keeps away."""
    hub = case.loaded.hub
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


def score(case: Case) -> None:
    """The raw score of every offer that may be shown anywhere."""
    loaded, chosen, seconds = case.loaded, case.chosen, case.seconds
    layout, context = loaded.layout, {**case.context, OFFERS_CONSIDERED: len(case.chosen)}
    row = case.used
    case.shared = layout.shared_values(row, context, seconds)
    matched = None if case.truths is None or row is not case.row else loaded.hub.rules.matched(case.truths)
    case.pairs = layout.pair_values(row, loaded.everyone, loaded.offer_values, chosen, seconds, matched)
    case.raw = np.empty(len(chosen))
    loaded.kernel.score(case.shared, loaded.table, chosen, case.pairs, case.raw)


def arrange(case: Case) -> None:
    """Fill the slates of all placements by priority: no offer twice, and none that may not be shown any more."""
    hub, seed, answer = case.loaded.hub, fnv1a(case.unit), None
    for place in case.places:
        if place.priorities is None:
            place.priorities = _priorities(case, place)
        limit = case.request.limit or place.placement.limit
        if hub.explorer is not None:
            answer = _drawn(case, place, limit, hub.explorer, answer or Answer())
        elif len(case.places) == 1 and place.name in hub.free and place.allowed == case.scored:
            place.best = top_k.best(place.priorities, case.loaded.draws, case.chosen, seed, limit)
            place.slate = case.chosen[place.best].tolist()
        else:
            answer = _filled(case, place, limit, seed, answer or Answer())
        place.propensities = case.propensities_of(place.best)
        place.scores = (
            hub.arbiter.scaled(place.propensities) if place.priorities is case.raw else place.priorities[place.best]
        )


def _filled(case: Case, place: PlacementCase, limit: int, seed: int, answer: Answer) -> Answer:
    """Fill one slate where offers bind each other; returns what is shown so far, with it."""
    assert place.priorities is not None
    wanted = PlacementRequest(limit, place.placement.per_category, place.placement.per_group, place.fallback)
    many = limit + ORDERED_EXTRA
    while True:
        best = top_k.best(place.priorities, case.loaded.draws, case.chosen, seed, many)
        order = [at for at in case.chosen[best].tolist() if place.allowed >> at & 1]
        trial, whole = answer.copy(), many >= len(case.chosen)
        place.slate = fill(wanted, order, place.allowed, case.loaded.hub.ties, trial, whole)
        if len(place.slate) == limit or whole:
            break
        many = len(case.chosen)
    place.best = case.among(place.slate)
    return trial


def _drawn(case: Case, place: PlacementCase, limit: int, explorer: Explorer, answer: Answer) -> Answer:
    """Draw one slate; returns what is shown so far, with it."""
    assert place.priorities is not None
    wanted = PlacementRequest(limit, place.placement.per_category, place.placement.per_group, place.fallback)
    live = mask_of(place.allowed, len(case.loaded.catalogue))[case.chosen]
    seed = explorer.seed(case.unit, place.name, case.now)
    drawn = explorer.draw(
        place.priorities, case.chosen, live, wanted, place.allowed, case.loaded.hub.ties, answer, seed
    )
    place.slate, place.probabilities = drawn.offers, drawn.probabilities
    place.best = case.among(place.slate)
    return drawn.answer


def _priorities(case: Case, place: PlacementCase) -> Floats:
    """Return what orders the scored offers at a placement. The raw score, where nothing but the propensity counts: it
    orders alike.
    """
    loaded, place.weights = case.loaded, None
    hub = loaded.hub
    if case.truths is not None:
        place.weights = hub.rules.context_weights(place.name, case.truths, case.chosen)
    if place.weights is None and hub.arbiter.by_propensity and hub.explorer is None:
        return case.raw
    if case.propensities is None:
        case.propensities = loaded.calibrate(case.raw)
    propensities = np.ones(len(case.raw)) if hub.logic.blind else case.propensities
    return hub.arbiter.priorities(
        propensities, place.weights, case.chosen, case.used, loaded.everyone, case.context, case.seconds
    )

"""The case of one request: what is known, step by step, on the way to a decision. Explanations look at it afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.buckets import fnv1a
from features.formats import Placement
from features.moments import MICROSECONDS
from features.online import OnlineRow
from features.vocabulary import OFFERS_CONSIDERED, ContextValue, DecisionRequest
from serving import ranking
from serving.asked import channel_of, check_request
from serving.condition_values import positions_of
from serving.loaded import Loaded
from serving.rules import Truths
from serving.slate import Answer, Wanted, fill
from serving.withheld import Withheld, without

Positions = NDArray[np.int32]
Floats = NDArray[np.float64]
Trail = list[tuple[str, int]]
"""Steps that left offers out, each with the offers that were left over, as a set: bit i is offer i of the catalogue."""

ORDERED_EXTRA = 24
"""Where offers bind each other, so many more than wanted are ordered at first, and all only when those do not fill a slate."""


@dataclass(slots=True)
class Case:
    """A request held against `Loaded`, then each step's result."""

    request: DecisionRequest
    loaded: Loaded
    row: OnlineRow
    """Without what is withheld."""
    contacts: bytes | None
    """The contact history; None when it could not be read, or the ledger did not answer."""
    context: dict[str, ContextValue]
    now: int
    channel: str
    placements: dict[str, Placement]
    withheld: Withheld | None
    truths: Truths | None = None
    allowed: dict[str, int] = field(default_factory=dict)
    """Offers that may be shown, as a set, by placement."""
    fallback: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Offers that may fill what is left of a placement."""
    trails: dict[str, Trail] = field(default_factory=dict)
    """Kept for explanations only."""
    notes: dict[str, None] = field(default_factory=dict)
    """Reason codes of rules that kept offers away, in order."""
    scored: int = 0
    chosen: Positions = field(default_factory=lambda: np.empty(0, np.int32))
    """The offers of `scored`, ascending."""
    shared: Floats = field(default_factory=lambda: np.empty(0))
    pairs: Floats = field(default_factory=lambda: np.empty((0, 0)))
    raw: Floats = field(default_factory=lambda: np.empty(0))
    propensities: Floats | None = None
    """Of the scored; None while only those shown need be calibrated."""
    weights: dict[str, Floats | None] = field(default_factory=dict)
    """Context weights of the scored, by placement; None where all are 1."""
    priorities: dict[str, Floats] = field(default_factory=dict)
    """What orders the scored offers, by placement."""
    slates: dict[str, list[int]] = field(default_factory=dict)
    """Positions in the catalogue, in the order in which they are shown."""

    @property
    def seconds(self) -> float:
        return self.now / MICROSECONDS

    def by_propensity(self, placement: str) -> bool:
        """Whether the raw score orders a placement, since nothing but the propensity counts."""
        return self.priorities[placement] is self.raw

    def places(self, offers: list[int] | Positions) -> Positions:
        """Where offers of the catalogue stand among the scored."""
        return np.searchsorted(self.chosen, offers).astype(np.int32)

    def propensities_of(self, best: Positions) -> Floats:
        """Calibrated propensities of some of the scored."""
        return self.loaded.calibrate(self.raw[best]) if self.propensities is None else self.propensities[best]

    def drop(self, placement: str, offer: int, why: str) -> None:
        """Leave one offer out of a placement."""
        self.drop_all(placement, 1 << offer, why)

    def drop_all(self, placement: str, offers: int, why: str) -> None:
        """Leave offers out of a placement."""
        if self.allowed[placement] & offers:
            self.allowed[placement] &= ~offers
            if placement in self.trails:
                self.trails[placement].append((why, self.allowed[placement]))
        if placement in self.fallback:
            self.fallback[placement] = tuple(at for at in self.fallback[placement] if not offers >> at & 1)


def opened(request: DecisionRequest, loaded: Loaded, row: OnlineRow | None, contacts: bytes | None, now: int) -> Case:
    """A request held against the workspace, and what of the customer may be used for it.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    placements = check_request(loaded.workspace, request)
    known, context = row if row is not None else loaded.layout.plan.nobody(), request.context
    withheld = loaded.hub.purposes.withheld(known, request.purposes)
    if withheld is not None:
        known, context = withheld.row(known), without(context, withheld.context)
    return Case(request, loaded, known, contacts, context, now, channel_of(loaded.workspace, context), placements, withheld)


def consider(case: Case) -> None:
    """Which offers may be shown at each placement, and so which are scored."""
    loaded = case.loaded
    case.truths = loaded.hub.rules.truths(case.row, loaded.everyone, case.context, case.seconds)
    excluded = sum(1 << at for offer_id in set(case.request.exclude) if (at := loaded.catalogue.index.get(offer_id)) is not None)
    for name in case.placements:
        standing = loaded.standing(name, case.now)
        if case.request.explain:
            case.trails[name] = [("valid", standing.valid), ("placement", standing.bits)]
        offers = case.allowed[name] = _narrowed(case, name, standing.bits, excluded, case.trails.get(name))
        case.scored |= offers
        spare = loaded.hub.fallbacks[name]
        if spare:
            left = _narrowed(case, name, standing.valid & sum(1 << at for at in spare), excluded, None)
            case.fallback[name] = tuple(at for at in spare if left >> at & 1)
            case.scored |= left
    alone = loaded.standing(next(iter(case.placements)), case.now)
    case.chosen = alone.positions if case.scored == alone.bits else positions_of(case.scored, len(loaded.catalogue))


def _narrowed(case: Case, placement: str, offers: int, excluded: int, trail: Trail | None) -> int:
    """Leave out what the request, a rule, the hour or the contact history keeps away."""
    hub, before = case.loaded.hub, offers
    if excluded:
        offers &= ~excluded
        if trail is not None:
            trail.append(("not_excluded", offers))
    offers = hub.rules.allowed(offers, placement, case.truths, case.notes, trail)
    kept_away = hub.quiet.fallen(placement, case.channel, case.row, case.context, case.seconds)
    if hub.contacting.needed:
        kept_away = [*kept_away, *hub.contacting.fallen(case.contacts, placement, case.channel, case.seconds)]
    for name, fallen in kept_away:
        before, offers = offers, offers & ~fallen
        if trail is not None and before != offers:
            trail.append((name, offers))
    return offers


def score(case: Case) -> None:
    """The raw score of every offer that may be shown anywhere."""
    loaded, chosen, seconds = case.loaded, case.chosen, case.seconds
    layout, context = loaded.layout, {**case.context, OFFERS_CONSIDERED: len(case.chosen)}
    case.shared = layout.shared_values(case.row, context, seconds)
    case.pairs = layout.pair_values(case.row, loaded.everyone, loaded.offer_values, chosen, seconds)
    case.raw = np.empty(len(chosen))
    loaded.kernel.score(case.shared, loaded.table, chosen, case.pairs, case.raw)


def arrange(case: Case) -> None:
    """Fill the slates of all placements by priority: no offer twice, and none that may not be shown any more."""
    ties, seed, answer = case.loaded.hub.ties, fnv1a(case.request.customer_id), Answer()
    for name, placement in case.placements.items():
        if name not in case.priorities:
            case.priorities[name] = _priorities(case, name)
        limit = case.request.limit or placement.limit
        wanted = Wanted(name, limit, placement.per_category, placement.per_group, case.fallback.get(name, ()))
        if len(case.placements) == 1 and wanted.free and ties.none and case.allowed[name] == case.scored:
            case.slates[name] = _ordered(case, name, seed, limit)
            continue
        many = limit + ORDERED_EXTRA
        while True:
            trial, allowed = answer.copy(), case.allowed[name]
            slate = fill(wanted, [at for at in _ordered(case, name, seed, many) if allowed >> at & 1], ties, trial)
            if len(slate) == limit or many >= len(case.chosen):
                break
            many = len(case.chosen)
        answer, case.slates[name] = trial, slate


def _ordered(case: Case, placement: str, seed: int, many: int) -> list[int]:
    best = ranking.best(case.priorities[placement], case.loaded.draws, case.chosen, seed, many)
    found: list[int] = case.chosen[best].tolist()
    return found


def _priorities(case: Case, placement: str) -> Floats:
    """What orders the scored offers at a placement. The raw score, where nothing but the propensity counts: it orders alike."""
    loaded = case.loaded
    hub = loaded.hub
    weights = case.weights[placement] = hub.rules.context_weights(placement, case.truths, case.chosen)
    if weights is None and hub.arbiter.by_propensity:
        return case.raw
    if case.propensities is None:
        case.propensities = loaded.calibrate(case.raw)
    return hub.arbiter.priorities(case.propensities, weights, case.chosen, case.row, loaded.everyone, case.context, case.seconds)

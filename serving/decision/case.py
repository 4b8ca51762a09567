"""The data of one decision: what it is made from, and a case that each step fills in. Explanations look at it
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.columns.rows import OnlineRow
from features.common.moments import Micros, Seconds
from features.common.types import ContextValue, DecisionRequest
from features.config.offers_file import Placement
from features.events.journal import Line
from serving.assignment.assignment import Assigned, Units
from serving.hub.consent import Withheld
from serving.hub.rules import Truths
from serving.state.customer import CustomerState
from serving.state.offer_sets import OfferSet
from serving.state.snapshot import Snapshot

Positions = NDArray[np.int32]
Floats = NDArray[np.float64]
Trail = list[tuple[str, int]]
"""Steps that left offers out, each with the offers that were left over, as a set: bit i is offer i of the catalogue."""

NO_UNITS = Units()


class DecisionInputs(Struct, frozen=True):
    """What a decision is made from, and who is told of it.

    A Struct, since it is made for every decision: it takes a sixth of the time of a NamedTuple or a dataclass.
    """

    request: DecisionRequest
    serving: Snapshot
    """The state that serves; an experiment or a group may let another one decide."""
    customer: CustomerState
    now: Micros
    decision_id: str = ""
    """Empty for a new one."""
    stages: list[int] | None = None
    """Takes the nanoseconds of `STAGES[1:]`; may hold those of the first."""
    record: Callable[[Line], object] | None = None
    """Takes the line of the journal, before the answer is returned."""
    inspect: Callable[[Case], object] | None = None
    """Takes the decided case, with the trail of each place; for simulation."""


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
    """None unless the case is traced."""
    weights: Floats | None = field(init=False)
    """Context weights of the scored; None where all are 1."""
    priorities: Floats | None = None
    """What orders the scored offers."""
    slate: list[int] = field(init=False)
    """Positions in the catalogue, in the order in which they are shown."""
    best: Positions = field(init=False)
    """The slate as places among the scored."""
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
            self.fallback = tuple([offer for offer in self.fallback if not offers >> offer & 1])


@dataclass(slots=True, eq=False)
class Case:
    """A request held against the state that serves, then the result of each step."""

    request: DecisionRequest
    unit: str
    """Whose case it is: the request's, or the customer to whom its anonymous id was linked."""
    serving: Snapshot
    """The state that serves: its experiments say who decides."""
    deciding: Snapshot
    """The state that decides: the one that serves, or that of the unit's arms or group."""
    row: OnlineRow
    """Without what is withheld."""
    contacts: bytes | None
    """The contact history; None when it could not be read, or the ledger did not answer."""
    context: dict[str, ContextValue]
    now: Micros
    seconds: Seconds
    """`now` in seconds."""
    channel: str
    places: list[PlacementCase]
    """In the order asked."""
    withheld: Withheld | None
    notes: dict[str, None]
    """Reason codes of rules that kept offers away, in order."""
    traced: bool = False
    """Whether each place keeps its trail: for explanations and simulations."""
    truths: Truths | None = None
    considered: OfferSet = field(init=False)
    """Offers that may be shown at some placement: those that are scored."""
    scored_row: OnlineRow = field(init=False)
    """The row that scores and priorities look at: in the holdout that of an unknown customer."""
    shared: Floats = field(init=False)
    """Columns of customer and context, shape (shared,)."""
    pairs: Floats = field(init=False)
    """Columns of customer with offer, shape (scored, pair columns)."""
    raw: Floats = field(init=False)
    """Raw scores, shape (scored,)."""
    units: Units = NO_UNITS
    assigned: Assigned | None = None
    """Arms and group; None where the workspace has no experiments that run, and no groups."""
    sticky_unknown: bool = False
    """Whether sticky assignments could not be read, or written down."""
    propensities: Floats | None = None
    """Of the scored; None while only those shown need be calibrated."""

    def decide_by(self, snapshot: Snapshot) -> None:
        """Let another state than the serving one decide from here on."""
        self.deciding = snapshot
        for place in self.places:
            place.placement = snapshot.workspace.offers.placements[place.name]

    def copy_scratch(self) -> None:
        """Copy what lies in scratch memory of the snapshot: for a case that waits while others are decided."""
        self.shared = self.shared.copy()
        if self.truths is not None and self.traced:
            self.truths = self.truths._replace(pairs=self.truths.pairs.copy())

    def among(self, offers: list[int]) -> Positions:
        """Return where offers of the catalogue stand among the scored."""
        return np.searchsorted(self.considered.positions, offers).astype(np.int32)

    def propensities_of(self, best: Positions) -> Floats:
        """Return the calibrated propensities of some of the scored."""
        return self.deciding.calibrate(self.raw[best]) if self.propensities is None else self.propensities[best]

    def shown(self) -> list[int]:
        """Return the positions of all offers shown, in the order of the answer."""
        return (
            self.places[0].slate if len(self.places) == 1 else [offer for place in self.places for offer in place.slate]
        )

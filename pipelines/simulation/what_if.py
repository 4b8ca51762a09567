"""What if: the same requests decided under two states of the files, and what differs. Plain values in, plain values
out.

Nothing is taken in the ledger: limits are held against each customer's contact history as it was read, budgets and
stock are not looked at. What a decision is expected to be worth is the sum, over what it shows, of propensity times
value; the model's propensity is that of an offer alone, so offers shown together are taken to be independent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from features.columns.rows import OnlineRow
from features.common.moments import Micros
from features.common.types import DecisionRequest
from features.contact_history.takes import Take
from features.contact_history.updates import taken
from features.ledger.recent import Known
from serving.decision.case import Case, DecisionInputs
from serving.decision.decide import decide
from serving.decision.effects import Effect, EffectResult, grant
from serving.state.customer import customer_state
from serving.state.snapshot import Snapshot

CHANGES_LISTED_MAX = 1_000
"""Changed decisions that a report lists one by one; it counts them all."""
NORMAL_95 = 1.959963984540054
"""Quantile of the normal distribution for a 95 % interval."""
SIMULATED = "simulated"


class Tried(NamedTuple):
    """One decision on one side."""

    slates: tuple[tuple[str, tuple[str, ...]], ...]
    """Each placement with the offers shown, in their order."""
    worth: float
    """Sum of propensity times value of what is shown, in the workspace's currency."""
    left_out: dict[str, int]
    """Each step that left offers out, with how many."""

    @property
    def shown(self) -> list[str]:
        """The offers of all placements."""
        return [offer for _, offers in self.slates for offer in offers]


class Share(Struct, frozen=True):
    """How often an offer is shown."""

    offer_id: str
    before: int
    after: int


class ChangedStep(Struct, frozen=True):
    """How often a rule, limit, pause, quiet hour or other step leaves offers out: in so many decisions, so many offers
    in all.
    """

    step: str
    decisions_before: int
    decisions_after: int
    offers_before: int
    offers_after: int


class ExpectedWorth(Struct, frozen=True):
    """What all decisions together are expected to be worth. The 95 % interval of the difference is None for a single
    customer.
    """

    before: float
    after: float
    difference: float
    low: float | None
    high: float | None


class ChangedDecision(Struct, frozen=True):
    """A decision that would show something else."""

    customer_id: str
    placement: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class PolicyComparison(Struct, frozen=True):
    """What differs between the two sides."""

    decisions: int
    customers: int
    changed: int
    """Decisions that show something else, or in another order."""
    changed_offers: int
    """Of those, the ones that show other offers, in whatever order."""
    changed_first: int
    """Of those, the ones that show another offer first."""
    changed_customers: int
    empty_before: int
    """Decisions that show nothing."""
    empty_after: int
    worth: ExpectedWorth
    offers: list[Share] = field(default_factory=list)
    """By how much they change, then by how often they are shown."""
    steps: list[ChangedStep] = field(default_factory=list)
    """In the order of what they leave out, the most first."""
    changes: list[ChangedDecision] = field(default_factory=list)


def tried(request: DecisionRequest, loaded: Snapshot, row: OnlineRow, found: Known, now: Micros) -> Tried:
    """Decide as the server would, taking nothing.

    Args:
        row: as the store has it, of whom `found` is about.
        found: contact history and what is new, as they were read.
        now: microseconds since 1970.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    cases: list[Case] = []
    stored = dict.fromkeys((found.unit, request.unit), found.recent.kept)
    sticky = loaded.experiment_states.sticky_arms(stored, found.unit, request)
    customer = customer_state(row, found, request.unit, loaded.fold, now)
    customer = msgspec.structs.replace(customer, sticky=sticky)

    def run(effect: Effect) -> EffectResult:
        return taken(found.contacts, effect)[0] if isinstance(effect, Take) else grant(effect)

    decide(DecisionInputs(request, loaded, customer, now, SIMULATED, inspect=cases.append), run)
    case, ids, values = cases[0], loaded.catalogue.offers, loaded.hub.arbiter.values
    slates = tuple((place.name, tuple(ids[at].offer_id for at in place.slate)) for place in case.places)
    worth = sum(float(place.propensities @ values[place.slate]) for place in case.places if place.slate)
    return Tried(slates, worth, _left_out(case))


def _left_out(case: Case) -> dict[str, int]:
    found: Counter[str] = Counter()
    for place in case.places:
        left = (1 << len(case.deciding.catalogue)) - 1
        for step, after in place.trail or ():
            fallen = (left & ~after).bit_count()
            if fallen:
                found[step] += fallen
            left = after
    return dict(found)


def compare(pairs: Iterable[tuple[str, Tried, Tried]]) -> PolicyComparison:
    """Return what differs, over decisions given as customer, before, after."""
    given = list(pairs)
    changed = [(customer, before, after) for customer, before, after in given if before.slates != after.slates]
    listed = [
        ChangedDecision(customer, placement, one, other)
        for customer, before, after in changed
        for (placement, one), (_, other) in zip(before.slates, after.slates, strict=True)
        if one != other
    ]
    return PolicyComparison(
        decisions=len(given),
        customers=len({customer for customer, *_ in given}),
        changed=len(changed),
        changed_offers=sum(sorted(before.shown) != sorted(after.shown) for _, before, after in changed),
        changed_first=sum(before.shown[:1] != after.shown[:1] for _, before, after in changed),
        changed_customers=len({customer for customer, *_ in changed}),
        empty_before=sum(not before.shown for _, before, _ in given),
        empty_after=sum(not after.shown for *_, after in given),
        worth=_worth(given),
        offers=_shares(given),
        steps=_steps(given),
        changes=listed[:CHANGES_LISTED_MAX],
    )


def _shares(given: list[tuple[str, Tried, Tried]]) -> list[Share]:
    before = Counter(offer for _, one, _ in given for offer in one.shown)
    after = Counter(offer for *_, one in given for offer in one.shown)
    found = [Share(offer, before[offer], after[offer]) for offer in before | after]
    return sorted(found, key=lambda one: (-abs(one.after - one.before), -one.before - one.after, one.offer_id))


def _steps(given: list[tuple[str, Tried, Tried]]) -> list[ChangedStep]:
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for _, *sides in given:
        for side, one in enumerate(sides):
            for step, fallen in one.left_out.items():
                found[step][side] += 1
                found[step][2 + side] += fallen
    steps = [ChangedStep(step, *counts) for step, counts in found.items()]
    return sorted(steps, key=lambda one: (-max(one.offers_before, one.offers_after), one.step))


def _worth(given: list[tuple[str, Tried, Tried]]) -> ExpectedWorth:
    """With an interval that holds where decisions of one customer are alike: customers, not decisions, are the sample.

    The variance of a total of n decisions of m customers is m / (m - 1) times the sum, over customers, of the squared
    sum of what their decisions are above the mean (the linearized ratio estimator of cluster samples).
    """
    before, after = sum(one.worth for _, one, _ in given), sum(one.worth for *_, one in given)
    difference = after - before
    mean = difference / max(len(given), 1)
    above: dict[str, float] = defaultdict(float)
    for customer, one, other in given:
        above[customer] += other.worth - one.worth - mean
    count = len(above)
    if count < 2:
        return ExpectedWorth(before, after, difference, None, None)
    margin = NORMAL_95 * sqrt(count / (count - 1) * sum(value * value for value in above.values()))
    return ExpectedWorth(before, after, difference, difference - margin, difference + margin)

"""One decision: which offers, in which order. A function of plain values; the clock and the customer's row are
arguments.

Replay, simulation, the command line, tests and the server call this same code. Chance comes from a hash of the request,
never from the process: the same request, row, contact history and `Snapshot` give the same answer.

Where limits are in play, contacts and budgets of a slate must be taken in the ledger before it is shown, which may need
a round trip: `deciding` is a generator that asks and goes on with what was granted. `decide` runs it where nothing need
be waited for.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import lru_cache
from time import perf_counter_ns
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.columns.rows import OnlineRow
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS, rfc3339
from features.common.types import Decision, DecisionRequest, GivenArm, RankedOffer
from features.events.journal import Line
from features.ledger.budgets import BudgetBound, Fell, Moment
from features.ledger.history import CHOSEN_MAX, GRANTED, Take, TakeResult
from features.ledger.recent import KeptArm
from serving.assignment.assignment import NOBODY, Assigned, Kept
from serving.assignment.experiments import PendingAssignments
from serving.conditions.bitsets import mask_of
from serving.decision.case import Case, arrange, consider, opened, score
from serving.decision.explain import why
from serving.decision.record import written
from serving.hub.consent import NOTHING_SAID, Said
from serving.hub.request_check import locale_of
from serving.state.snapshot import Snapshot

FEATURES_UNAVAILABLE, FEATURES_STALE, CONTACTS_UNAVAILABLE = (
    "features_unavailable",
    "features_stale",
    "contacts_unavailable",
)
DEGRADED = (FEATURES_UNAVAILABLE, FEATURES_STALE, CONTACTS_UNAVAILABLE)
"""Every reason for which an answer may be less than it could be."""

STAGES = ("read", "eligible", "score", "rank", "record")
"""Timed parts of a decision, in order; `read` is timed by the caller."""

TAKES_MAX = 8
"""How often other candidates step in for offers whose limit fell; then the answer goes without limited offers."""

BUDGETS_EACH_MAX = 2
"""Budgets of one offer: of its shows, and of its stock."""

_worker = secrets.token_hex(4)
_count = itertools.count(1)


class Reserve(NamedTuple):
    """Asks for one show of each offer out of its budget: all, or none and which budgets fell."""

    budgets: list[BudgetBound]
    moment: Moment


class GiveBack(NamedTuple):
    """Undoes what was reserved: the offers are not shown after all."""

    offers: list[int]
    moment: Moment


class Settle(NamedTuple):
    """Asks for sticky assignments to be written down; what holds is given, by experiment."""

    wanted: Sequence[PendingAssignments]


Asked = Reserve | GiveBack | Take | Settle
Given = list[Fell] | TakeResult | Mapping[str, KeptArm] | None
"""None: the ledger did not say in time, and nothing that is limited may be shown."""
Taking = Generator[Asked, Given, None]


def decide(
    request: DecisionRequest,
    loaded: Snapshot,
    row: OnlineRow | None,
    now: Micros,
    stages: list[int] | None = None,
    decision_id: str | None = None,
    record: Callable[[Line], object] | None = None,
    contacts: bytes | None = b"",
    take: Callable[[Asked], Given] | None = None,
    look: Callable[[Case], object] | None = None,
    unit: str = "",
    said: Said | None = NOTHING_SAID,
    kept: Mapping[str, Kept] | None = NOBODY,
) -> Decision:
    """Answer one request; see `deciding`.

    Args:
        take: takes contacts and budgets at once; None takes none and grants all, for replay and simulation.
    """
    steps = deciding(request, loaded, row, now, stages, decision_id, record, contacts, look, unit, said, kept)
    try:
        asked = next(steps)
        while True:
            asked = steps.send(granted(asked) if take is None else take(asked))
    except StopIteration as done:
        decision: Decision = done.value
        return decision


def deciding(
    request: DecisionRequest,
    loaded: Snapshot,
    row: OnlineRow | None,
    now: Micros,
    stages: list[int] | None = None,
    decision_id: str | None = None,
    record: Callable[[Line], object] | None = None,
    contacts: bytes | None = b"",
    look: Callable[[Case], object] | None = None,
    unit: str = "",
    said: Said | None = NOTHING_SAID,
    kept: Mapping[str, Kept] | None = NOBODY,
) -> Generator[Asked, Given, Decision]:
    """Answer one request, asking for the contacts that it needs.

    Args:
        row: what the online store knows of the customer; None when it could not be read.
        now: microseconds since 1970.
        stages: takes the nanoseconds of `STAGES[1:]`; may hold those of the first.
        contacts: the customer's contact history; None when it could not be read.
        look: told the case once it is decided, with the trail of each place; for simulation.
        unit: whom the request is about, where its anonymous id was linked to a customer; the request's own when empty.
        said: what the customer allows, by events; None when it could not be read.
        kept: sticky assignments, by experiment; None when they could not be read.

    Raises:
        UnknownPlacement, BadContext, BadRequest: the request does not fit the workspace.
    """
    begin = perf_counter_ns()
    case = opened(request, loaded, row, contacts, now, unit, said)
    case.traced |= look is not None
    if loaded.trials.active:
        yield from _assign(case, kept)
    consider(case)
    eligible_at = perf_counter_ns()
    score(case)
    scored_at = perf_counter_ns()
    name = decision_id or f"{now:x}-{_worker}-{next(_count):x}"
    arrange(case)
    if case.loaded.hub.contacting.limits:
        case.keep()
        yield from _take(case, name)
    decision = _answered(case, name, row is not None)
    ranked_at = perf_counter_ns()
    if record is not None:
        record(written(case, decision, (ranked_at - begin + sum(stages or ())) // 1_000))
    if look is not None:
        look(case)
    if stages is not None:
        done = perf_counter_ns()
        stages += [eligible_at - begin, scored_at - eligible_at, ranked_at - scored_at, done - ranked_at]
    return decision


def _assign(case: Case, kept: Mapping[str, Kept] | None) -> Taking:
    """Find the arms of the unit, and go on with what decides there; new sticky ones are written down first."""
    trials = case.loaded.trials
    units = trials.units(case.request, case.unit, case.row, case.context, case.seconds)
    assigned = trials.assigned(units, case.row, case.context, kept or NOBODY, case.now)
    if trials.sticky:
        case.unkept = kept is None
        wanted = [] if kept is None else trials.wanted(units, assigned, kept)
        if wanted:
            stored = yield Settle(wanted)
            if isinstance(stored, Mapping):
                assigned = trials.settled(assigned, stored)
            else:
                case.unkept = True
    case.try_out(units, assigned, trials.state(assigned))


def granted(asked: Asked) -> Given:
    """Return the answer of a ledger that bounds nothing."""
    if isinstance(asked, Take):
        return TakeResult((GRANTED,) * len(asked.contacts))
    if isinstance(asked, Settle):
        return {}
    return [""] * len(asked.budgets) if isinstance(asked, Reserve) else None


def _take(case: Case, decision_id: str) -> Taking:
    """Take what the slates need, budgets before contacts; where a limit fell, the next candidates step in."""
    contacting = case.loaded.hub.contacting
    for _ in range(TAKES_MAX):
        _bound_take(case)
        shown = [(place, offer) for place in case.places for offer in place.slate]
        budgets = [budget for _, offer in shown for budget in contacting.budgets(offer)]
        if budgets:
            reserve = Reserve(budgets, contacting.moment(case.seconds))
            fell = yield reserve
            if not isinstance(fell, list):
                break
            if any(fell):
                spent = {budget.offer: which for budget, which in zip(budgets, fell, strict=True) if which}
                for place, offer in shown:
                    for budget in contacting.budgets(offer):
                        if budget.offer in spent:
                            place.drop(1 << offer, contacting.name_of_budget(budget, spent[budget.offer]))
                arrange(case)
                continue
        limited = [
            (*one, contact)
            for one in shown
            if (contact := contacting.limited(one[1], one[0].name, case.channel)) is not None
        ]
        if not limited:
            return
        taken = yield contacting.take(case.unit, decision_id, case.seconds, [contact for *_, contact in limited])
        if isinstance(taken, TakeResult) and taken.granted:
            return
        if budgets:
            yield GiveBack([budget.offer for budget in budgets], reserve.moment)
        if not isinstance(taken, TakeResult):
            break
        fits = sum(1 << offer for (_, offer, _), limit in zip(limited, taken.fell, strict=True) if limit == GRANTED)
        for (_, offer, _), limit in zip(limited, taken.fell, strict=True):
            if limit != GRANTED:
                for place in case.places:
                    place.drop(
                        contacting.beyond(limit, offer, place.name, case.channel) & ~fits, contacting.name_of(limit)
                    )
        arrange(case)
    else:
        _without_limited(case, "limits that fell again and again")
        return
    case.contacts = None
    _without_limited(case, "contact history")


def _bound_take(case: Case) -> None:
    """Leave out, from the last placement up, the limited offers that one take has no room for."""
    if len(case.shown()) * BUDGETS_EACH_MAX <= CHOSEN_MAX:
        return
    contacting, contacts, budgets, full = case.loaded.hub.contacting, 0, 0, False
    for place in case.places:
        limited, kept = contacting.concerned(place.name, case.channel), 0
        for offer in place.slate:
            if limited >> offer & 1 and not full:
                contacts, budgets = contacts + 1, budgets + len(contacting.budgets(offer))
                full = max(contacts, budgets) > CHOSEN_MAX
                kept |= 0 if full else 1 << offer
        if full:
            place.drop(limited & ~kept, "more limited offers than one answer may have")
    if full:
        arrange(case)


def _without_limited(case: Case, why: str) -> None:
    """Drop every offer that has a limit or a budget."""
    for place in case.places:
        place.drop(case.loaded.hub.contacting.concerned(place.name, case.channel), why)
    arrange(case)


def unknown_row(loaded: Snapshot) -> OnlineRow:
    """Return the row of a customer of whom nothing is known."""
    return loaded.layout.plan.nobody()


def eligible(
    request: DecisionRequest, loaded: Snapshot, row: OnlineRow, now: Micros, contacts: bytes | None = b""
) -> NDArray[np.bool_]:
    """Return which offers may be offered at the request's placements, one truth a catalogue entry."""
    case = opened(request, loaded, row, contacts, now)
    consider(case)
    union = 0
    for place in case.places:
        union |= place.allowed
    return mask_of(union, len(loaded.catalogue))


def _answered(case: Case, decision_id: str, read: bool) -> Decision:
    """Return the answer, as frontends get it."""
    loaded, request, now = case.loaded, case.request, case.now
    catalogue, locale, several = (
        loaded.catalogue,
        locale_of(loaded.workspace, case.context),
        request.placements is not None,
    )
    offers: list[RankedOffer] = []
    stated = case.assigned is not None or loaded.hub.explorer is not None
    for place in case.places:
        propensities = place.propensities.tolist()
        scores = propensities if place.scores is place.propensities else place.scores.tolist()
        reasons = _reasons(case, place.best) if loaded.reasons else None
        name = place.name if several else msgspec.UNSET
        drawn = None if place.probabilities is None else place.probabilities.tolist()
        for at, offer in enumerate(place.slate):
            probability = msgspec.UNSET if not stated else 1.0 if drawn is None else drawn[at]
            treatment, why_this = loaded.treatment(offer, case.channel, locale), reasons[at] if reasons else ()
            offer_id = catalogue.offers[offer].offer_id
            offers.append(
                RankedOffer(at + 1, offer_id, scores[at], propensities[at], treatment, why_this, name, probability)
            )
    degraded: tuple[str, ...] = () if read else (FEATURES_UNAVAILABLE,)
    if read and loaded.freshness.stale(case.row.event_times, case.seconds):
        degraded = (FEATURES_STALE,)
    if case.contacts is None or case.unkept:
        degraded += (CONTACTS_UNAVAILABLE,)
    return Decision(
        decision_id=decision_id,
        customer_id=request.customer_id,
        placement=",".join([place.name for place in case.places]),
        offers=offers,
        model=loaded.stamp,
        degraded=degraded,
        considered=len(case.chosen),
        expires_at=_expiry(loaded, case.shown(), now),
        config=loaded.hub.config,
        withheld=() if case.withheld is None else case.withheld.names,
        notes=tuple(case.notes),
        explanation=msgspec.UNSET if not request.explain else why(case),
        experiments=msgspec.UNSET if case.assigned is None else _arms(case.assigned),
        group=msgspec.UNSET if case.assigned is None else case.assigned.group.name,
    )


def _arms(assigned: Assigned) -> tuple[GivenArm, ...]:
    """Return the arms of the unit, as frontends get them."""
    return tuple(
        [
            GivenArm(one.experiment, one.arm, one.probability or 0.0, one.reason)
            for one in assigned.assignments
            if one.arm
        ]
    )


def _reasons(case: Case, best: NDArray[np.int32]) -> list[tuple[str, ...]]:
    """Reason codes of the offers shown: those whose column is above zero."""
    loaded = case.loaded
    codes: list[list[str]] = [[] for _ in best]
    for name, code in loaded.reasons:
        values = loaded.layout.column(
            name, case.used, loaded.everyone, loaded.offer_values, case.pairs, case.chosen, case.seconds
        )
        for place, at in enumerate(best):
            if values[at] > 0 and code not in codes[place]:
                codes[place].append(code)
    return [tuple(found) for found in codes]


def _expiry(loaded: Snapshot, shown: list[int], now: Micros) -> str:
    """Return until when an answer is good: as long as the workspace says, never beyond an offer that it shows; whole
    seconds.
    """
    end = now + loaded.answer_microseconds
    for offer in shown:
        until = loaded.catalogue.offers[offer].valid_until
        if until is not None and until < end:
            end = until
    return _second(end // MICROSECONDS)


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """RFC 3339 of a whole second: answers of the same second share it."""
    return rfc3339(seconds * MICROSECONDS)

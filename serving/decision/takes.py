"""The step that takes: budgets, then contacts of a slate, all or none, before it is shown. Where a limit is exhausted
the next candidates step in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from features.contact_history.limits import Contact
from features.contact_history.takes import CHOSEN_MAX, GRANTED, TakeResult
from features.ledger.budgets import BudgetBound, Fell
from serving.decision.case import Case, PlacementCase
from serving.decision.effects import Effects, GiveBack, Reserve
from serving.decision.slates import arrange

TAKES_MAX = 8
"""How often other candidates step in for offers whose limit is exhausted; then the answer goes without limited offers.
"""

BUDGETS_EACH_MAX = 2
"""Budgets of one offer: of its shows, and of its stock."""


class _Shown(NamedTuple):
    place: PlacementCase
    offer: int


class _Limited(NamedTuple):
    offer: int
    contact: Contact
    """What must be taken before the offer is shown."""


def take(case: Case, decision_id: str) -> Effects:
    """Take what the slates need, budgets before contacts, and arrange them again without what is exhausted."""
    contacting = case.deciding.hub.contacting
    for _ in range(TAKES_MAX):
        _fit_one_take(case)
        shown = [_Shown(place, offer) for place in case.places for offer in place.slate]
        budgets = [budget for _, offer in shown for budget in contacting.budgets(offer)]
        if budgets:
            reserve = Reserve(budgets, contacting.moment(case.seconds))
            exhausted = yield reserve
            if not isinstance(exhausted, list):
                break
            if any(exhausted):
                _drop_spent(case, shown, budgets, exhausted)
                arrange(case)
                continue
        limited = [
            _Limited(offer, contact)
            for place, offer in shown
            if (contact := contacting.limited(offer, place.name, case.channel)) is not None
        ]
        if not limited:
            return
        taken = yield contacting.take(case.unit, decision_id, case.seconds, [contact for _, contact in limited])
        if isinstance(taken, TakeResult) and taken.granted:
            return
        if budgets:
            yield GiveBack([budget.offer for budget in budgets], reserve.moment)
        if not isinstance(taken, TakeResult):
            break
        _drop_exhausted(case, limited, taken)
        arrange(case)
    else:
        _drop_limited(case, "limits that fell again and again")
        return
    case.contacts = None
    _drop_limited(case, "contact history")


def _drop_spent(case: Case, shown: Sequence[_Shown], budgets: Sequence[BudgetBound], exhausted: Sequence[Fell]) -> None:
    """Drop the offers that have a budget that is exhausted."""
    contacting = case.deciding.hub.contacting
    spent = {budget.offer: which for budget, which in zip(budgets, exhausted, strict=True) if which}
    for place, offer in shown:
        for budget in contacting.budgets(offer):
            if budget.offer in spent:
                place.drop(1 << offer, contacting.name_of_budget(budget, spent[budget.offer]))


def _drop_exhausted(case: Case, limited: Sequence[_Limited], taken: TakeResult) -> None:
    """Drop the offers that a take had no room for, and those that are counted with them."""
    contacting = case.deciding.hub.contacting
    fits = sum(1 << offer for (offer, _), limit in zip(limited, taken.fell, strict=True) if limit == GRANTED)
    for (offer, _), limit in zip(limited, taken.fell, strict=True):
        if limit != GRANTED:
            for place in case.places:
                counted = contacting.beyond(limit, offer, place.name, case.channel)
                place.drop(counted & ~fits, contacting.name_of(limit))


def _fit_one_take(case: Case) -> None:
    """Drop, from the last placement up, the limited offers that one take has no room for."""
    if len(case.shown()) * BUDGETS_EACH_MAX <= CHOSEN_MAX:
        return
    contacting, contacts, budgets, full = case.deciding.hub.contacting, 0, 0, False
    for place in case.places:
        limited, fitting = contacting.concerned(place.name, case.channel), 0
        for offer in place.slate:
            if limited >> offer & 1 and not full:
                contacts, budgets = contacts + 1, budgets + len(contacting.budgets(offer))
                full = max(contacts, budgets) > CHOSEN_MAX
                fitting |= 0 if full else 1 << offer
        if full:
            place.drop(limited & ~fitting, "more limited offers than one answer may have")
    if full:
        arrange(case)


def _drop_limited(case: Case, why: str) -> None:
    """Drop every offer that has a limit or a budget, and arrange the slates again."""
    for place in case.places:
        place.drop(case.deciding.hub.contacting.concerned(place.name, case.channel), why)
    arrange(case)

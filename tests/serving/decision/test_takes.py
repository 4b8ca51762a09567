"""What the ledger refuses steps out of the slate for the next best, and budgets are taken with it or given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.common.types import Budget
from features.contact_history.history import key_of
from features.contact_history.takes import CHOSEN_MAX, GRANTED, Take, TakeResult
from features.events.journal import Line
from features.ledger.ledger import open_ledger
from serving.decision.answer import CONTACTS_UNAVAILABLE
from serving.decision.case import DecisionInputs
from serving.decision.decide import deciding
from serving.decision.effects import Effect, EffectResult, GiveBack, Reserve, grant
from serving.decision.takes import TAKES_MAX
from serving.hub.contact_policy import STOCK
from serving.state.customer import CustomerState
from tests.serving import hubs
from tests.serving.contacts import NOW, OFFERS, FakeLedger
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, shown

BY_VALUE = {"arbitration": {"formula": "value"}}


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def falling(*offers: str) -> Callable[[int], bool]:
    return {key_of(one) for one in offers}.__contains__


def test_next_candidate_steps_in_where_a_limit_fell(made: Hubs) -> None:
    """What the ledger refuses is left out and the next best asked for, until all that is shown was granted at once; why
    is told.
    """
    loaded = made.make(BY_VALUE | {"limits": {"two": {"max": 2, "window": "7d"}}}, OFFERS, {"home": {"limit": 2}})
    ledger = FakeLedger(falling("o0", "o2"))
    answer = decide(asked(explain=True), loaded, made.row(), NOW, take=ledger, decision_id="d")
    assert shown(answer) == ["o1", "o3"]
    takes = [[contact.offer for contact in take.contacts] for take in ledger.of(Take)]
    assert takes == [[key_of(one) for one in pair] for pair in (("o0", "o1"), ("o1", "o2"), ("o1", "o3"))]
    assert {take.decision for take in ledger.of(Take)} == {key_of("d")}
    assert isinstance(answer.explanation, dict)
    stopped = {one["offer_id"]: one["stopped_by"] for one in answer.explanation["placements"]["home"]["not_shown"]}
    assert (stopped["o0"], stopped["o2"], stopped["o4"]) == ("limit two", "limit two", "rank")
    assert answer.degraded == ()


def test_bundle_goes_when_one_of_it_fell(made: Hubs) -> None:
    """Where the ledger refuses one offer of a bundle, the others are not shown either."""
    policies = BY_VALUE | {"limits": {"two": {"max": 2, "window": "7d"}}}
    loaded = made.make(policies, OFFERS, {"home": {"limit": 3}}, {"pair": ["o0", "o4"]})
    assert shown(decide(asked(), loaded, made.row(), NOW, take=grant)) == ["o0", "o4", "o1"]
    assert shown(decide(asked(), loaded, made.row(), NOW, take=FakeLedger(falling("o4")))) == ["o1", "o2", "o3"]


def test_ledger_that_never_grants_comes_to_an_end(made: Hubs) -> None:
    """After so many attempts the answer goes without limited offers, is asked for no more, and is not degraded: the
    ledger did answer.
    """
    many = [hubs.offer(at, value=float(100 - at), group="free" if at > 30 else "sales") for at in range(34)]
    loaded = made.make(
        BY_VALUE | {"limits": {"all": {"max": 1, "window": "1d", "groups": ["sales"]}}}, many, {"home": {"limit": 3}}
    )
    ledger = FakeLedger(lambda _: True)
    answer = decide(asked(), loaded, made.row(), NOW, take=ledger)
    assert (shown(answer), answer.degraded, len(ledger.asked)) == (["o31", "o32", "o33"], (), TAKES_MAX)


def test_what_is_counted_together_falls_together(made: Hubs) -> None:
    """Where there is room for two contacts of any offer, two limited offers are shown and others fill the rest, after
    one refusal.
    """
    many = [hubs.offer(at, value=float(100 - at), group="free" if at > 30 else "sales") for at in range(34)]
    limits = {"limits": {"any": {"max": 2, "window": "1d", "per": "any", "groups": ["sales"]}}}
    loaded = made.make(BY_VALUE | limits, many, {"home": {"limit": 4}})

    def two(asked: Effect) -> EffectResult:
        assert isinstance(asked, Take)
        return TakeResult(tuple([GRANTED if at < 2 else 0 for at in range(len(asked.contacts))]))

    ledger = Counted(two)
    assert shown(decide(asked(), loaded, made.row(), NOW, take=ledger)) == ["o0", "o1", "o31", "o32"]
    assert ledger.times == 2


class Counted:
    """A ledger that answers as a function says, and counts."""

    def __init__(self, answer: Callable[[Effect], EffectResult]) -> None:
        self.answer, self.times = answer, 0

    def __call__(self, asked: Effect) -> EffectResult:
        self.times += 1
        return self.answer(asked)


BUDGETED = [
    msgspec.structs.replace(OFFERS[0], budget=Budget(daily=1)),
    msgspec.structs.replace(OFFERS[1], budget=Budget(lifetime=5, stock=2)),
    msgspec.structs.replace(OFFERS[2], budget=Budget(stock=1)),
    *OFFERS[3:],
]


def test_budgets_are_taken_with_the_slate(made: Hubs) -> None:
    """Shows and stock of an offer are two budgets; what is used up is left out for the next best, and told by its
    name.
    """
    loaded = made.make(BY_VALUE, BUDGETED, {"home": {"limit": 3}})
    ledger = FakeLedger(spent={"o0": "daily", STOCK + "o1": "lifetime"})
    answer = decide(asked(explain=True), loaded, made.row(), NOW, take=ledger)
    assert shown(answer) == ["o2", "o3", "o4"]
    first = ledger.of(Reserve)[0]
    assert [(budget.offer, budget.daily_max, budget.lifetime_max) for budget in first.budgets] == [
        (key_of("o0"), 1.0, float("inf")),
        (key_of("o1"), float("inf"), 5.0),
        (key_of(STOCK + "o1"), float("inf"), 2.0),
        (key_of(STOCK + "o2"), float("inf"), 1.0),
    ]
    assert not ledger.of(GiveBack)
    assert isinstance(answer.explanation, dict)
    stopped = {one["offer_id"]: one["stopped_by"] for one in answer.explanation["placements"]["home"]["not_shown"]}
    assert (stopped["o0"], stopped["o1"]) == ("budget daily", "budget stock")
    away = decide(asked(), loaded, made.row(), NOW, take=FakeLedger(away=Reserve))
    assert (shown(away), away.degraded) == (["o3", "o4", "o5"], (CONTACTS_UNAVAILABLE,))


@pytest.mark.parametrize("away", [None, Take])
def test_budgets_are_given_back_where_contacts_fell(made: Hubs, away: type | None) -> None:
    """What was reserved for a slate that is not shown is given back, each budget once and for the same moment."""
    loaded = made.make(
        BY_VALUE | {"limits": {"two": {"max": 2, "window": "7d", "groups": ["sales", "service"]}}},
        BUDGETED,
        {"home": {"limit": 2}},
    )
    ledger = FakeLedger(falling("o0"), away=away)
    answer = decide(asked(), loaded, made.row(), NOW, take=ledger)
    assert shown(answer) == (["o1", "o2"] if away is None else ["o5"])
    reserved = [budget.offer for one in ledger.of(Reserve) for budget in one.budgets]
    back = [offer for one in ledger.of(GiveBack) for offer in one.offers]
    kept = [key_of("o1"), key_of(STOCK + "o1"), key_of(STOCK + "o2")] if away is None else []
    assert sorted(reserved) == sorted(back + kept)
    assert {one.moment for one in ledger.of(GiveBack)} == {one.moment for one in ledger.of(Reserve)}


@pytest.mark.parametrize("zone", ["Europe/Vienna", "Pacific/Norfolk", "Pacific/Kiritimati", "Pacific/Midway"])
def test_day_of_a_budget_is_that_of_the_calendar(made: Hubs, zone: str) -> None:
    """The day goes up by one at each midnight of the workspace's zone, also where clocks change between 11 and 12 hours
    before UTC.
    """
    contacting = made.make({}, BUDGETED, time_zone=zone).hub.contacting
    days = [contacting.moment(NOON + 3_600 * hour).day for hour in range(24 * 366)]
    steps = [after - before for before, after in pairwise(days)]
    assert set(steps) == {0, 1} and sum(steps) in (365, 366)


def test_more_limited_offers_than_one_take_holds(made: Hubs) -> None:
    """Several long placements of limited offers with two budgets each: the answer keeps as many as one take has room
    for, and all else.
    """
    offers = [hubs.offer(at, value=float(1_000 - at), group="free" if at % 4 == 0 else "sales") for at in range(120)]
    offers = [msgspec.structs.replace(o, budget=Budget(daily=9, stock=9)) if o.group == "sales" else o for o in offers]
    loaded = made.make(BY_VALUE | {"limits": {"one": {"max": 1, "window": "1d", "groups": ["sales"]}}}, offers)
    ledger = FakeLedger()
    answer = decide(asked(None, placements=["home", "bill"]), loaded, made.row(), NOW, take=ledger)
    groups = [loaded.catalogue.offers[loaded.catalogue.index[one.offer_id]].group for one in answer.offers]
    assert groups.count("sales") == CHOSEN_MAX // 2
    assert groups.count("free") == 30
    assert all(len(one.budgets) <= CHOSEN_MAX for one in ledger.of(Reserve)) and all(
        one.packed() for one in ledger.of(Take)
    )


def test_limit_is_never_exceeded_with_a_real_ledger(made: Hubs, tmp_path: Path) -> None:
    """Over many decisions of one customer no offer, no group and no channel gets more than its limit, and everything
    that may be shown is.
    """
    limits = {
        "offer": {"max": 3, "window": "7d", "count": "decisions"},
        "sales": {"max": 4, "window": "7d", "per": "group", "groups": ["sales"], "count": "decisions"},
        "app": {"max": 5, "window": "7d", "per": "any", "channel": "app", "count": "decisions", "placements": ["home"]},
    }
    loaded = made.make(BY_VALUE | {"limits": limits}, BUDGETED, {"home": {"limit": 2}, "bill": {"limit": 1}})
    ledger = open_ledger(None, tmp_path / "ledger", 50, "test")

    def take(asked: Effect) -> EffectResult:
        if isinstance(asked, Take):
            return ledger.take_now(asked)
        assert isinstance(asked, Reserve)  # LMDB grants budgets and contacts at once: nothing is ever given back here
        return ledger.take_budgets_now(asked.budgets, asked.moment)

    seen: list[tuple[str, str]] = []
    for number in range(24):
        channel = ("app", "web")[number % 2]
        contacts = (
            b"" if number % 3 else ledger.read_now("436600000")
        )  # an old history is no harm: the word that counts is the take's
        request = asked(None, placements=["home", "bill"], context={"channel": channel})
        answer = decide(request, loaded, made.row(), NOW + number, take=take, contacts=contacts)
        seen += [(one, channel) for one in shown(answer)]
    ledger.close()
    times = {o.offer_id: sum(one == o.offer_id for one, _ in seen) for o in OFFERS}
    assert max(times.values()) <= 3
    assert (times["o0"], times["o1"], times["o2"]) == (1, 2, 1), "daily, stock and stock"
    assert times["o0"] + times["o3"] == 4, "a group's limit"
    assert times["o4"] == times["o5"] == 3, "what may be shown is shown"


def test_decisions_that_wait_do_not_mix(made: Hubs) -> None:
    """While one decision waits for the ledger another one may be made: both answer and journal what they would alone,
    but for how long it took.
    """
    policies = {
        "rules": {"calls": {"unless": "pair.topic_calls_all > 4"}},
        "limits": {"two": {"max": 2, "window": "7d"}},
    }
    loaded = made.make(policies, OFFERS, {"home": {"limit": 2}})
    rows = [
        made.row({"calls.by_topic": {"data": [1.0, 9.0]}}, monthly_fee=5.0, tariff="S"),
        made.row({"calls.by_topic": {"voice": [1.0, 9.0]}}, monthly_fee=50.0, tariff="L", lines=3.0),
    ]

    def begin(at: int, lines: list[Line]) -> Any:
        request = asked(explain=True, context={"hour": at})
        return deciding(
            DecisionInputs(request, loaded, CustomerState(rows[at]), NOW, decision_id=str(at), record=lines.append)
        )

    def end(steps: Any, wanted: Effect) -> bytes:
        try:
            while True:
                wanted = steps.send(grant(wanted))
        except StopIteration as done:
            return msgspec.json.encode(done.value)

    alone: list[Line] = []
    answers = []
    for at in range(2):
        steps = begin(at, alone)
        answers.append(end(steps, next(steps)))
    together: list[Line] = []
    first, second = begin(0, together), begin(1, together)
    waiting = next(first), next(second)
    assert [end(first, waiting[0]), end(second, waiting[1])] == answers
    plain = [[msgspec.structs.replace(line, took_us=None) for line in lines] for lines in (together, alone)]
    assert plain[0] == plain[1]
    assert answers[0] != answers[1] and alone[0].shared != alone[1].shared

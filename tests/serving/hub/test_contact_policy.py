"""Contact limits, pauses, prerequisites and budgets in whole decisions: what the history keeps away, and what the
ledger says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.common.types import Budget, Offer
from features.config.features_file import FeaturesFile
from features.contact_history.history import DECISION, IMPRESSION, OUTCOME, Entry, key_of, word_of
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
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide, eligible
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

NOW = microseconds(NOON)
DAY = 86_400.0
GROUPS = ["sales", "service", ""]
OFFERS = [hubs.offer(at, group=GROUPS[at % 3], value=float(100 - at)) for at in range(6)]
BY_VALUE = {"arbitration": {"formula": "value"}}
CHANNELS = ("app", "web", "shop")


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def entry(
    offer: str,
    days: float,
    kind: int = DECISION,
    channel: str = "web",
    seen: bool = True,
    what: str = "",
    decision: int = 1,
) -> Entry:
    """One entry of a history, so many days ago."""
    group = next((o.group for o in OFFERS if o.offer_id == offer), "")
    word = word_of(what) if what else 0
    return Entry(
        NOON - days * DAY,
        key_of(offer),
        decision,
        key_of(group) if group else 0,
        word_of(channel),
        word,
        10**8,
        kind,
        int(seen),
    )


def history(*found: Entry) -> bytes:
    return b"".join(one.pack() for one in sorted(found, key=lambda one: one.time))


def open_offers(loaded: Snapshot, contacts: bytes | None, placement: str = "home", **context: Any) -> set[str]:
    """What may be shown, where the ledger bounds nothing."""
    return set(
        shown(decide(asked(placement, context=context), loaded, loaded.layout.plan.nobody(), NOW, contacts=contacts))
    )


class FakeLedger:
    """Says what a test wants it to say, and remembers what it was asked."""

    def __init__(
        self,
        falls: Callable[[int], bool] = lambda _: False,
        spent: dict[str, str] | None = None,
        away: type | None = None,
    ) -> None:
        self.falls, self.away, self.asked = falls, away, list[Effect]()
        self.spent = {key_of(name): which for name, which in (spent or {}).items()}

    def __call__(self, asked: Effect) -> EffectResult:
        self.asked.append(asked)
        if self.away is not None and isinstance(asked, self.away):
            return None
        if isinstance(asked, Take):
            return TakeResult(tuple(0 if self.falls(contact.offer) else GRANTED for contact in asked.contacts))
        if isinstance(asked, Reserve):
            return [self.spent.get(budget.offer, "") for budget in asked.budgets]  # type: ignore[misc]
        return None

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.asked if isinstance(one, kind)]


def falling(*offers: str) -> Callable[[int], bool]:
    return {key_of(one) for one in offers}.__contains__


LIMITS = st.fixed_dictionaries(
    {
        "max": st.integers(1, 3),
        "window": st.sampled_from(["1d", "7d", "30d"]),
        "per": st.sampled_from(["offer", "group", "any"]),
        "count": st.sampled_from(["impressions", "decisions"]),
        "channel": st.sampled_from(["any", "each", "app", "web"]),
    },
    optional={
        "groups": st.just(["sales"]),
        "except_groups": st.just(["service"]),
        "offers": st.just(["o0", "o1", "o2"]),
        "placements": st.just(["home"]),
    },
)
CONTACTS = st.lists(
    st.builds(
        entry,
        offer=st.sampled_from(["o0", "o1", "o3", "o5", "gone"]),
        days=st.sampled_from([0.001, 0.5, 3.0, 6.99, 7.0, 29.0, 31.0]),
        kind=st.sampled_from([DECISION, DECISION, IMPRESSION]),
        channel=st.sampled_from(CHANNELS),
        seen=st.booleans(),
        decision=st.integers(1, 2**40),
    ),
    max_size=8,
)


def counted(limit: dict[str, Any], offer: Offer, found: list[Entry], channel: str) -> int:
    """The reference: how many contacts a limit counts for an offer that would be shown in a channel."""
    days = int(limit["window"][:-1])
    only = {"any": None, "each": channel}.get(limit["channel"], limit["channel"])
    count = 0
    for one in found:
        if one.time <= NOON - days * DAY or (only is not None and one.channel != word_of(only)):
            continue
        if (limit["per"] == "offer" and one.offer != key_of(offer.offer_id)) or (
            limit["per"] == "group" and one.group != key_of(offer.group)
        ):
            continue
        held = one.kind == DECISION and one.time > NOON - 1_800  # it may still be seen
        count += (
            one.kind == DECISION if limit["count"] == "decisions" else bool(one.seen) or one.kind == IMPRESSION or held
        )
    return count


def concerns(limit: dict[str, Any], offer: Offer, placement: str, channel: str) -> bool:
    return (
        ("offers" not in limit or offer.offer_id in limit["offers"])
        and ("groups" not in limit or offer.group in limit["groups"])
        and offer.group not in limit.get("except_groups", [])
        and placement in limit.get("placements", [placement])
        and limit["channel"] in ("any", "each", channel)
        and (limit["per"] != "group" or bool(offer.group))
    )


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    limits=st.lists(LIMITS, min_size=1, max_size=3),
    found=CONTACTS,
    placement=st.sampled_from(["home", "bill"]),
    channel=st.sampled_from(CHANNELS),
)
def test_limits_are_those_of_the_reference(
    made: Hubs, limits: list[dict[str, Any]], found: list[Entry], placement: str, channel: str
) -> None:
    """An offer is kept away exactly where some limit that concerns it counts its maximum in the history; without one
    all limited are.
    """
    loaded = made.make({"limits": {f"l{at}": limit for at, limit in enumerate(limits)}}, OFFERS)
    expected = {
        o.offer_id
        for o in OFFERS
        if not any(
            concerns(one, o, placement, channel) and counted(one, o, found, channel) >= one["max"] for one in limits
        )
    }
    assert open_offers(loaded, history(*found), placement, channel=channel) == expected
    unlimited = {o.offer_id for o in OFFERS if not any(concerns(one, o, placement, channel) for one in limits)}
    for ledger in (FakeLedger(away=Take), FakeLedger(lambda _: True)):
        answer = decide(asked(placement, context={"channel": channel}), loaded, made.row(), NOW, take=ledger)
        assert set(shown(answer)) == unlimited
        assert answer.degraded == (
            (CONTACTS_UNAVAILABLE,) if ledger.away and unlimited != {o.offer_id for o in OFFERS} else ()
        )
    answer = decide(asked(placement, context={"channel": channel}), loaded, made.row(), NOW, contacts=None)
    assert (set(shown(answer)), answer.degraded) == (unlimited, (CONTACTS_UNAVAILABLE,))


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    pause=st.fixed_dictionaries(
        {
            "times": st.integers(1, 2),
            "within": st.sampled_from(["1d", "10d"]),
            "pause": st.sampled_from(["2d", "60d"]),
            "per": st.sampled_from(["offer", "group", "any"]),
        },
        optional={"except_groups": st.just(["service"])},
    ),
    outcomes=st.lists(
        st.tuples(
            st.sampled_from(["o0", "o1", "o3", "o5"]),
            st.sampled_from([0.5, 1.2, 5.0, 40.0]),
            st.sampled_from(["dismissal", "click"]),
        ),
        max_size=5,
    ),
)
def test_pauses_are_those_of_the_reference(
    made: Hubs, pause: dict[str, Any], outcomes: list[tuple[str, float, str]]
) -> None:
    """After so many outcomes of a type within a time, what they were about rests; other types and other offers do not
    count.
    """
    loaded = made.make({"pauses": {"p": pause | {"outcome": "dismissal"}}}, OFFERS)
    within, rest = (float(pause[key][:-1]) for key in ("within", "pause"))
    groups = {o.offer_id: o.group for o in OFFERS}
    expected = set()
    for one in OFFERS:
        same = {
            "offer": lambda o, one=one: o == one.offer_id,
            "group": lambda o, one=one: groups[o] == one.group,
            "any": lambda o: True,
        }[pause["per"]]
        days = sorted(day for o, day, what in outcomes if what == "dismissal" and same(o))
        runs = zip(days, days[pause["times"] - 1 :], strict=False)
        rests = any(first - 1e-9 + within >= last and first < rest for first, last in runs)
        if not rests or one.group in pause.get("except_groups", []) or (pause["per"] == "group" and not one.group):
            expected.add(one.offer_id)
    found = history(*(entry(o, day, OUTCOME, what=what) for o, day, what in outcomes))
    assert open_offers(loaded, found) == expected


def test_what_was_accepted_opens_and_closes_offers(made: Hubs) -> None:
    """An offer that requires one of others waits until one was accepted; one that excludes others is gone after; a
    label's outcome counts too.
    """
    offers = [hubs.offer(at) for at in range(5)]
    offers[0] = msgspec.structs.replace(offers[0], requires=("o3", "o4"), excludes=("o2",))
    offers[1] = msgspec.structs.replace(offers[1], excludes=("o3",))
    loaded = made.make({}, offers)
    for found, away in (
        ([], {"o0"}),
        ([entry("o3", 400, OUTCOME, what="accepted")], {"o1"}),
        ([entry("o4", 1, OUTCOME, what="conversion")], set()),
        ([entry("o4", 1, OUTCOME, what="click"), entry("o3", 1)], {"o0"}),
        ([entry("o4", 1, OUTCOME, what="accepted"), entry("o2", 1, OUTCOME, what="accepted")], {"o0"}),
        (None, {"o0", "o1"}),
    ):
        may = eligible(asked(), loaded, made.row(), NOW, None if found is None else history(*found))
        assert {o.offer_id for o, one in zip(offers, may, strict=True) if not one} == away
    assert loaded.hub.contacting.policy.horizon_seconds > 700 * DAY, "an acceptance is remembered"


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


def test_each_channel_counts_by_itself_and_so_does_none(made: Hubs) -> None:
    """A limit of each channel has its own count there; requests that name no channel, where none is the default, are
    one more.
    """
    said = msgspec.to_builtins(made.desk.workspace.features)
    del said["context"]["channel"]["default"]
    policies = {"limits": {"one": {"max": 1, "window": "7d", "channel": "each"}}}
    loaded = made.make(policies, OFFERS, features=msgspec.convert(said, FeaturesFile))
    found = history(entry("o0", 1, channel="app"), entry("o1", 1, channel="any"))
    everything = {o.offer_id for o in OFFERS}
    assert open_offers(loaded, found, channel="app") == everything - {"o0"}
    assert open_offers(loaded, found, channel="web") == everything
    assert open_offers(loaded, found) == everything - {"o1"}
    assert open_offers(loaded, None) == set()


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


def test_without_limits_the_ledger_is_not_asked(made: Hubs) -> None:
    """A workspace without limits and budgets decides at once; that the ledger could not be read is said all the
    same.
    """
    loaded, ledger = (
        made.make({"pauses": {"p": {"outcome": "dismissal", "pause": "1d", "groups": ["nobody"]}}}, OFFERS),
        FakeLedger(),
    )
    assert len(decide(asked(), loaded, made.row(), NOW, take=ledger).offers) == 6
    free = made.make({}, OFFERS)
    assert not free.hub.contacting.needed
    # What is new of the customer stands in the ledger too: an answer without it is less than it could be.
    assert decide(asked(), free, made.row(), NOW, take=ledger, contacts=None).degraded == (CONTACTS_UNAVAILABLE,)
    assert ledger.asked == []

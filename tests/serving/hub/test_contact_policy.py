"""Contact limits, pauses and prerequisites in whole decisions: what the history keeps away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.common.types import Offer
from features.config.features_file import FeaturesFile
from features.contact_history.history import DECISION, IMPRESSION, OUTCOME, Entry, key_of, word_of
from features.contact_history.takes import Take
from serving.decision.answer import CONTACTS_UNAVAILABLE
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.contacts import NOW, OFFERS, FakeLedger
from tests.serving.decisions import decide, eligible
from tests.serving.hubs import NOON, Hubs, asked, shown

DAY = 86_400.0
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

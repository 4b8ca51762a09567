"""The slate: greedy filling against the best of all possible slates, and whole decisions for several placements."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from features.columns.catalogue import Catalogue
from features.common.types import Offer
from serving.decision.slates import ORDERED_EXTRA
from serving.hub.request_check import BadContext, BadRequest, UnknownPlacement
from serving.hub.slate import Answer, PlacementRequest, Ties, fill
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

COUNT = 8
NOW = microseconds(NOON)
NAMES = [f"o{number}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[Offer], list[list[str]]]:
    """Offers with groups, categories and exclusions; and bundles of them, one of which may name an offer that is
    none.
    """
    offers = [
        Offer(
            name,
            group=draw(st.sampled_from(["", "a", "b"])),
            category=draw(st.sampled_from(["", "x", "y", "z"])),
            excludes=tuple(
                draw(
                    st.lists(st.sampled_from([*NAMES, "gone"]).filter(lambda other, own=name: other != own), max_size=1)
                )
            ),
            value=float(100 - draw(st.integers(0, 3)) * 10 - at),
            attributes={"topic": "data", "price": 1.0},
        )
        for at, name in enumerate(NAMES)
    ]
    members = draw(st.permutations([*NAMES, "gone"]))
    sizes = draw(st.lists(st.integers(2, 3), max_size=2))
    ends = list(itertools.accumulate(sizes))
    return offers, [list(members[end - size : end]) for end, size in zip(ends, sizes, strict=True)]


WANTED = st.builds(
    PlacementRequest,
    limit=st.integers(1, 5),
    per_category=st.none() | st.integers(1, 2),
    per_group=st.none() | st.integers(1, 3),
    fallback=st.lists(st.integers(0, COUNT - 1), max_size=3, unique=True).map(tuple),
)
SETS = st.sets(st.integers(0, COUNT - 1), max_size=2)


def best_of_all(
    wanted: PlacementRequest,
    order: list[int],
    allowed: set[int],
    offers: list[Offer],
    bundles: list[list[str]],
    gone: set[int],
) -> list[int]:
    """The reference: of all slates that may be, the one that has the first offer if it can, then the second, and so
    on.
    """
    index = {offer.offer_id: at for at, offer in enumerate(offers)}
    units: list[list[int]] = []
    for at in [*order, *wanted.fallback]:
        together = next(([index.get(one, -1) for one in bundle] for bundle in bundles if NAMES[at] in bundle), [at])
        if not any(at in unit for unit in units):
            units.append([at, *(one for one in together if one != at)])

    def may_be(slate: list[int]) -> bool:
        if (
            len(slate) > wanted.limit
            or not set(slate) <= allowed | set(wanted.fallback)
            or set(slate) & gone
            or len(set(slate)) < len(slate)
        ):
            return False
        shown = [offers[at] for at in slate]
        if any(one.offer_id in other.excludes for one in shown for other in shown):
            return False
        for most, names in (
            (wanted.per_category, [o.category for o in shown]),
            (wanted.per_group, [o.group for o in shown]),
        ):
            if most is not None and any(count > most for name, count in Counter(names).items() if name):
                return False
        return True

    choices = itertools.product([True, False], repeat=len(units))  # the first of them take the first units
    slates = ([at for unit, taken in zip(units, choice, strict=True) if taken for at in unit] for choice in choices)
    return next(slate for slate in slates if may_be(slate))


def excluded_by(shown: set[int], offers: list[Offer]) -> set[int]:
    """Offers that may not stand beside those shown, whichever of the two says so."""
    names = {NAMES[at] for at in shown}
    return {
        at
        for at, one in enumerate(offers)
        if names & set(one.excludes) or any(one.offer_id in offers[s].excludes for s in shown)
    }


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(
    catalogue=catalogues(),
    wanted=WANTED,
    order=st.permutations(range(COUNT)),
    size=st.integers(0, COUNT),
    more=SETS,
    before=SETS,
)
def test_filling_is_the_best_of_all_slates(
    catalogue: tuple[list[Offer], list[list[str]]],
    wanted: PlacementRequest,
    order: list[int],
    size: int,
    more: set[int],
    before: set[int],
) -> None:
    """Filling gives what trying all slates gives: whole bundles side by side, diversity, exclusions both ways,
    fallbacks last, no offer twice.
    """
    offers, bundles = catalogue
    ties, answer, allowed = Ties(Catalogue(offers), bundles), Answer(), set(order[:size]) | more
    for at in sorted(before):
        answer.add(at, ties)
    expected = best_of_all(wanted, order[:size], allowed, offers, bundles, before | excluded_by(before, offers))
    found = fill(wanted, order[:size], sum(1 << at for at in allowed), ties, answer)
    assert found == expected
    assert answer.shown == before | set(found)
    assert answer.excluded >= excluded_by(set(found), offers)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    catalogue=catalogues(),
    first=WANTED,
    second=WANTED,
    groups=st.lists(st.sampled_from(["a", "b"]), max_size=1),
    exclude=SETS,
)
@example(
    catalogue=([Offer(name, value=float(9 - at)) for at, name in enumerate(NAMES)], [["o0", "o1"], ["o2", "o3"]]),
    first=PlacementRequest(3),
    second=PlacementRequest(3, fallback=(0, 7)),
    groups=[],
    exclude=set(),
)
def test_several_placements_choose_one_after_the_other(
    made: Hubs,
    catalogue: tuple[list[Offer], list[list[str]]],
    first: PlacementRequest,
    second: PlacementRequest,
    groups: list[str],
    exclude: set[int],
) -> None:
    """In an answer for several placements each has the best slate of what those before it left; no offer comes
    twice.
    """
    offers, bundles = catalogue
    placements = {
        name: {"limit": one.limit, "fallback": [NAMES[at] for at in one.fallback]}
        | ({} if one.per_category is None else {"per_category": one.per_category})
        | ({} if one.per_group is None else {"per_group": one.per_group})
        for name, one in (("first", first), ("second", second))
    }
    placements["second"]["groups"] = groups
    named = {f"b{at}": bundle for at, bundle in enumerate(bundles)}
    loaded = made.make({"arbitration": {"formula": "value"}}, offers, placements, named)
    answer = decide(
        asked(None, placements=["first", "second"], exclude=[NAMES[at] for at in exclude]), loaded, made.row(), NOW
    )
    order = sorted(range(COUNT), key=lambda at: -offers[at].value)
    before: set[int] = set()
    for name, wanted in (("first", first), ("second", second)):
        allowed = {
            at
            for at in range(COUNT)
            if (name == "first" or not groups or offers[at].group in groups) and at not in exclude
        }
        spare = PlacementRequest(
            wanted.limit,
            wanted.per_category,
            wanted.per_group,
            tuple(at for at in wanted.fallback if at not in exclude),
        )
        gone = before | excluded_by(before, offers)
        expected = best_of_all(spare, [at for at in order if at in allowed], allowed, offers, bundles, gone)
        assert shown(answer, name) == [NAMES[at] for at in expected]
        assert [one.rank for one in answer.offers if one.placement == name] == list(range(1, len(expected) + 1))
        before |= set(expected)
    assert len({one.offer_id for one in answer.offers}) == len(answer.offers)
    assert answer.placement == "first,second"


def many(count: int, **fields: Any) -> list[Offer]:
    """Offers of falling value, all of the same kind."""
    return [hubs.offer(at, value=float(1_000 - at), **fields) for at in range(count)]


def test_better_offers_come_before_fallbacks_however_far_they_stand(made: Hubs) -> None:
    """A fallback fills what no other offer can, even where the offers that fit stand behind more than are ordered at
    first.
    """
    offers = many(3 + ORDERED_EXTRA + 10, category="x")
    offers[-1] = msgspec.structs.replace(offers[-1], category="y")
    offers.append(hubs.offer(99, value=0.0, category="z", placements=("elsewhere",)))
    placements = {"home": {"limit": 2, "per_category": 1, "fallback": ["o99"]}, "elsewhere": {}}
    loaded = made.make({"arbitration": {"formula": "value"}}, offers, placements)
    assert shown(decide(asked(), loaded, made.row(), NOW)) == ["o0", offers[-2].offer_id]
    assert shown(decide(asked(limit=3), loaded, made.row(), NOW)) == ["o0", offers[-2].offer_id, "o99"]


def test_fallbacks_come_in_their_order_and_obey_rules_and_validity(made: Hubs) -> None:
    """Where too little may be shown, fallbacks follow as the placement lists them, but for those that are over,
    excluded or kept away.
    """
    offers = [hubs.offer(at, value=float(at), group="sales" if at < 5 else "spare") for at in range(10)]
    offers[6] = msgspec.structs.replace(offers[6], valid_until=NOW)
    placements = {
        "home": {"limit": 5, "groups": ["sales"], "fallback": ["o9", "o6", "o7", "o8", "o5", "no-such-offer"]}
    }
    rules = {
        "few": {"unless": "offer.value >= 1", "groups": ["sales"]},
        "o7": {"unless": "offer.value >= 0", "offers": ["o7"], "reason": "not_seven"},
    }
    loaded = made.make({"rules": rules, "arbitration": {"formula": "value"}}, offers, placements)
    answer = decide(asked(exclude=["o5"]), loaded, made.row(), NOW)
    assert shown(answer) == ["o0", "o9", "o8"]
    assert answer.notes == ("not_seven",)
    assert answer.considered == 3


def test_bundle_needs_all_its_offers(made: Hubs) -> None:
    """A bundle is shown from its best offer on, side by side; where one member is excluded, ruled out or has no room,
    none is shown.
    """
    offers, bundle = many(6), {"pair": ["o0", "o4"]}
    formula = {"arbitration": {"formula": "value"}}
    whole = made.make(formula, offers, {"home": {"limit": 3}}, bundle)
    assert shown(decide(asked(), whole, made.row(), NOW)) == ["o0", "o4", "o1"]
    assert shown(decide(asked(exclude=["o4"]), whole, made.row(), NOW)) == ["o1", "o2", "o3"]
    assert shown(decide(asked(limit=1), whole, made.row(), NOW)) == ["o1"]
    ruled = made.make(
        formula | {"rules": {"four": {"unless": 'offer.offer_id == "o4"'}}}, offers, {"home": {"limit": 3}}, bundle
    )
    assert shown(decide(asked(), ruled, made.row(), NOW)) == ["o1", "o2", "o3"]
    lost = made.make(formula, offers, {"home": {"limit": 3}}, {"pair": ["o0", "gone"]})
    assert shown(decide(asked(), lost, made.row(), NOW)) == ["o1", "o2", "o3"]


def test_placements_have_channels_and_groups(made: Hubs) -> None:
    """A placement shows its groups only, and is refused to a request from a channel in which it does not exist."""
    offers = [hubs.offer(at, group="service" if at % 2 else "sales") for at in range(6)]
    placements = {"home": {"limit": 9}, "desk": {"limit": 9, "groups": ["service"], "channels": ["shop"]}}
    loaded = made.make({}, offers, placements)
    answer = decide(asked(None, placements=["desk", "home"], context={"channel": "shop"}), loaded, made.row(), NOW)
    assert (set(shown(answer, "desk")), set(shown(answer, "home"))) == ({"o1", "o3", "o5"}, {"o0", "o2", "o4"})
    for context in ({"channel": "app"}, {}):  # web is the default
        with pytest.raises(BadContext, match="expected one of shop, in which placement desk exists"):
            decide(asked(None, placements=["home", "desk"], context=context), loaded, made.row(), NOW)


def test_placements_are_asked_for_in_one_way(made: Hubs) -> None:
    """Either one placement or several, each once and declared; anything else, and words for nobody, are refused with
    what was expected.
    """
    loaded = made.make({}, many(3))
    for fields, error in (
        ({"placement": "home", "placements": ["bill"]}, "either `placement` or `placements`"),
        ({"placements": ["bill", "bill"]}, "each placement once"),
        ({}, "a placement, or several as `placements`"),
        ({"customer_id": "null", "placement": "home"}, "customer_id: expected the id of somebody"),
        ({"anonymous_id": "uNdefined", "placement": "home"}, "anonymous_id: expected the id of somebody"),
    ):
        with pytest.raises(BadRequest, match=error):
            decide(asked(**({"placement": None} | fields)), loaded, made.row(), NOW)
    with pytest.raises(UnknownPlacement):
        decide(asked(None, placements=["home", "nowhere"]), loaded, made.row(), NOW)
    one = decide(asked(None, placements=["home"]), loaded, made.row(), NOW, decision_id="d")
    assert [offer.placement for offer in one.offers] == ["home"] * 3
    assert shown(one) == shown(decide(asked(), loaded, made.row(), NOW))

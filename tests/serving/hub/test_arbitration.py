"""Arbitration: the terms of a priority, custom formulas, ties; each score recomputed from what the answer says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.common.types import Decision
from serving.hub.arbitration import LAST
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

NOW = microseconds(NOON)
GROUPS = ["sales", "service", ""]
LEVERS = st.sampled_from([0.0, 0.5, 1.0, 1.55, 3.0])


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def in_order(decision: Decision) -> bool:
    """Whether scores fall from rank to rank."""
    scores = [one.score for one in decision.offers]
    return scores == sorted(scores, reverse=True)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    values=st.lists(st.sampled_from([0.0, -1.0, 1.0, 5.0, 12.5]), min_size=6, max_size=6),
    units=st.lists(
        st.dictionaries(st.sampled_from(["service", "retention", "fame"]), st.sampled_from([1.0, 2.5])),
        min_size=6,
        max_size=6,
    ),
    worth=st.fixed_dictionaries({}, optional={"service": st.sampled_from([0.0, 4.0]), "retention": st.just(1.5)}),
    levers=st.dictionaries(st.sampled_from(["o0", "o1", "gone"]), LEVERS),
    group_levers=st.dictionaries(st.sampled_from(["sales", "service"]), LEVERS),
    weights=st.lists(st.tuples(st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([True, False, None])), max_size=3),
)
def test_default_formula_is_the_product_of_its_terms(
    made: Hubs,
    values: list[float],
    units: list[dict[str, float]],
    worth: dict[str, float],
    levers: dict[str, float],
    group_levers: dict[str, float],
    weights: list[tuple[float, bool | None]],
) -> None:
    """The priority is propensity x context weights x value with its other kinds x levers of offer and group, and orders
    the answer.
    """
    offers = [hubs.offer(at, value=values[at], values=units[at], group=GROUPS[at % 3]) for at in range(6)]
    columns = {
        True: "context.roaming_now",
        False: "not context.roaming_now",
        None: "customer.business",
    }  # of whom it is not known
    said = {
        f"w{at}": {"when": columns[holds], "weight": weight, "groups": ["sales"]}
        for at, (weight, holds) in enumerate(weights)
    }
    arbitration = {"worth": worth, "offers": levers, "groups": group_levers, "weights": said}
    loaded = made.make({"arbitration": arbitration}, offers)
    answer = decide(asked(context={"roaming_now": True}), loaded, made.row(), NOW)
    assert sorted(shown(answer)) == [o.offer_id for o in offers]
    assert in_order(answer)
    for one in answer.offers:
        at = int(one.offer_id[1:])
        value = values[at] + sum(count * worth.get(kind, 0.0) for kind, count in units[at].items())
        lever = levers.get(one.offer_id, 1.0) * group_levers.get(GROUPS[at % 3], 1.0)
        weight = math.prod(weight for weight, holds in weights if holds) if GROUPS[at % 3] == "sales" else 1.0
        assert one.score == pytest.approx(one.propensity * weight * value * lever, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    "formula", ["propensity * context_weight * value * lever", "propensity", "value", "log(value) + propensity - lever"]
)
@pytest.mark.parametrize("same", [True, False])
def test_scores_are_what_the_formula_says(made: Hubs, formula: str, same: bool) -> None:
    """Each score is the formula of its terms, also where all offers are worth the same and the raw score alone orders
    them.
    """
    offers = [hubs.offer(at, value=5.0 if same else 5.0 + at) for at in range(8)]
    loaded = made.make({"arbitration": {"formula": formula}}, offers)
    answer = decide(asked(explain=True), loaded, made.row(), NOW)
    assert in_order(answer) and len(answer.offers) == 8
    assert isinstance(answer.explanation, dict)
    told = {one["offer_id"]: one for one in answer.explanation["placements"]["home"]["shown"]}
    for one in answer.offers:
        terms = {
            "propensity": one.propensity,
            "value": 5.0 if same else 5.0 + int(one.offer_id[1:]),
            "lever": 1.0,
            "context_weight": 1.0,
        }
        expected = {
            "propensity": terms["propensity"],
            "value": terms["value"],
            "log(value) + propensity - lever": math.log(terms["value"]) + terms["propensity"] - 1.0,
        }.get(formula, math.prod(terms.values()))
        assert one.score == pytest.approx(expected, rel=1e-12)
        assert told[one.offer_id]["priority"] == one.score
        assert {name: told[one.offer_id][name] for name in terms} == pytest.approx(terms)


def test_formula_of_columns(made: Hubs) -> None:
    """A formula may use columns of customer, context, offer and pair; each score is its value for that customer and
    offer.
    """
    formula = (
        "default(pair.topic_calls_all, 0) * 10 + offer.price + (customer.monthly_fee if context.roaming_now else 0)"
    )
    offers = [hubs.offer(at) for at in range(8)]
    loaded = made.make({"arbitration": {"formula": formula}}, offers)
    row = made.row({"calls.by_topic": {"data": [1.0, 2.0], "voice": [0.0, 1.0]}}, monthly_fee=100.0)
    for roaming in (True, False):
        answer = decide(asked(context={"roaming_now": roaming}), loaded, row, NOW)
        calls = {"data": 2.0, "voice": 1.0}
        expected = {
            o.offer_id: 10 * calls.get(str(o.attributes["topic"]), 0.0) + at + 100 * roaming
            for at, o in enumerate(offers)
        }
        assert {one.offer_id: one.score for one in answer.offers} == expected
        assert in_order(answer)


def test_what_a_formula_does_not_know_comes_last(made: Hubs) -> None:
    """An offer for which the formula is unknown is shown after all others, below even negative priorities, with a score
    that JSON can say.
    """
    offers = [hubs.offer(at) for at in range(6)]
    offers[2] = msgspec.structs.replace(offers[2], attributes={"topic": "data"})
    offers[4] = msgspec.structs.replace(offers[4], attributes={"topic": "voice"})
    loaded = made.make({"arbitration": {"formula": "0 - offer.price"}}, offers)
    answer = decide(asked(), loaded, made.row(), NOW)
    assert shown(answer)[:4] == ["o0", "o1", "o3", "o5"]
    assert set(shown(answer)[4:]) == {"o2", "o4"}
    assert [one.score for one in answer.offers[4:]] == [LAST, LAST]
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Decision).offers == answer.offers
    endless = made.make({"arbitration": {"formula": "offer.price * 1e308 * 10"}}, offers)
    scores = [one.score for one in decide(asked(), endless, made.row(), NOW).offers]
    assert all(math.isfinite(score) for score in scores) and scores == sorted(scores, reverse=True)


def test_ties_are_drawn_by_a_hash_and_stay(made: Hubs) -> None:
    """Equal priorities come in an order of the customer's own, the same each time and whatever else is shown."""
    offers = [hubs.offer(at) for at in range(12)]
    for formula in ("value", "value * lever"):
        loaded = made.make({"arbitration": {"formula": formula}}, offers)
        orders: dict[str, list[str]] = {}
        for customer in ("a", "b", "c", "d"):
            order = orders[customer] = shown(decide(asked(customer_id=customer), loaded, made.row(), NOW))
            assert shown(decide(asked(customer_id=customer), loaded, made.row(), NOW + 1)) == order
            assert (
                shown(decide(asked(customer_id=customer, exclude=[order[3]]), loaded, made.row(), NOW))
                == order[:3] + order[4:]
            )
            assert shown(decide(asked(customer_id=customer, limit=2), loaded, made.row(), NOW)) == order[:2]
        assert len({tuple(order) for order in orders.values()}) == 4


def test_diversity_goes_before_priority(made: Hubs) -> None:
    """A placement with one of a category shows the best of each, in the order of their priorities."""
    offers = [
        hubs.offer(at, value=float(100 - at), category="x" if at < 4 else "y" if at < 6 else "") for at in range(8)
    ]
    said: dict[str, Any] = {"home": {"limit": 5, "per_category": 1}}
    loaded = made.make({"arbitration": {"formula": "value"}}, offers, said)
    assert shown(decide(asked(), loaded, made.row(), NOW)) == ["o0", "o4", "o6", "o7"]

"""Rules and context weights of a workspace, through whole decisions, against ten lines that look at one offer at a
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from features.common.types import Offer
from features.config.policies import STAGES
from features.expressions.evaluate import Meaning
from features.workspace.rulebook import read_rules
from serving.decision.case import DecisionInputs
from serving.decision.eligibility import consider
from serving.decision.withholding import open_case
from serving.state.customer import CustomerState
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

NOW = microseconds(NOON)
GROUPS = ["sales", "service", ""]
OFFERS = [
    hubs.offer(number, group=GROUPS[number % 3], placements=("home",) if number == 4 else ()) for number in range(6)
]

ATOMS = [
    "customer.monthly_fee >= 20",
    "customer.lines != 2",
    'customer.tariff in ["S", "XL"]',
    "customer.business",
    "known(customer.monthly_fee)",
    "default(customer.lines, 3) > 2",
    "context.hour < 12",
    'context.channel == "app"',
    "context.roaming_now",
    "offer.price > 2.5",
    'offer.topic in ["data", "voice"]',
    'offer.offer_id != "o3"',
    "pair.topic_calls_all >= 1",
    "customer.monthly_fee > offer.price * 10",
    "pair.topic_calls_30d * 2 > customer.lines",
    "segment.heavy",
]
CONDITIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=4,
)
WHOM = {
    "offers": st.lists(st.sampled_from(["o0", "o1", "o2", "never-heard-of"]), max_size=3, unique=True),
    "groups": st.lists(st.sampled_from(["sales", "service", "nobody"]), max_size=2, unique=True),
    "except_groups": st.lists(st.sampled_from(["sales", "service"]), max_size=1),
    "placements": st.lists(st.sampled_from(["home", "bill"]), max_size=2, unique=True),
}
RULES = st.lists(
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["when", "unless"]), "condition": CONDITIONS, "stage": st.sampled_from(STAGES)},
        optional={**WHOM, "reason": st.sampled_from(["too_young", "not_now"])},
    ),
    max_size=5,
)
CUSTOMERS = st.fixed_dictionaries(
    {
        "monthly_fee": st.sampled_from([None, 5.0, 20.0, 30.0]),
        "lines": st.sampled_from([None, 1, 2, 4]),
        "tariff": st.sampled_from([None, "S", "M"]),
        "business": st.sampled_from([None, True, False]),
    }
)
CALLS = st.none() | st.dictionaries(st.sampled_from(hubs.TOPICS), st.sampled_from([0.0, 1.0, 3.0]), max_size=3)
CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "hour": st.sampled_from([None, 3, 12.5]),
        "channel": st.sampled_from(["app", "shop"]),
        "roaming_now": st.sampled_from([None, True, False]),
    },
)


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def concerns(rule: dict[str, Any], offer: Offer, placement: str) -> bool:
    """Whether a rule speaks of an offer at a placement."""
    return (
        (not rule.get("offers") or offer.offer_id in rule["offers"])
        and (not rule.get("groups") or offer.group in rule["groups"])
        and offer.group not in rule.get("except_groups", [])
        and (not rule.get("placements") or placement in rule["placements"])
    )


def facts(
    offer: Offer, customer: dict[str, Any], calls: dict[str, float] | None, context: dict[str, Any], old: bool
) -> Any:
    """What is known for one offer, from what the test knows, not from a row."""
    found = {f"customer.{name}": None if old else value for name, value in customer.items()}
    found |= {"context.hour": None, "context.roaming_now": None, "context.channel": "web"}
    found |= {f"context.{name}": value for name, value in context.items() if value is not None}
    found |= {
        "offer.offer_id": offer.offer_id,
        "offer.price": offer.attributes["price"],
        "offer.topic": offer.attributes["topic"],
    }
    count = None if calls is None else calls.get(str(offer.attributes["topic"]), 0.0)
    return (found | {"pair.topic_calls_all": count, "pair.topic_calls_30d": count}).__getitem__


def policies_of(rules: list[dict[str, Any]]) -> dict[str, Any]:
    """policies.yaml with these rules, named by their places."""
    said = {
        f"r{at}": {k: v for k, v in rule.items() if k not in ("kind", "condition")} for at, rule in enumerate(rules)
    }
    for at, rule in enumerate(rules):
        said[f"r{at}"][rule["kind"]] = rule["condition"]
    return {"segments": {"heavy": "pair.topic_calls_all >= 3 or customer.lines > 3"}, "rules": said}


def passed(
    loaded: Snapshot, rules: list[dict[str, Any]], placement: str, lookups: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """The reference: which offers pass all rules, and the reason codes of the rules that kept some away."""
    book = read_rules(loaded.workspace.policies, loaded.workspace.features, "EUR")
    roots = {read.name: read.condition.root for read in book.rules}
    left, notes = [o for o in OFFERS if not o.placements or placement in o.placements], dict[str, None]()
    for at in sorted(range(len(rules)), key=lambda at: STAGES.index(rules[at]["stage"])):
        rule = rules[at]
        true = {o.offer_id: Meaning(lookups[o.offer_id]).of(roots[f"r{at}"]) is True for o in left}
        keep = [o for o in left if not concerns(rule, o, placement) or true[o.offer_id] == (rule["kind"] == "when")]
        if len(keep) < len(left) and "reason" in rule:
            notes[rule["reason"]] = None
        left = keep
    return [o.offer_id for o in left], list(notes)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    rules=RULES,
    customer=CUSTOMERS,
    calls=CALLS,
    context=CONTEXTS,
    placement=st.sampled_from(["home", "bill"]),
    old=st.booleans(),
)
def test_rules_are_those_of_the_reference(
    made: Hubs,
    rules: list[dict[str, Any]],
    customer: dict[str, Any],
    calls: dict[str, float] | None,
    context: dict[str, Any],
    placement: str,
    old: bool,
) -> None:
    """Random rules let the same offers pass for random customers as a loop over offers does, with the same notes;
    unknown is not true.
    """
    policies = policies_of(rules)
    assume(
        not read_rules(made.make(policies).workspace.policies, made.desk.workspace.features, "EUR").problems
    )  # a constant truth
    loaded = made.make(policies, OFFERS)
    families = None if calls is None else {"calls.by_topic": {topic: [count, count] for topic, count in calls.items()}}
    row = made.row(
        families, age=40 * 86_400.0 if old else 60.0, **customer
    )  # what is known of customers is good for 30 days
    expected, notes = passed(
        loaded, rules, placement, {o.offer_id: facts(o, customer, calls, context, old) for o in OFFERS}
    )
    answer = decide(asked(placement, context=context), loaded, row, NOW)
    assert sorted(shown(answer)) == expected
    assert list(answer.notes) == notes
    assert answer.considered == len(expected)


def test_the_reference_sees_both_sides(made: Hubs) -> None:
    """The atoms of the property test are true for some and not true for other customers, so that it tests something."""
    seen: dict[str, set[bool]] = {atom: set() for atom in ATOMS}
    for customer in (
        {"monthly_fee": 30.0, "lines": 4, "tariff": "S", "business": True},
        {"monthly_fee": 5.0, "lines": 2, "tariff": "M", "business": False},
        {},
    ):
        for context in ({"hour": 3, "channel": "app", "roaming_now": True}, {"hour": 12.5, "roaming_now": False}):
            for atom in ATOMS:
                loaded = made.make(policies_of([{"kind": "when", "condition": atom, "stage": "eligibility"}]), OFFERS)
                row = made.row({"calls.by_topic": {"data": [3.0, 3.0]}}, **customer)
                passing = shown(decide(asked(context=context), loaded, row, NOW))
                seen[atom] |= {o.offer_id in passing for o in OFFERS}
    assert all(sides == {True, False} for sides in seen.values()), seen


def test_stages_come_in_their_order(made: Hubs) -> None:
    """Eligibility is asked before applicability and suitability, whatever the file's order; the first that keeps an
    offer away is told.
    """
    rules = {
        "kind": {"unless": "offer.price >= 0", "stage": "suitability", "reason": "unkind"},
        "now": {"unless": "offer.price >= 3", "stage": "applicability", "reason": "not_now"},
        "law": {"unless": "offer.price >= 5", "reason": "by_law"},
    }
    loaded = made.make({"rules": rules}, OFFERS)
    answer = decide(asked(explain=True), loaded, made.row(), NOW)
    assert answer.notes == ("by_law", "not_now", "unkind")
    assert isinstance(answer.explanation, dict)
    stopped = {one["offer_id"]: one["stopped_by"] for one in answer.explanation["placements"]["home"]["not_shown"]}
    assert stopped == {f"o{at}": "rule kind" if at < 3 else "rule now" if at < 5 else "rule law" for at in range(6)}
    funnel = answer.explanation["placements"]["home"]["funnel"]
    assert list(funnel.items()) == [
        ("valid", 6),
        ("placement", 6),
        ("rule law", 5),
        ("rule now", 3),
        ("rule kind", 0),
        ("shown", 0),
    ]


def test_rule_of_one_placement_is_silent_elsewhere(made: Hubs) -> None:
    """In a request for several placements a rule of one keeps offers away there, and leaves the others alone."""
    loaded = made.make(
        {"rules": {"none": {"unless": "offer.price >= 0", "placements": ["home"], "reason": "none"}}}, OFFERS
    )
    answer = decide(asked(None, placements=["home", "bill"]), loaded, made.row(), NOW)
    assert (len(shown(answer, "home")), len(shown(answer, "bill"))) == (0, 5)
    assert answer.notes == ("none",)
    assert decide(asked("bill"), loaded, made.row(), NOW).notes == ()


@pytest.mark.parametrize(
    ("business", "weights"),
    [(True, {"sales": 6.0, "service": 3.0, "": 2.0}), (False, {"sales": 1.0, "service": 1.0, "": 1.0}), (None, {})],
)
def test_context_weights_multiply_where_they_are_true(
    made: Hubs, business: bool | None, weights: dict[str, float]
) -> None:
    """Each weight counts for the offers that it concerns where its condition is true; unknown is not true; several
    multiply.
    """
    said = {
        "all": {"when": "customer.business", "weight": 2},
        "sales": {"when": "customer.business", "weight": 3, "groups": ["sales"]},
        "service": {"when": "customer.business", "weight": 1.5, "groups": ["service"]},
        "elsewhere": {"when": "customer.business", "weight": 100, "placements": ["bill"]},
    }
    loaded = made.make({"arbitration": {"weights": said}}, OFFERS)
    answer = decide(asked(explain=True), loaded, made.row(business=business), NOW)
    groups = {o.offer_id: o.group for o in OFFERS}
    assert len(answer.offers) == 6
    for one in answer.offers:
        assert one.score == pytest.approx(one.propensity * weights.get(groups[one.offer_id], 1.0), rel=1e-15)


def test_conditions_are_evaluated_once_for_all_placements(made: Hubs) -> None:
    """One evaluation serves all placements of a request: what a case keeps is a set of offers for each rule and
    weight.
    """
    loaded = made.make(
        {
            "rules": {"a": {"when": "offer.price > 2"}},
            "arbitration": {"weights": {"w": {"when": "offer.price > 4", "weight": 2}}},
        },
        OFFERS,
    )
    case = open_case(DecisionInputs(asked(None, placements=["home", "bill"]), loaded, CustomerState(made.row()), NOW))
    consider(case)
    assert case.truths is not None
    assert case.truths.sets == (0b111000, 0b100000)
    assert made.make({}, OFFERS).hub.rules.truths(made.row(), loaded.everyone, {}, NOON) is None

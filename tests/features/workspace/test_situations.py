"""The pack `situation_first`: who needs help is not sold to, whichever way a workspace says that somebody does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.common.types import Decision
from features.config.documents import Document
from features.config.features_file import FeaturesFile
from features.config.policies import PoliciesFile
from features.validation.policies import expressions, names
from features.workspace.rulebook import read_rules
from features.workspace.situations import REASON, SITUATIONS
from serving.state.snapshot import Snapshot
from tests.serving import hubs
from tests.serving.decisions import decide
from tests.serving.hubs import NOON, Hubs, asked, microseconds, shown

NOW = microseconds(NOON)
PACK = {"situation_first": {"service": ["service"]}}
OFFERS = [hubs.offer(at, group=("sales", "service", "")[at % 3]) for at in range(6)]
SERVICE, SALES = {"o1", "o4"}, {"o0", "o2", "o3", "o5"}


@pytest.fixture(scope="module")
def made(trained_workspace: Path) -> Iterator[Hubs]:
    yield from hubs.opened(trained_workspace)


def features_of(made: Hubs, **context: Any) -> FeaturesFile:
    """The trained workspace's columns, and some of the context."""
    said = msgspec.to_builtins(made.desk.workspace.features)
    said["context"] |= context
    return msgspec.convert(said, FeaturesFile)


def answered(loaded: Snapshot, row: Any, **context: Any) -> Decision:
    return decide(asked(context=context), loaded, row, NOW)


def gives_way(answer: Decision, weight: float = 3.0) -> bool:
    """Whether only service is shown, with its weight, and the answer says why."""
    if set(shown(answer)) == SERVICE:
        assert answer.notes == (REASON,)
        assert all(one.score == pytest.approx(one.propensity * weight) for one in answer.offers)
        return True
    assert set(shown(answer)) == SERVICE | SALES
    assert answer.notes == ()
    assert all(one.score == pytest.approx(one.propensity) for one in answer.offers)
    return False


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_from_the_context(made: Hubs, situation: str) -> None:
    """A boolean of the context with a situation's name keeps sales away where it is true; false and unknown keep nobody
    from anything.
    """
    features = features_of(made, **{situation: {"dtype": "boolean", "model": False}})
    loaded = made.make(PACK, OFFERS, features=features)
    assert gives_way(answered(loaded, made.row(), **{situation: True}))
    assert not gives_way(answered(loaded, made.row(), **{situation: False}))
    assert not gives_way(answered(loaded, made.row(), **{situation: None}))
    assert not gives_way(answered(loaded, made.row()))


@pytest.mark.parametrize("situation", SITUATIONS)
def test_each_situation_from_a_segment(made: Hubs, situation: str) -> None:
    """A segment with a situation's name says it by any condition; a fact that is missing makes nobody's situation."""
    policies = PACK | {"segments": {situation: "customer.monthly_fee > 50 or context.hour < 6"}}
    loaded = made.make(policies, OFFERS)
    assert gives_way(answered(loaded, made.row(monthly_fee=60)))
    assert gives_way(answered(loaded, made.row(), hour=3))
    assert not gives_way(answered(loaded, made.row(monthly_fee=40), hour=12))
    assert not gives_way(answered(loaded, made.row()))


def test_situation_from_a_column_of_the_customer(made: Hubs) -> None:
    """A boolean attribute with a situation's name counts for customers of whom it is known and true, while it is
    fresh.
    """
    said = msgspec.to_builtins(made.desk.workspace.features)
    policies = msgspec.convert(PACK, PoliciesFile)
    said["customer"]["attributes"]["bereaved"] = {"dtype": "boolean", "model": False}
    book = read_rules(policies, msgspec.convert(said, FeaturesFile), "EUR")
    assert [(read.name, read.condition.text) for read in book.rules] == [("situation_bereaved", "customer.bereaved")]
    business = made.make(PACK | {"segments": {"vulnerable": "customer.business"}}, OFFERS)
    for row, expected in (
        (made.row(business=True), True),
        (made.row(business=False), False),
        (made.row(business=None), False),
        (made.row(business=True, age=40 * 86_400.0), False),
    ):
        assert gives_way(answered(business, row)) == expected


def test_segment_goes_before_context_and_context_before_customer(made: Hubs) -> None:
    """Where a workspace says a situation in several ways, the segment counts, then the context; what is no boolean is
    not looked at.
    """
    said = msgspec.to_builtins(features_of(made, open_case={"dtype": "boolean"}, bereaved={"dtype": "category"}))
    said["customer"]["attributes"] |= {
        "open_case": {"dtype": "boolean"},
        "bereaved": {"dtype": "boolean"},
        "problem_now": {"dtype": "number"},
    }
    features = msgspec.convert(said, FeaturesFile)
    for segments, expected in (({"open_case": "context.hour < 6"}, "segment.open_case"), ({}, "context.open_case")):
        book = read_rules(msgspec.convert(PACK | {"segments": segments}, PoliciesFile), features, "EUR")
        assert [read.condition.text for read in book.rules] == [expected, "customer.bereaved"]
        assert [weight.condition.text for weight in book.weights] == [expected, "customer.bereaved"]
        assert all(read.rule.stage == "suitability" and not read.keeps for read in book.rules)


def test_several_situations_and_the_packs_own_weight(made: Hubs) -> None:
    """Two situations at once multiply their weights; the pack's weight may be set, and rules of the workspace come
    beside it.
    """
    features = features_of(
        made, open_case={"dtype": "boolean", "model": False}, problem_now={"dtype": "boolean", "model": False}
    )
    policies = {
        "situation_first": {"service": ["service"], "weight": 5},
        "rules": {"cheap": {"when": "offer.price < 4", "reason": "dear"}},
    }
    loaded = made.make(policies, OFFERS, features=features)
    answer = answered(loaded, made.row(), open_case=True, problem_now=True)
    assert shown(answer) == ["o1"]
    assert answer.offers[0].score == pytest.approx(answer.offers[0].propensity * 25)
    assert answer.notes == ("dear", REASON), "eligibility is asked before what is good for the customer"


def faults_of(made: Hubs, policies: str, features: FeaturesFile | None = None) -> list[str]:
    """What the checks of expressions and names say of a policies.yaml."""
    document = Document(Path("policies.yaml"), "policies.yaml", policies)
    documents = {**made.desk.workspace.documents, "policies.yaml": document}
    workspace = made.workspace(
        policies=document.convert(PoliciesFile), documents=documents, features=features or made.desk.workspace.features
    )
    return [str(fault) for check in (expressions, names) for fault in check(workspace)]


def test_pack_without_any_situation_is_a_fault(made: Hubs) -> None:
    """A pack that could never find a situation, or a group that helps, is told with what to declare; a segment that is
    wrong is told once.
    """
    without = faults_of(made, "situation_first: {service: [service]}\n")
    assert len(without) == 2
    assert (
        "policies.yaml:1: at $.situation_first: expected at least one of open_case, bad_experience, vulnerable"
        in without[0]
    )
    assert "Declare one as a segment, or as a boolean context or customer column." in without[0]
    assert "$.situation_first.service[0]: expected a group that some offer has, got `service`" in without[1]
    wrong = faults_of(made, "situation_first: {service: [service]}\nsegments: {open_case: customer.mod > 3}\n")
    assert [fault.partition(": expected")[0] for fault in wrong] == [
        "policies.yaml:2: at $.segments.open_case",
        "policies.yaml:1: at $.situation_first.service[0]",
    ]
    assert (
        "at least one"
        not in faults_of(made, "situation_first: {service: [service]}\nsegments: {open_case: customer.business}\n")[0]
    )


def test_workspaces_own_rule_with_the_packs_prefix_keeps_its_place(made: Hubs) -> None:
    """A rule or weight of the workspace that is named like one of the pack is faulted where it stands."""
    text = (
        "rules:\n  situation_mine: {when: customer.nothing > 1}\narbitration:\n  weights:\n    situation_mine: {when:"
        " context.nothing, weight: 2}\n"
    )
    told = faults_of(made, text)
    assert [fault.partition(": expected")[0] for fault in told] == [
        "policies.yaml:2: at $.rules.situation_mine.when",
        "policies.yaml:5: at $.arbitration.weights.situation_mine.when",
    ]

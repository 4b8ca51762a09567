"""The names that an expression may use: those of a workspace, and segments that use each other."""

from __future__ import annotations

import msgspec

from features.config.features_file import FeaturesFile
from features.config.yaml import Tree
from features.expressions.evaluate import Meaning
from features.expressions.parse import TREE_DEPTH_MAX, Expression, parse, parse_segments
from features.expressions.scope import scope_of
from tests.features.expressions.guide_cases import SCOPE, parsed


def test_segments_use_each_other_in_any_order() -> None:
    """A segment may use one that is declared after it, and means what that means."""
    terms, wrong = parse_segments(
        {"loyal": "segment.old and customer.visits_90d > 3", "old": "customer.tenure_days > 365"}, SCOPE
    )
    assert not wrong
    rule = parsed("not segment.loyal", scope=SCOPE | terms)
    assert rule.names == ("customer.tenure_days", "customer.visits_90d")
    facts = {"customer.tenure_days": 400.0, "customer.visits_90d": 2.0}
    assert Meaning(facts.get).of(rule.root) is True


def test_segments_that_use_themselves_are_refused() -> None:
    """A cycle of segments is told once at each of its segments, and what uses them is not told again."""
    texts = {
        "a": "segment.b",
        "b": "segment.c or context.open_case",
        "c": "not segment.a",
        "own": "segment.own",
        "uses": "segment.a",
    }
    terms, wrong = parse_segments({**texts, "good": "context.open_case", "bad": "context.hour"}, SCOPE)
    assert sorted(wrong) == ["a", "b", "bad", "c", "own"]
    assert all("do not use themselves" in wrong[name][0].expected for name in ("a", "b", "c", "own"))
    assert wrong["a"][0].got.count(" -> ") == 3
    assert {name for name, term in terms.items() if term.body is not None} == {"segment.good"}


def test_segments_within_each_other_are_bounded() -> None:
    """A long chain of segments is a problem of the one that goes too far, and wide reuse costs nothing."""
    chain = {
        f"s{at}": f"segment.s{at - 1} and customer.wait > {at}" if at else "context.open_case"
        for at in range(TREE_DEPTH_MAX + 10)
    }
    _, wrong = parse_segments(chain, SCOPE)
    assert len(wrong) == 1
    assert "segments included" in next(iter(wrong.values()))[0].expected
    twice = {
        f"s{at}": f"segment.s{at - 1} if customer.wait > {at} else not segment.s{at - 1}" if at else "context.open_case"
        for at in range(26)
    }
    terms, wrong = parse_segments(twice, SCOPE)
    assert not wrong
    rule = parsed("segment.s25", scope=SCOPE | terms)
    assert Meaning({"context.open_case": True, "customer.wait": 0.0}.get).of(rule.root) is False


FEATURES = """
customer: {attributes: {tier: {dtype: category}, joined: {dtype: time}}}
streams: {visits: {numbers: [amount], categories: [group]}}
offer: {group: {dtype: category}, tags: {dtype: texts}}
context: {hour: {dtype: integer, minimum: 0, maximum: 23}, offers_considered: {dtype: integer}}
columns: {spend: {stream: visits, aggregate: sum, of: amount, windows: [30d], unit: USD}}
pairs: {bought: {stream: visits, aggregate: count, key: group, match: group, windows: [90d], relative: [share]}}
"""


def test_a_workspace_gives_its_scope() -> None:
    """All columns of a workspace are names with their types, but for those that depend on what else is eligible."""
    scope = scope_of(msgspec.convert(Tree("features.yaml", FEATURES.encode()).value, FeaturesFile), "USD")
    names = (
        "context.hour customer.joined customer.spend_30d customer.tier offer.group offer.name offer.offer_id offer.tags"
        " offer.value pair.bought_90d"
    )
    assert sorted(scope) == names.split()
    assert (scope["customer.spend_30d"].unit, scope["offer.value"].unit, scope["context.hour"].maximum) == (
        "USD",
        "USD",
        23,
    )
    assert isinstance(parse("customer.joined > days(30) and offer.value >= customer.spend_30d", scope), Expression)

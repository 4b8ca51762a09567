"""Compiled conditions and formulas against a reference that looks at one offer at a time."""

from __future__ import annotations

import dis
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from features.columns.catalogue import Catalogue
from features.common.types import Offer
from features.expressions.nodes import Term
from features.expressions.parse import Expression, parse
from serving.conditions.bitsets import KEYS_KEPT_MAX, bits_of, mask_of, positions_of
from serving.conditions.conditions import Conditions, offer_columns, scalar_values
from serving.conditions.formulas import Formula
from serving.conditions.reasons import explain, needed
from tests.serving.condition_reference import (
    NOW,
    SCOPE,
    Tree,
    conditions,
    expression,
    laid,
    numbers,
    rows_of,
    seen,
    value,
    worlds,
    written,
)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(trees=st.lists(conditions(3), min_size=1, max_size=4), world=worlds())
def test_conditions_hold_where_the_reference_says_true(
    trees: list[Tree], world: tuple[dict[str, Any], list[dict[str, Any]]]
) -> None:
    """For any conditions, customer and offers, the sets are those of the reference, and so are the explanations."""
    shared, offers = world
    rules, kept = {}, {}
    for at, tree in enumerate(trees):
        found = parse(written(tree), SCOPE)
        if isinstance(found, Expression):  # a comparison that says nothing is refused
            rules[str(at)], kept[str(at)] = found, tree
    assume(rules)
    compiled = Conditions(rules)
    bound = compiled.bind({name: laid(name, offers) for name in compiled.offers}, len(offers))
    scalars, pairs = scalar_values(compiled.scalars, shared), rows_of(compiled.pairs, offers)
    sets = bound.evaluate(scalars, pairs, NOW)
    for name, bits in zip(compiled.names, sets, strict=True):
        expected = [value(kept[name], seen(shared | offer)) for offer in offers]
        assert [bool(bits >> at & 1) for at in range(len(offers))] == [truth is True for truth in expected], rules[
            name
        ].text
        assert bits >> len(offers) == 0
        for at in range(min(len(offers), 4)):
            lookup = bound.lookup(at, scalars, pairs, NOW)
            lacking = needed(rules[name], lookup)
            assert (not lacking) == (expected[at] is True)
            assert not any(finding.holds for finding in lacking)
            assert {finding.condition for finding in lacking} <= {
                finding.condition for finding in explain(rules[name], lookup)
            }


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(tree=numbers(3), world=worlds(), data=st.data())
def test_formulas_are_those_of_the_reference(
    tree: Tree, world: tuple[dict[str, Any], list[dict[str, Any]]], data: st.DataObject
) -> None:
    """For any formula, customer and chosen offers, the numbers are those of the reference to the bit, NaN where that is
    unknown.
    """
    shared, offers = world
    found = parse(written(tree), SCOPE, "number")
    assume(isinstance(found, Expression))
    assert isinstance(found, Expression)
    formula = Formula(found)
    places = data.draw(st.lists(st.sampled_from(range(len(offers))), unique=True).map(sorted)) if offers else []
    bound = formula.bind({name: laid(name, offers) for name in formula.offers}, len(offers))
    rows = rows_of(formula.rows, [offers[at] for at in places])
    result = bound.evaluate(scalar_values(formula.scalars, shared), rows, np.array(places, np.int32), NOW)
    expected = [value(tree, seen(shared | offers[at])) for at in places]
    assert result.shape == (len(places),)
    np.testing.assert_array_equal(
        result, np.array([math.nan if cell is None else cell for cell in expected], np.float64)
    )


GRID = [None, 0.0, -0.0, 1.0, -2.0, math.inf, -math.inf]
WORDS = [None, "red", "other"]


def simple(first: Tree, second: Tree) -> list[Tree]:
    """Every comparison and operation of two columns, and every function of the first."""
    compared: list[Tree] = [(op, first, second) for op in ("==", "!=", "<", "<=", ">", ">=")]
    made: list[Tree] = [(op, first, second) for op in ("+", "-", "*", "/", "min", "max")]
    made += [(op, first) for op in ("abs", "negative", "log")] + [("default", first, ("constant", 1.0))]
    tested: list[Tree] = [("in list", first, [0.0, 1.0])] + [
        (op, number, ("constant", 1.0)) for number in made for op in ("!=", "<=")
    ]
    return [*compared, *tested, *(("known", number) for number in made if number[0] != "default")]


@pytest.mark.parametrize(
    "sides", list(itertools.product(("customer", "context", "offer", "pair"), repeat=2)), ids=" ".join
)
def test_every_operation_on_every_pair_of_values_is_the_references(sides: tuple[str, str]) -> None:
    """For each operator and each two values, missing and infinite ones included, true and false are those of the
    reference.
    """
    first, second = (f"{side}.{name}" for side, name in zip(sides, "nm", strict=True))
    trees, cells = simple(("column", first), ("column", second)), list(itertools.product(GRID, GRID))
    _hold_against_the_reference(trees, [{first: one, second: other} for one, other in cells])
    if "pair" not in sides and sides[0] != sides[1]:
        first, second = (f"{side}.c" for side in sides)
        texts = [(op, ("column", first), ("column", second)) for op in ("==", "!=")]
        texts += [
            ("in list", ("column", first), ["red", "blue"]),
            ("==", ("column", first), ("constant", "red")),
            ("known", ("column", first)),
        ]
        _hold_against_the_reference(
            texts, [{first: one, second: other} for one, other in itertools.product(WORDS, WORDS)]
        )


def _hold_against_the_reference(trees: list[Tree], cases: list[dict[str, Any]]) -> None:
    asked = [tree for part in trees for tree in (part, ("not", part))]
    compiled = Conditions({str(at): expression(written(tree)) for at, tree in enumerate(asked)})
    bound = compiled.bind({name: laid(name, cases) for name in compiled.offers}, len(cases))
    for at, case in enumerate(cases):
        sets = bound.evaluate(scalar_values(compiled.scalars, case), rows_of(compiled.pairs, cases), NOW)
        found = [bool(bits >> at & 1) for bits in sets]
        assert found == [value(tree, case) is True for tree in asked], case


@pytest.mark.parametrize("count", [1, 7, 8, 63, 1_001, 10_000])
def test_any_number_of_offers_is_compared_exactly(count: int) -> None:
    """Comparisons of pair columns with constants are numpy's, for few and many offers, next to the constant and at
    infinity.
    """
    random = np.random.default_rng(count)
    near = [math.nextafter(0.1, 0), 0.1, math.nextafter(0.1, 1), math.nan, math.inf, -math.inf, 1.7976931348623157e308]
    pairs = random.choice(near, (2, count))
    compares = {
        "==": np.equal,
        "!=": np.not_equal,
        "<": np.less,
        "<=": np.less_equal,
        ">": np.greater,
        ">=": np.greater_equal,
    }
    texts = {
        (row, op, bound): f"pair.{'mn'[row]} {op} {bound!r}"
        for row in (0, 1)
        for op in compares
        for bound in (0.1, near[-1], -near[-1])
    }
    bound = Conditions({text: expression(text) for text in texts.values()}).bind({}, count)
    for (row, op, constant), bits in zip(texts, bound.evaluate([], pairs, NOW), strict=True):
        expected = compares[op](pairs[row], constant) & ~np.isnan(pairs[row])
        assert np.array_equal(mask_of(bits, count), expected)
        assert bits == bits_of(expected)
        assert np.array_equal(positions_of(bits, count), np.flatnonzero(expected))


def test_a_condition_of_several_rules_is_evaluated_once() -> None:
    """Rules that share a part share its evaluation: a hundred rules of the same leaves have as many comparisons as
    one.
    """
    shared = "customer.n * customer.m > 3 and pair.n >= 1"
    one = Conditions({"one": expression(shared)})
    many = Conditions({str(at): expression(f"({shared}) or offer.n > {at}") for at in range(100)})
    assert len(many._atoms) == len(one._atoms) == 1
    assert many._evaluate.co_code.count(bytes([dis.opmap["COMPARE_OP"]])) < 10


def test_many_texts_of_an_attribute_are_found() -> None:
    """An attribute with more texts than are kept ready still finds every one of them."""
    count = KEYS_KEPT_MAX + 10
    compiled = Conditions({"own": expression("offer.c == customer.c")})
    bound = compiled.bind({"offer.c": [f"c{at}" for at in range(count)]}, count)
    for at in range(count):
        assert bound.evaluate([f"c{at}"], rows_of([], []), NOW) == (1 << at,)
    assert bound.evaluate(["none"], rows_of([], []), NOW) == bound.evaluate([None], rows_of([], []), NOW) == (0,)


def test_a_catalogue_gives_the_columns() -> None:
    """Columns of offers are read from a catalogue: attributes by their declared type, and the facts that every offer
    has.
    """
    offers = [
        Offer("a", name="A", value=2.5, attributes={"n": 3.0, "b": True, "c": "red", "t": 86400.0, "tags": ["x", "y"]}),
        Offer("b"),
    ]
    terms = {
        **SCOPE,
        "offer.offer_id": Term("offer", "category"),
        "offer.name": Term("offer", "category"),
        "offer.value": Term("offer", "number"),
    }
    wanted = {name: term for name, term in terms.items() if term.kind == "offer" and name != "offer.m"}
    found = {
        name: [None if cell != cell else cell for cell in column]
        for name, column in offer_columns(Catalogue(offers), wanted).items()
    }
    assert found == {
        "offer.n": [3.0, None],
        "offer.b": [1.0, None],
        "offer.c": ["red", None],
        "offer.t": [86400.0, None],
        "offer.tags": [["x", "y"], None],
        "offer.offer_id": ["a", "b"],
        "offer.name": ["A", None],
        "offer.value": [2.5, 1.0],
    }


def test_what_does_not_fit_is_refused() -> None:
    """A missing column of offers, or one of another length, is refused when the catalogue is bound, and so are texts of
    a customer.
    """
    compiled = Conditions({"rule": expression("offer.n > 1")})
    for offers, got in (({}, "none"), ({"offer.n": np.zeros(2)}, "2 values")):
        with pytest.raises(ValueError, match=f"one value for each of 3 offers, got {got}"):
            compiled.bind(offers, 3)  # type: ignore[arg-type]
    found = parse("'a' in customer.likes", {"customer.likes": Term("customer", "texts")})
    assert isinstance(found, Expression)
    with pytest.raises(ValueError, match="expected texts of an offer"):
        Conditions({"rule": found})

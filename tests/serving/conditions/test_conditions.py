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
from features.expressions.nodes import Term, TermType
from features.expressions.parse import Expression, parse
from serving.conditions.bitsets import KEYS_KEPT_MAX, bits_of, mask_of, positions_of
from serving.conditions.conditions import Conditions, offer_columns, scalar_values
from serving.conditions.formulas import Formula
from serving.conditions.reasons import explain, needed

DAY = 86_400.0
NOW = 20_000 * DAY
TYPES: dict[str, TermType] = {"n": "number", "m": "number", "b": "boolean", "c": "category", "t": "time"}
SCOPE = {
    f"{kind}.{name}": Term(kind, dtype) for kind in ("customer", "context", "offer") for name, dtype in TYPES.items()
}  # type: ignore[arg-type]
SCOPE |= {
    "pair.n": Term("pair", "number"),
    "pair.m": Term("pair", "number"),
    "pair.b": Term("pair", "boolean"),
    "offer.tags": Term("offer", "texts"),
}
NAMES = {
    dtype: sorted(name for name, term in SCOPE.items() if term.dtype == dtype)
    for dtype in ("number", "boolean", "category", "time")
}

POINTS = [0.0, -1.0, 1.0, 2.0, 3.5, 1e308]
NUMBERS = st.sampled_from([*POINTS, -0.0, math.inf, -math.inf, None, None])
TEXTS = ["red", "blue", "grün"]

Tree = tuple[Any, ...]


def value(tree: Tree, row: dict[str, Any]) -> Any:
    """The reference: a tree's value for one customer and one offer; None is unknown."""
    op, *parts = tree
    if op in ("column", "constant"):
        return row[parts[0]] if op == "column" else parts[0]
    if op == "in list":
        found = value(parts[0], row)
        return None if found is None else found in parts[1]
    values = [value(part, row) for part in parts]
    if op == "and":
        return False if False in values else None if None in values else True
    if op == "or":
        return True if True in values else None if None in values else False
    if op == "known":
        return values[0] is not None
    if op == "default":
        return values[1] if values[0] is None else values[0]
    if op == "if":
        return None if values[0] is None else values[1] if values[0] else values[2]
    if None in values or (op == "/" and values[1] == 0) or (op == "log" and values[0] <= 0):
        return None
    result = REFERENCE[op](*values)
    return None if isinstance(result, float) and math.isnan(result) else result


REFERENCE: dict[str, Any] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "min": min,
    "max": max,
    "abs": abs,
    "negative": lambda a: -a,
    "log": lambda a: float(np.log(a)),
    "not": lambda a: not a,
    "in texts": lambda a, b: a in b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def written(tree: Tree) -> str:
    """A tree in the language."""
    op, *parts = tree
    if op == "column":
        return str(parts[0])
    if op == "constant":
        return repr(parts[0])
    if op == "in list":
        return f"({written(parts[0])} in {parts[1]!r})"
    texts = [written(part) for part in parts]
    if op == "if":
        return f"({texts[1]} if {texts[0]} else {texts[2]})"
    if op in ("known", "default", "min", "max", "abs", "log"):
        return f"{op}({', '.join(texts)})"
    if op in ("not", "negative"):
        return f"({'not' if op == 'not' else '-'} {texts[0]})"
    return "(" + f" {op.removesuffix(' texts')} ".join(texts) + ")"


def columns(*dtypes: str) -> st.SearchStrategy[Tree]:
    return st.sampled_from([("column", name) for dtype in dtypes for name in NAMES[dtype]])


POINT = st.sampled_from(POINTS)
CONSTANT = st.tuples(st.just("constant"), POINT)
MEASURE = columns("number", "time")
PAIR = st.sampled_from([("column", "pair.n"), ("column", "pair.m")])
CATEGORY, BOOLEAN = columns("category"), columns("boolean")
WORD = st.sampled_from([("constant", text) for text in TEXTS])
TAGS = st.just(("column", "offer.tags"))
ORDER = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


@st.composite
def numbers(draw: st.DrawFn, depth: int) -> Tree:
    """A number made of columns, constants and, in conditionals, conditions."""
    form = draw(st.sampled_from(["column", "column", "two", "one", "default", "if"])) if depth else "column"
    if form == "column":
        return draw(MEASURE)
    first = draw(numbers(depth - 1))
    if form == "one":
        return draw(st.sampled_from(["abs", "log", "negative"])), first
    if form == "default":
        return "default", first, draw(CONSTANT)
    other = draw(numbers(depth - 1) | CONSTANT)
    if form == "two":
        return draw(st.sampled_from(["+", "-", "*", "/", "min", "max"])), first, other
    return "if", draw(conditions(depth - 1)), first, other


@st.composite
def leaves(draw: st.DrawFn, depth: int) -> Tree:
    """A condition that is made of no others."""
    number, category = numbers(depth), CATEGORY
    return draw(
        st.one_of(
            BOOLEAN,
            st.tuples(ORDER, number, number | CONSTANT),
            st.tuples(ORDER, PAIR, CONSTANT),
            st.tuples(st.just("in list"), number, st.lists(POINT, min_size=1, max_size=3)),
            st.tuples(st.sampled_from(["==", "!="]), category, category | WORD),
            st.tuples(st.just("in list"), category, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)),
            st.tuples(st.just("in texts"), category | WORD, TAGS),
            st.tuples(st.just("=="), st.tuples(st.just("default"), category, WORD), WORD),
            st.tuples(st.just("known"), number | category | BOOLEAN | TAGS),
        )
    )


@st.composite
def conditions(draw: st.DrawFn, depth: int) -> Tree:
    """Any condition."""
    form = (
        draw(st.sampled_from(["leaf", "and", "or", "not", "known", "if", "==", "!=", "default"])) if depth else "leaf"
    )
    if form == "leaf":
        return draw(leaves(min(depth, 1)))
    parts = [
        draw(conditions(depth - 1))
        for _ in range({"not": 1, "known": 1, "default": 1, "if": 3}.get(form, draw(st.sampled_from([2, 2, 3]))))
    ]
    if form == "default":
        return form, parts[0], ("constant", draw(st.booleans()))
    return (form, *parts[:2]) if form in ("==", "!=") else (form, *parts)


CELLS = {
    "number": NUMBERS,
    "boolean": st.sampled_from([True, False, None]),
    "category": st.sampled_from([*TEXTS, "other", None]),
    "time": st.sampled_from([NOW, NOW - DAY, NOW - 3.5 * DAY, NOW + DAY, None]),
    "texts": st.none() | st.lists(st.sampled_from(TEXTS), max_size=2),
}


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One customer in a context, and some offers: raw values by column, None where missing."""
    count = draw(st.sampled_from([0, 1, 2, 7, 65]))
    own = [name for name in SCOPE if name.split(".")[0] in ("offer", "pair")]
    shared = {name: draw(CELLS[term.dtype]) for name, term in SCOPE.items() if name not in own}
    kinds = draw(
        st.lists(st.fixed_dictionaries({name: CELLS[SCOPE[name].dtype] for name in own}), min_size=1, max_size=4)
    )
    return shared, [kinds[at % len(kinds)] for at in range(count)]


def seen(raw: dict[str, Any]) -> dict[str, Any]:
    """Values as expressions see them: a moment as its age."""
    return {
        name: (NOW - cell) / DAY if SCOPE[name].dtype == "time" and cell is not None else cell
        for name, cell in raw.items()
    }


def laid(name: str, offers: list[dict[str, Any]]) -> Any:
    """A column of offers as conditions take it."""
    cells = [offer[name] for offer in offers]
    return (
        cells
        if SCOPE[name].dtype in ("category", "texts")
        else np.array([math.nan if c is None else c for c in cells], np.float64)
    )


def rows_of(names: Any, offers: list[dict[str, Any]]) -> Any:
    return np.array([laid(name, offers) for name in names]).reshape(len(names), len(offers))


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


RULES = {
    "tenure": "customer.n >= 90 and context.c in ['red', 'blue'] and not context.b",
    "either": "customer.n >= 90 or offer.n > 2 and pair.n == 0",
    "tags": "'red' not in offer.tags",
    "region": "offer.c == customer.c and known(pair.m)",
}
FACTS: dict[str, Any] = {"customer.n": 12.0, "context.c": "grün", "context.b": True, "customer.c": "red"}
OFFERS = [
    {"offer.n": 1.0, "offer.c": "red", "offer.tags": ["red"], "pair.n": 3.0, "pair.m": None},
    {"offer.n": 3.0, "offer.c": "blue", "offer.tags": [], "pair.n": 0.0, "pair.m": 1.0},
]


def test_reasons_say_what_is_and_what_would_be_needed() -> None:
    """For a rule that does not hold, the fewest leaves that would have to change are told, with their values."""
    compiled = Conditions({name: expression(text) for name, text in RULES.items()})
    bound = compiled.bind({name: laid(name, OFFERS) for name in compiled.offers}, 2)
    scalars, pairs = scalar_values(compiled.scalars, FACTS), rows_of(compiled.pairs, OFFERS)
    assert bound.evaluate(scalars, pairs, NOW) == (0b00, 0b10, 0b10, 0b00)
    told = {
        name: [str(reason) for reason in needed(rule, bound.lookup(0, scalars, pairs, NOW))]
        for name, rule in compiled.rules.items()
    }
    assert told == {
        "tenure": [
            "customer.n is 12 (needs >= 90)",
            'context.c is "grün" (needs in ["blue", "red"])',
            "context.b is True (needs False)",
        ],
        "either": ["customer.n is 12 (needs >= 90)"],
        "tags": ['offer.tags is ["red"] (needs without "red")'],
        "region": ["pair.m is unknown (needs known)"],
    }
    second = bound.lookup(1, scalars, pairs, NOW)
    assert [str(reason) for reason in needed(compiled.rules["region"], second)] == [
        'customer.c is "red" (needs == offer.c, which is "blue")'
    ]
    assert [(reason.condition, reason.holds) for reason in explain(compiled.rules["either"], second)] == [
        ("customer.n >= 90", False),
        ("offer.n > 2", True),
        ("pair.n == 0", True),
    ]


def expression(text: str) -> Expression:
    found = parse(text, SCOPE)
    assert isinstance(found, Expression), found
    return found


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

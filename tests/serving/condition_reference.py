"""A reference for compiled conditions and formulas that looks at one offer at a time, and drawn trees to hold them
against.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from features.expressions.nodes import Term, TermType
from features.expressions.parse import Expression, parse

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


def expression(text: str) -> Expression:
    found = parse(text, SCOPE)
    assert isinstance(found, Expression), found
    return found

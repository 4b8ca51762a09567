"""A checked expression as a tree of nodes, each with a canonical text: two nodes with the same text mean the same.

The functions that make nodes normalize what has several spellings, so that rules share it: `90 <= x` is `x >= 90`, `not
x < 90` is `x >= 90`, `x in ["web"]` is `x == "web"`, arithmetic of constants is a constant. Each step keeps the
meaning, unknown values included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Type = Literal["boolean", "number", "category", "texts"]
Constant = float | str | bool

FLIPPED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
"""What a comparison is when its opposite is asked for; an unknown operand leaves both unknown."""
_TURNED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
OPPOSITE = {**FLIPPED, "in": "not in", "not in": "in", "known": "unknown", "unknown": "known"}
"""What a condition is when its opposite is asked for, if that has a word of its own."""
_STRENGTH = {"if": 0, "or": 1, "and": 2, "not": 3, "+": 5, "-": 5, "*": 6, "/": 6, "negative": 7}
_COMPARISON = 4
_ATOM = 9


TermKind = Literal["customer", "context", "offer", "pair", "segment", "term"]
"""`segment`: a named condition. `term`: a number an offer that the caller brings to a formula, such as `propensity`."""

TermType = Literal["number", "integer", "category", "boolean", "time", "texts"]
"""`time` stands for its age: days from that moment to the decision, below 0 for a moment to come."""


@dataclass(frozen=True, slots=True)
class Term:
    """One name that an expression may use.

    Attributes:
        unit: None where none is declared; such a number fits any unit but a quantity like `days(90)`.
        values: declared values of a category; None is any text.
        minimum, maximum: declared bounds of a number, both inclusive.
        body: the condition that a segment stands for; None for one that has problems of its own, or that is not a
            segment.
    """

    kind: TermKind
    dtype: TermType
    unit: str | None = None
    values: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    body: Node | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One part of an expression.

    `op` is `column`, `segment` or `constant`; a sign or word of the language; `negative` for a minus before a number;
    or the name of a function. `in` has one part and its texts or numbers in `values`, or two parts: a category and
    texts.

    Attributes:
        text: canonical; the identity of the node within one scope.
        value: of a constant; the full name of a column or segment.
        unit: None where it has none, or none that is tracked (a product of two).
        depth: nodes on the longest way down, segments included.
    """

    text: str
    op: str = field(compare=False)
    dtype: Type = field(compare=False)
    parts: tuple[Node, ...] = field(default=(), compare=False)
    value: Constant | None = field(default=None, compare=False)
    values: tuple[float, ...] | tuple[str, ...] = field(default=(), compare=False)
    unit: str | None = field(default=None, compare=False)
    term: Term | None = field(default=None, compare=False)
    depth: int = field(default=1, compare=False)

    @property
    def is_constant(self) -> bool:
        return self.op == "constant"


def column(name: str, term: Term) -> Node:
    """Return a column, or a term that the caller brings."""
    if term.dtype == "time":
        return Node(name, "column", "number", value=name, unit="days", term=term)
    dtype: Type = "number" if term.dtype == "integer" else term.dtype
    return Node(name, "column", dtype, value=name, unit=term.unit if dtype == "number" else None, term=term)


def segment(name: str, body: Node) -> Node:
    """Return a named condition."""
    return Node(name, "segment", "boolean", (body,), value=name, depth=body.depth + 1)


def constant(value: Constant, unit: str | None = None) -> Node:
    """Return a number, a text, or a truth."""
    dtype: Type = "boolean" if isinstance(value, bool) else "number" if isinstance(value, float) else "category"
    shown = shown_value(value)
    return Node(f"{unit}({shown})" if unit else shown, "constant", dtype, value=value, unit=unit)


def shown_value(value: Constant) -> str:
    """Return a constant as the language writes it."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return f"'{value}'" if '"' in value else f'"{value}"'


def made(op: str, dtype: Type, parts: tuple[Node, ...], unit: str | None = None) -> Node:
    """Return a function, a conditional or an operation whose parts are already right."""
    return Node(_text(op, parts), op, dtype, parts, unit=unit, depth=1 + max(part.depth for part in parts))


def joined(op: Literal["and", "or"], parts: list[Node]) -> Node:
    """`and` or `or` of conditions, nested ones of the same kind taken apart and each said once."""
    flat: dict[Node, None] = {}
    for part in parts:
        flat |= dict.fromkeys(part.parts if part.op == op else (part,))
    return next(iter(flat)) if len(flat) == 1 else made(op, "boolean", tuple(flat))


def negated(node: Node) -> Node:
    """Return the opposite of a condition; unknown stays unknown."""
    if node.op == "not":
        return node.parts[0]
    if node.op in FLIPPED:
        return made(OPPOSITE[node.op], "boolean", node.parts)
    if node.op in ("in", "not in"):
        return _member(OPPOSITE[node.op], node.parts, node.values)
    return made(OPPOSITE.get(node.op, "not"), "boolean", node.parts if node.op in OPPOSITE else (node,))


def compared(op: str, left: Node, right: Node) -> Node:
    """Return a comparison: a column before anything else, anything before a constant, two of a kind in the order of
    their texts.
    """
    rank = {"column": 0, "constant": 2}
    if (rank.get(left.op, 1), left.text) > (rank.get(right.op, 1), right.text):
        op, left, right = _TURNED[op], right, left
    return made(op, "boolean", (left, right))


def among(left: Node, values: tuple[float, ...] | tuple[str, ...]) -> Node:
    """Return whether a value is one of these constants."""
    unique: tuple[Any, ...] = tuple(sorted(set(values)))
    if len(unique) == 1:
        return compared("==", left, constant(unique[0], left.unit if left.is_constant else None))
    return _member("in", (left,), unique)


def contained(element: Node, texts: Node) -> Node:
    """Return whether a text is one of an offer's texts."""
    return _member("in", (element, texts), ())


def _member(op: str, parts: tuple[Node, ...], values: tuple[float, ...] | tuple[str, ...]) -> Node:
    right = parts[1].text if len(parts) == 2 else "[" + ", ".join(map(shown_value, values)) + "]"
    text = f"{_inside(parts[0], _COMPARISON)} {op} {right}"
    return Node(text, op, "boolean", parts, values=values, depth=1 + max(part.depth for part in parts))


def _text(op: str, parts: tuple[Node, ...]) -> str:
    if op in ("and", "or"):
        return f" {op} ".join(_inside(part, _STRENGTH[op]) for part in parts)
    if op == "not":
        return f"not {_inside(parts[0], _STRENGTH[op] - 1)}"
    if op == "negative":
        return f"-{_inside(parts[0], _STRENGTH[op])}"
    if op == "if":
        return f"{_inside(parts[1], 0)} if {_inside(parts[0], 0)} else {_inside(parts[2], 0)}"
    if op in FLIPPED or op in _STRENGTH:
        strength = _STRENGTH.get(op, _COMPARISON)
        return (
            f"{_inside(parts[0], strength - 1 if strength > _COMPARISON else strength)} {op}"
            f" {_inside(parts[1], strength)}"
        )
    return f"{op}({', '.join(part.text for part in parts)})"


def _inside(part: Node, strength: int) -> str:
    own = _COMPARISON if part.op in FLIPPED or part.op in ("in", "not in") else _STRENGTH.get(part.op, _ATOM)
    if part.is_constant and part.text.startswith("-"):
        own = _STRENGTH["negative"]
    return part.text if own > strength else f"({part.text})"

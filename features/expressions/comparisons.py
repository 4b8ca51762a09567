"""Comparisons and memberships of an expression: types, units, declared values and bounds, and whether they can say
anything.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from features.expressions import nodes as tree
from features.expressions.nodes import Node, Term
from features.expressions.scope import nearest
from features.expressions.units import Misfit, fitted

Refuse = Callable[..., None]
"""Takes the part of the syntax, what was expected, what came, and the way out."""

_SENSE = "a comparison that can be true and false"


class Comparisons:
    """Checks comparisons; what is wrong goes to `refuse`, and None comes back."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse

    def of(self, op: str, left_at: ast.expr, right_at: ast.expr, left: Node, right: Node) -> Node | None:
        """Return a comparison of two values."""
        if "texts" in (left.dtype, right.dtype):
            self._refuse(right_at, "in to look into a list of texts", f"`{op}`", 'For example "wine" in offer.tags.')
        elif left.dtype != right.dtype:
            told = f"{_shown(right)} beside {_shown(left)}"
            self._refuse(right_at, f"a {left.dtype}, as on the left", told, _quote_remedy(left, right))
        elif left.is_constant and right.is_constant:
            self._refuse(left_at, _SENSE, "two constants", "Compare a column with a constant.")
        elif left == right:
            self._refuse(left_at, _SENSE, f"`{left.text}` on both sides", "Write known(x) to ask whether it is known.")
        elif left.dtype == "number":
            return self._numbers(op, left_at, right_at, left, right)
        elif op not in ("==", "!="):
            self._refuse(
                right_at, f"== or != between two of type {left.dtype}", f"`{op}`", "Only numbers have an order."
            )
        elif left.dtype == "boolean":
            return self._booleans(op, left_at, left, right)
        else:
            return self._categories(op, left_at, right_at, left, right)
        return None

    def _numbers(self, op: str, left_at: ast.expr, right_at: ast.expr, left: Node, right: Node) -> Node | None:
        try:
            left, right = fitted(left, right)
        except Misfit as misfit:
            self._refuse(right_at, misfit.expected, misfit.got, misfit.remedy)
            return None
        plain = [tree.constant(part.value) if isinstance(part.value, float) else part for part in (left, right)]
        node = tree.compared(op, plain[0], plain[1])
        measured, bound = node.parts
        if isinstance(bound.value, float):
            always = _always(node.op, measured, bound.value)
            if always is not None:
                self._constant(left_at, always, measured)
                return None
        return node

    def _booleans(self, op: str, left_at: ast.expr, left: Node, right: Node) -> Node | None:
        """Equality of conditions in terms of and, or, not: with True it is the condition itself."""
        if left.is_constant:
            left, right = right, left
        if right.is_constant:
            return left if (op == "==") == right.value else tree.negated(left)
        if tree.negated(left) == right:
            self._refuse(left_at, _SENSE, "a condition and its opposite", "Take one of them away.")
            return None
        both = tree.joined("and", [left, right])
        neither = tree.joined("and", [tree.negated(left), tree.negated(right)])
        same = tree.joined("or", [both, neither])
        return same if op == "==" else tree.negated(same)

    def _categories(self, op: str, left_at: ast.expr, right_at: ast.expr, left: Node, right: Node) -> Node | None:
        if left.is_constant:
            left_at, right_at, left, right = right_at, left_at, right, left
        if right.is_constant:
            if not self.declared(right_at, left, right):
                return None
            same = self._equal(left, (str(right.value),))
            return same if op == "==" else tree.negated(same)
        if "default" in (left.op, right.op):
            self._refuse(
                right_at,
                "a constant beside default( )",
                f"`{right.text}`",
                "Compare the columns, and ask known(x) apart.",
            )
            return None
        ours, theirs = (None if part.term is None else part.term.values for part in (left, right))
        if ours and theirs and not set(ours) & set(theirs):
            self._refuse(
                left_at, _SENSE, f"never equal: `{left.text}` and `{right.text}` have no declared value in common"
            )
            return None
        return tree.compared(op, left, right)

    def listed(self, left_at: ast.expr, right_at: ast.expr, left: Node, values: Sequence[Node]) -> Node | None:
        """Return whether a value is one of a list of constants."""
        if left.is_constant or not values:
            got = "an empty list" if not values else f"the constant `{left.text}`"
            self._refuse(
                right_at if not values else left_at, _SENSE, got, "Write a column before in, and constants in the list."
            )
            return None
        if left.dtype not in ("number", "category"):
            self._refuse(left_at, "a number or a text before in", f"{left.dtype}: `{left.text}`")
            return None
        assert isinstance(right_at, ast.List)
        items = list(zip(right_at.elts, values, strict=True))
        fits = [self._item(item_at, left, item) for item_at, item in items]
        constants = [value for value in fits if value is not None]
        if len(constants) < len(items):
            return None
        if left.dtype == "number":
            return tree.among(left, tuple(value for value in constants if isinstance(value, float)))
        texts = tuple(value for value in constants if isinstance(value, str))
        column = left.parts[0] if left.op == "default" else left
        if column.term is not None and column.term.values is not None and set(column.term.values) <= set(texts):
            self._constant(left_at, True, left)
            return None
        return self._equal(left, texts)

    def _item(self, at: ast.expr, left: Node, item: Node) -> float | str | bool | None:
        """Return a constant of a list as it is compared with the column; None where it does not fit."""
        if not item.is_constant or item.dtype != left.dtype:
            self._refuse(at, f"a constant of type {left.dtype}", _shown(item), _quote_remedy(left, item))
            return None
        if left.dtype == "category":
            return item.value if self.declared(at, left, item) else None
        equal = self._numbers("==", at, at, left, item)
        return None if equal is None else equal.parts[1].value

    def held(self, left_at: ast.expr, right_at: ast.expr, element: Node, texts: Node) -> Node | None:
        """Return whether a text is one of the texts of a column."""
        if texts.dtype != "texts":
            self._refuse(
                right_at,
                "a list like [1, 2], or a column of texts, after in",
                _shown(texts),
                "One value is compared with ==.",
            )
        elif element.dtype != "category" or element.op == "default":
            self._refuse(left_at, "a text before in", _shown(element))
        elif element.is_constant and not self.declared(left_at, texts, element):
            return None
        else:
            return tree.contained(element, texts)
        return None

    def declared(self, at: ast.expr, column: Node, value: Node) -> bool:
        """Return whether a text is among the declared values of a category, if it declares any."""
        source = column.parts[0] if column.op == "default" else column
        if source.term is None or source.term.values is None or value.value in source.term.values:
            return True
        expected = f"a declared value of `{source.text}`"
        self._refuse(at, expected, value.text, nearest(str(value.value), source.term.values))
        return False

    def _equal(self, left: Node, texts: tuple[str, ...]) -> Node:
        """Return a category among texts; one with a default in terms of known and unknown."""
        if left.op != "default":
            return tree.among(left, texts)
        column, instead = left.parts
        asked = "unknown" if instead.value in texts else "known"
        known = tree.made(asked, "boolean", (column,))
        return tree.joined("or" if asked == "unknown" else "and", [tree.among(column, texts), known])

    def _constant(self, at: ast.expr, always: bool, column: Node) -> None:
        term = column.term if column.op != "default" else column.parts[0].term
        assert term is not None
        told = f"always {'true' if always else 'false'} where known: `{column.text}` is {_declared_bounds(term)}"
        self._refuse(
            at, _SENSE, told, "Write known(x) if that is meant." if always else "Take it away, or mend the constant."
        )


def _always(op: str, column: Node, bound: float) -> bool | None:
    """Return what a comparison with a constant always is, given the declared bounds of the column; None where it can be
    both.
    """
    term = column.term
    if term is None:
        return None
    if op in ("==", "!=") and term.dtype == "integer" and not bound.is_integer():
        return op == "!="
    lowest = float("-inf") if term.minimum is None else term.minimum
    highest = float("inf") if term.maximum is None else term.maximum
    if op in ("<", ">="):
        return (op == ">=") if lowest >= bound else (op == "<") if highest < bound else None
    if op in (">", "<="):
        return (op == ">") if lowest > bound else (op == "<=") if highest <= bound else None
    if bound < lowest or bound > highest:
        return op == "!="
    return op == "==" if lowest == highest == bound else None


def _declared_bounds(term: Term) -> str:
    if term.values is not None:
        return f"one of {', '.join(term.values)}"
    bounds = [
        f"{word} {bound:g}" for word, bound in (("from", term.minimum), ("to", term.maximum)) if bound is not None
    ]
    return " ".join(bounds) or "a whole number"


def _shown(node: Node) -> str:
    return f"a {node.dtype}: `{node.text}`" if node.dtype != "texts" else f"texts: `{node.text}`"


def _quote_remedy(left: Node, right: Node) -> str:
    if left.dtype == "category" and right.is_constant:
        return f'Put it in quotes: "{right.text}".'
    return (
        "Write the number without quotes."
        if left.dtype == "number" and right.is_constant and right.dtype == "category"
        else ""
    )

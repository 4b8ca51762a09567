"""Names, types and units of an expression: from Python's syntax tree to nodes that are right, or problems that say why
not.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Literal

from features.expressions import nodes as tree
from features.expressions.comparisons import Comparisons
from features.expressions.evaluate import arithmetic
from features.expressions.functions import IN_WORDS, Functions, dotted
from features.expressions.nodes import Node, Type
from features.expressions.scope import TIME_UNITS, ExpressionProblem, Scope, nearest
from features.expressions.syntax import Syntax
from features.expressions.tokens import TextPosition
from features.expressions.units import Misfit, fitted, product_unit

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_OTHERS: dict[type[ast.expr], tuple[str, str]] = {
    ast.List: ("a list", "Lists stand after in."),
    ast.Tuple: ("several values with commas", "Lists are written in [ ]."),
    ast.Subscript: ("a value in [ ] after a name", "Columns have no parts of their own."),
}


class Checker:
    """Checks the parts of one expression; problems gather in `problems`, and what has one is None."""

    def __init__(self, scope: Scope, syntax: Syntax, place: TextPosition) -> None:
        self.scope, self.problems = scope, list[ExpressionProblem]()
        self._syntax, self._place = syntax, place
        self._comparisons = Comparisons(self.refuse)
        self._kinds: dict[type[ast.expr], Callable[[ast.expr], Node | None]] = {
            ast.Name: self._name,
            ast.Attribute: self._name,
            ast.Constant: self._constant,
            ast.BoolOp: self._joined,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._arithmetic,
            ast.Compare: self._comparison,
            ast.IfExp: self._conditional,
            ast.Call: Functions(self, self._comparisons).call,
        }

    def refuse(self, node: ast.expr, expected: str, got: str, remedy: str = "") -> None:
        """Note a problem at a part of the expression."""
        self.problems.append(self._place.problem(self._syntax.at(node), expected, got, remedy))

    def condition(self, node: ast.expr) -> Node | None:
        """Return a part that must be a condition, and one that can be true and false."""
        found = self._typed(node, "boolean")
        if found is not None and found.is_constant:
            self.refuse(
                node,
                "a condition that depends on something",
                f"`{found.text}`",
                "Leave it out, or write the condition itself.",
            )
            return None
        return found

    def number(self, node: ast.expr) -> Node | None:
        """Return a part that must be a number."""
        return self._typed(node, "number")

    def _typed(self, node: ast.expr, dtype: Type) -> Node | None:
        found = self.operand(node)
        if found is None or found.dtype == dtype:
            return found
        remedy = "Compare it with a value." if dtype == "boolean" else ""
        self.refuse(node, IN_WORDS[dtype], f"{IN_WORDS[found.dtype]}: `{found.text}`", remedy)
        return None

    def operand(self, node: ast.expr) -> Node | None:
        """Return a part of any type."""
        handler = self._kinds.get(type(node))
        if handler is None:
            got, remedy = _OTHERS.get(type(node), (type(node).__name__, ""))
            self.refuse(node, "a name, a value, a comparison or a function", got, remedy)
            return None
        return handler(node)

    def _name(self, node: ast.expr) -> Node | None:
        name = dotted(node)
        if name is None:
            self.refuse(
                node,
                "a name like customer.tenure_days",
                f"`{ast.unparse(node)}`",
                "Columns have no parts of their own.",
            )
            return None
        term = self.scope.get(name)
        if term is None:
            prefix = name.split(".")[0] + "."
            of_kind = [one for one in self.scope if one.startswith(prefix)]
            expected = f"a name of {prefix[:-1]}" if of_kind and "." in name else "a known name"
            self.refuse(node, expected, f"`{name}`", nearest(name, of_kind or self.scope))
            return None
        if term.kind != "segment":
            return tree.column(name, term)
        return None if term.body is None else tree.segment(name, term.body)

    def _constant(self, node: ast.expr) -> Node | None:
        assert isinstance(node, ast.Constant)
        value = node.value
        if isinstance(value, (bool, str)):
            return tree.constant(value)
        if isinstance(value, (int, float)):
            return tree.constant(float(value))
        self.refuse(node, "a number, a text, True or False", f"`{ast.unparse(node)}`")
        return None

    def _joined(self, node: ast.expr) -> Node | None:
        assert isinstance(node, ast.BoolOp)
        op: Literal["and", "or"] = "and" if isinstance(node.op, ast.And) else "or"
        checked = [self.condition(part) for part in node.values]
        parts = [part for part in checked if part is not None]
        if len(parts) < len(checked):
            return None
        joined = tree.joined(op, parts)
        operands = set(joined.parts)
        if joined.op == op and any(tree.negated(part) in operands for part in operands):
            never = "never true" if op == "and" else "never false"
            self.refuse(
                node,
                "conditions that can change the result",
                f"one and its opposite: {never}",
                "Take one of them away.",
            )
            return None
        return joined

    def _unary(self, node: ast.expr) -> Node | None:
        assert isinstance(node, ast.UnaryOp)
        if isinstance(node.op, ast.Not):
            condition = self.condition(node.operand)
            return None if condition is None else tree.negated(condition)
        if not isinstance(node.op, ast.USub):
            self.refuse(node, "`-` or `not` before a value", "another sign", "Leave it out.")
            return None
        found = self.number(node.operand)
        if found is None or not isinstance(found.value, float):
            return None if found is None else tree.made("negative", "number", (found,), found.unit)
        return tree.constant(-found.value, found.unit)

    def _arithmetic(self, node: ast.expr) -> Node | None:
        assert isinstance(node, ast.BinOp)
        left, right = self.number(node.left), self.number(node.right)
        op = _ARITHMETIC.get(type(node.op))
        if op is None:
            self.refuse(node, "one of + - * /", type(node.op).__name__, "Write it with + - * /.")
        if op is None or left is None or right is None:
            return None
        both_time = left.unit in TIME_UNITS and right.unit in TIME_UNITS
        if op in "+-" or (op == "/" and both_time):
            pair = self.fitted(node.right, left, right)
            if pair is None:
                return None
            left, right = pair
        unit = left.unit or right.unit if op in "+-" else product_unit(op, left, right)
        return self.folded(node, op, (left, right), unit)

    def folded(self, node: ast.expr, op: str, parts: tuple[Node, ...], unit: str | None) -> Node | None:
        """Return the operation, or its result where all parts are constants."""
        numbers = [part.value for part in parts if isinstance(part.value, float)]
        if len(numbers) < len(parts):
            return tree.made(op, "number", parts, unit)
        result = arithmetic(op, numbers)
        if result is None or abs(result) == float("inf"):
            self.refuse(node, "constants that make a number", f"`{ast.unparse(node)}`, which makes none")
            return None
        return tree.constant(result, unit)

    def fitted(self, node: ast.expr, left: Node, right: Node) -> tuple[Node, Node] | None:
        """Return two numbers in one unit."""
        try:
            return fitted(left, right)
        except Misfit as misfit:
            self.refuse(node, misfit.expected, misfit.got, misfit.remedy)
            return None

    def _conditional(self, node: ast.expr) -> Node | None:
        assert isinstance(node, ast.IfExp)
        condition, chosen, other = self.condition(node.test), self.operand(node.body), self.operand(node.orelse)
        if condition is None or chosen is None or other is None:
            return None
        if chosen.dtype == "boolean" == other.dtype and not chosen.is_constant and not other.is_constant:
            return tree.made("if", "boolean", (condition, chosen, other))
        if chosen.dtype != "number" or other.dtype != "number":
            remedy = "Put the comparison into each branch, or write it with and, or, not."
            self.refuse(
                node.body,
                "two numbers or two conditions to choose between",
                f"`{chosen.text}` and `{other.text}`",
                remedy,
            )
            return None
        pair = self.fitted(node.orelse, chosen, other)
        return None if pair is None else tree.made("if", "number", (condition, *pair), pair[0].unit or pair[1].unit)

    def _comparison(self, node: ast.expr) -> Node | None:
        """Return a comparison or a chain of them: `a < b < c` is `a < b and b < c`."""
        assert isinstance(node, ast.Compare)
        found: list[Node | None] = []
        sides: Sequence[ast.expr] = (node.left, *node.comparators)
        for left, op, right in zip(sides, node.ops, sides[1:], strict=False):
            if isinstance(op, (ast.In, ast.NotIn)):
                inside = self._inside(left, right)
                found.append(tree.negated(inside) if inside is not None and isinstance(op, ast.NotIn) else inside)
            elif type(op) in _COMPARISONS:
                one, other = self.operand(left), self.operand(right)
                both = one is not None and other is not None
                found.append(self._comparisons.of(_COMPARISONS[type(op)], left, right, one, other) if both else None)  # type: ignore[arg-type]
            else:
                self.refuse(right, "one of == != < <= > >= in", type(op).__name__, "Write ==.")
                found.append(None)
        parts = [part for part in found if part is not None]
        return tree.joined("and", parts) if len(parts) == len(found) else None

    def _inside(self, left: ast.expr, right: ast.expr) -> Node | None:
        element = self.operand(left)
        if isinstance(right, ast.List):
            values = [self.operand(item) for item in right.elts]
            complete = [value for value in values if value is not None]
            if element is None or len(complete) < len(values):
                return None
            return self._comparisons.listed(left, right, element, complete)
        texts = self.operand(right)
        return None if element is None or texts is None else self._comparisons.held(left, right, element, texts)

"""The functions of expressions: what each takes, and what it is as a node."""

from __future__ import annotations

import ast
from typing import Protocol

from features.expressions import nodes as tree
from features.expressions.comparisons import Comparisons
from features.expressions.nodes import Node, Type
from features.expressions.scope import TIME_UNITS, nearest

ARGUMENTS_MAX = 8
FUNCTIONS = ("abs", "default", "known", "log", "max", "min", "unknown", *TIME_UNITS)

IN_WORDS: dict[Type, str] = {
    "boolean": "a condition",
    "number": "a number",
    "category": "a text",
    "texts": "a list of texts",
}
"""Types of nodes, said to a person."""


class Operands(Protocol):
    """What checks the parts of an expression: `typecheck.Checker`."""

    def refuse(self, node: ast.expr, expected: str, got: str, remedy: str = "") -> None: ...
    def operand(self, node: ast.expr) -> Node | None: ...
    def number(self, node: ast.expr) -> Node | None: ...
    def fitted(self, node: ast.expr, left: Node, right: Node) -> tuple[Node, Node] | None: ...
    def folded(self, node: ast.expr, op: str, parts: tuple[Node, ...], unit: str | None) -> Node | None: ...


class Functions:
    """Checks the calls of one expression."""

    def __init__(self, checker: Operands, comparisons: Comparisons) -> None:
        self._checker, self._comparisons = checker, comparisons

    def call(self, node: ast.expr) -> Node | None:
        """Return a call; its problems are noted."""
        assert isinstance(node, ast.Call)
        name = dotted(node.func)
        if name not in FUNCTIONS:
            self._checker.refuse(node.func, "a function", f"`{ast.unparse(node.func)}`", nearest(str(name), FUNCTIONS))
            return None
        least, most = {"default": (2, 2), "min": (2, ARGUMENTS_MAX), "max": (2, ARGUMENTS_MAX)}.get(name, (1, 1))
        if node.keywords or not least <= len(node.args) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            self._checker.refuse(
                node, f"{wanted} value{'s' * (most > 1)} in `{name}( )`", str(len(node.args) + len(node.keywords))
            )
            return None
        if name in ("known", "unknown"):
            return self._known(name, node.args[0])
        if name == "default":
            return self._default(node.args[0], node.args[1])
        numbers = [self._checker.number(part) for part in node.args]
        if name in TIME_UNITS:
            return self._quantity(name, node, numbers[0])
        return self._function(name, node, [number for number in numbers if number is not None])

    def _function(self, name: str, node: ast.Call, numbers: list[Node]) -> Node | None:
        if len(numbers) < len(node.args):
            return None
        if len(numbers) == 1:
            return self._checker.folded(node, name, (numbers[0],), numbers[0].unit if name == "abs" else None)
        result: Node | None = numbers[0]
        for part, number in zip(node.args[1:], numbers[1:], strict=True):
            pair = None if result is None else self._checker.fitted(part, result, number)
            result = None if pair is None else self._checker.folded(node, name, pair, pair[0].unit or pair[1].unit)
        return result

    def _quantity(self, unit: str, node: ast.Call, number: Node | None) -> Node | None:
        if number is None:
            return None
        if not isinstance(number.value, float) or number.unit is not None:
            remedy = "Columns have their own unit, which converts by itself."
            self._checker.refuse(node.args[0], f"a plain number in `{unit}( )`", f"`{number.text}`", remedy)
            return None
        return tree.constant(number.value, unit)

    def _known(self, name: str, node: ast.expr) -> Node | None:
        found = self._checker.operand(node)
        if found is None:
            return None
        if found.is_constant or found.op in ("known", "unknown", "default"):
            self._checker.refuse(
                node, "something that may be unknown", f"`{found.text}`, which never is", "Leave it out."
            )
            return None
        return tree.made(name, "boolean", (found,))

    def _default(self, node: ast.expr, instead: ast.expr) -> Node | None:
        found, value = self._checker.operand(node), self._checker.operand(instead)
        if found is None or value is None:
            return None
        if found.dtype == "texts" or found.is_constant or (found.dtype == "category" and found.op != "column"):
            self._checker.refuse(node, "a column, a number or a condition that may be unknown", f"`{found.text}`")
            return None
        if value.dtype != found.dtype or not value.is_constant:
            self._checker.refuse(
                instead, f"a constant: {IN_WORDS[found.dtype]}, like `{found.text}`", f"`{value.text}`"
            )
            return None
        if found.dtype == "boolean":
            known = tree.made("known" if value.value is False else "unknown", "boolean", (found,))
            return tree.joined("and" if value.value is False else "or", [found, known])
        if found.dtype == "category":
            self._comparisons.declared(instead, found, value)
        pair = (found, value) if found.dtype == "category" else self._checker.fitted(instead, found, value)
        if pair is None:
            return None
        return tree.made("default", found.dtype, (found, pair[1]), found.unit)


def dotted(node: ast.expr) -> str | None:
    """Return `kind.name` or `name` as it is written; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return None

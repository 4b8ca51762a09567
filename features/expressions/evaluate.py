"""What an expression means, in its plainest form: the value of each part for one customer and one offer. Serves
explanations.

None is unknown. `serving/conditions/conditions.py` computes the same for all offers at once, much faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from features.expressions.nodes import Node

Value = float | str | bool | Sequence[str] | None
Lookup = Callable[[str], Value]
"""The value of a column by its full name; a time as its age in days, None or NaN where missing."""


def logarithm(value: float) -> float:
    """numpy's natural logarithm of a number above zero: that of one number is that of an array, to the bit; `math.log`
    may differ.
    """
    return float(np.log(value))


def arithmetic(op: str, numbers: Sequence[float]) -> float | None:
    """Return the result of an operation or function of numbers; None where it is unknown."""
    result = _arithmetic(op, numbers)
    return None if result is None or math.isnan(result) else result


def _arithmetic(op: str, numbers: Sequence[float]) -> float | None:
    first, last = numbers[0], numbers[-1]
    if op == "/":
        return first / last if last else None
    if op == "log":
        return logarithm(first) if first > 0 else None
    return {
        "+": lambda: first + last,
        "-": lambda: first - last,
        "*": lambda: first * last,
        "negative": lambda: -first,
        "abs": lambda: abs(first),
        "min": lambda: min(first, last),
        "max": lambda: max(first, last),
    }[op]()


class Meaning:
    """Values of the parts of expressions for one customer and one offer; each part is looked at once."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._known: dict[Node, Value] = {}

    def of(self, node: Node) -> Value:
        """Return the value of a part: a truth, a number, a text or texts; None where unknown."""
        if node not in self._known:
            self._known[node] = self._computed(node)
        return self._known[node]

    def _computed(self, node: Node) -> Value:
        op = node.op
        if op == "constant":
            return node.value
        if op == "column":
            return self._column(node)
        if op in ("known", "unknown"):
            return (self.of(node.parts[0]) is not None) == (op == "known")
        if op == "if":
            condition = self.of(node.parts[0])
            return None if condition is None else self.of(node.parts[1 if condition else 2])
        values = [self.of(part) for part in node.parts]
        if op == "segment":
            return values[0]
        if op in ("and", "or"):
            deciding = op == "or"
            return (
                deciding
                if deciding in [value for value in values if value is not None]
                else None
                if None in values
                else not deciding
            )
        if op == "default":
            return values[1] if values[0] is None else values[0]
        if None in values:
            return None
        if op == "not":
            return not values[0]
        if op in ("in", "not in"):
            return (values[0] in (node.values if len(values) == 1 else values[1])) == (op == "in")  # type: ignore[operator]
        return _compared(op, values) if node.dtype == "boolean" else arithmetic(op, values)  # type: ignore[arg-type]

    def _column(self, node: Node) -> Value:
        value = self._lookup(str(node.value))
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if node.dtype == "boolean":
            return bool(value)
        return (
            float(value) if isinstance(value, (int, float)) else value
        )  # numpy's numbers compare to truths of its own


def _compared(op: str, values: Sequence[Value]) -> bool:
    left, right = values
    if op in ("==", "!="):
        return (left == right) == (op == "==")
    assert isinstance(left, (int, float))
    assert isinstance(right, (int, float))
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[op]

"""Units of numbers in expressions: what fits what, and how units of time convert.

A plain number fits any unit, and so does a column that declares none. Two different units do not fit, but for units of
time, which convert: a quantity into the other side's unit, otherwise the coarser side into the finer unit.
"""

from __future__ import annotations

from features.expressions.nodes import Node, constant, made
from features.expressions.scope import TIME_UNITS


class Misfit(ValueError):
    """Two numbers that cannot be compared, added or chosen between; says what was expected of the second, what it is,
    and why.
    """

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"expected {expected}, got {got}. {remedy}")
        self.expected, self.got, self.remedy = expected, got, remedy


def fitted(left: Node, right: Node) -> tuple[Node, Node]:
    """Both numbers in one unit.

    Raises:
        Misfit: they have none in common.
    """
    if left.unit == right.unit:
        return left, right
    for quantity, other in ((left, right), (right, left)):
        if other.unit is None and not other.is_constant and quantity.is_constant and quantity.unit is not None:
            remedy = "Declare its unit, or write a plain number."
            raise Misfit(
                "a unit of time on both sides", f"`{other.text}`, which declares none, beside `{quantity.text}`", remedy
            )
    if left.unit is None or right.unit is None:
        return left, right
    if left.unit not in TIME_UNITS or right.unit not in TIME_UNITS:
        got = f"{right.unit}: `{left.text}` is in {left.unit}, `{right.text}` in {right.unit}"
        raise Misfit(f"a number in {left.unit}", got, "Compare what has the same unit, or write a plain number.")
    if left.is_constant or (not right.is_constant and TIME_UNITS[left.unit] > TIME_UNITS[right.unit]):
        return converted(left, right.unit), right
    return left, converted(right, left.unit)


def converted(node: Node, unit: str) -> Node:
    """Return a time in another unit: exact where the result is a float64."""
    own, wanted = TIME_UNITS[str(node.unit)], TIME_UNITS[unit]
    if isinstance(node.value, float):
        return constant(node.value * own / wanted, unit)
    return made("*", "number", (node, constant(own / wanted)), unit)


def product_unit(op: str, left: Node, right: Node) -> str | None:
    """Return the unit of a product or a quotient; None where it is not tracked. Units of time are already the same."""
    if op == "*":
        return None if left.unit is not None and right.unit is not None else left.unit or right.unit
    return left.unit if right.unit is None else None

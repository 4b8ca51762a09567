"""What compiled conditions and formulas compute with: sets of offers as bits, keys of offers, and arithmetic that knows
unknown.

A set of offers is a Python integer: bit i is offer i of the catalogue. And, or and not of sets cost some tens of
nanoseconds for hundreds of offers and grow with a 64th of their number. Numbers are float64, and NaN is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.expressions.evaluate import logarithm

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
OfferColumn: TypeAlias = Floats | Sequence[str | None] | Sequence[Sequence[str] | None]
"""One value an offer: numbers, truths (0 and 1) and moments as float64 with NaN where missing, texts and lists with
None.
"""

NAN = float("nan")
KEYS_KEPT_MAX = 1_024
"""Sets of offers that one attribute keeps ready, a key each; beyond, they are made when asked for."""


def bits_of(mask: Mask) -> int:
    """Return a mask, one truth an offer, as a set."""
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def mask_of(bits: int, count: int) -> Mask:
    """Return a set as a mask of `count` offers."""
    packed = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), np.uint8)
    found: Mask = np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)
    return found


def positions_of(bits: int, count: int) -> NDArray[np.int32]:
    """Return the offers of a set by their positions, ascending."""
    return np.flatnonzero(mask_of(bits, count)).astype(np.int32)


class TextSets:
    """Which offers have which text in one attribute: a category has one at most, texts have several.

    Args:
        column: one text, list of texts, or None an offer.
        seal: makes of a mask what sets are: bits, or the mask itself.
    """

    def __init__(
        self, column: Sequence[str | None] | Sequence[Sequence[str] | None], seal: Callable[[Mask], Any]
    ) -> None:
        self._seal, self._count = seal, len(column)
        self.positions: dict[str, list[int]] = {}
        for at, value in enumerate(column):
            for key in dict.fromkeys((value,) if isinstance(value, str) else value or ()):
                self.positions.setdefault(key, []).append(at)
        self.known = seal(np.array([value is not None for value in column], bool))
        self._none = seal(np.zeros(self._count, bool))
        self._made: dict[str, Any] = {}

    def having(self, key: str | None) -> Any:
        """Return the set of offers that have this text."""
        if key is None or key not in self.positions:
            return self._none
        found = self._made.get(key)
        if found is None:
            mask = np.zeros(self._count, bool)
            mask[self.positions[key]] = True
            found = self._seal(mask)
            if len(self._made) < KEYS_KEPT_MAX:
                self._made[key] = found
        return found

    def one_of(self, keys: Iterable[str | None]) -> Any:
        """Offers that have one of these texts."""
        found = self._none
        for key in keys:
            found = found | self.having(key)
        return found

    def none_of(self, keys: Sequence[str | None]) -> Any:
        """Offers of which the attribute is known and that have none of these texts; none if a text is unknown."""
        return self._none if None in keys else self.known ^ self.one_of(keys)

    def shared(self, other: TextSets) -> Any:
        """Offers that have a text in common in two attributes."""
        found = self._none
        for key in self.positions.keys() & other.positions.keys():
            found = found | (self.having(key) & other.having(key))
        return found

    def unshared(self, other: TextSets) -> Any:
        """Offers of which both attributes are known and have no text in common."""
        return (self.known & other.known) ^ self.shared(other)


def differ(left: float, right: float) -> bool:
    """Return whether two numbers are both known and not equal."""
    return left < right or left > right


def differs(left: Floats, right: Floats) -> Mask:
    """`differ` of arrays."""
    return (left < right) | (left > right)


def outside(value: float, values: frozenset[float]) -> bool:
    """Return whether a number is known and none of these."""
    return value == value and value not in values


def within_all(numbers: Floats, values: frozenset[float]) -> Mask:
    """Return which numbers are one of these."""
    found: Mask = np.isin(numbers, np.array(sorted(values)))
    return found


def outside_all(numbers: Floats, values: frozenset[float]) -> Mask:
    """`outside` of arrays."""
    found: Mask = (numbers == numbers) & ~within_all(numbers, values)
    return found


def quotient(left: float, right: float) -> float:
    """Unknown for a division by zero."""
    return left / right if right else NAN


def quotients(left: Floats, right: Floats) -> Floats:
    """`quotient` of arrays."""
    found: Floats = np.where(np.equal(right, 0.0), NAN, np.divide(left, right))
    return found


def least(left: float, right: float) -> float:
    """Return the smaller of two; unknown if one is."""
    return left + right if left != left or right != right else min(left, right)


def greatest(left: float, right: float) -> float:
    """Return the greater of two; unknown if one is."""
    return left + right if left != left or right != right else max(left, right)


def log(value: float) -> float:
    """Return the natural logarithm; unknown for what is not above zero."""
    return logarithm(value) if value > 0 else NAN


def logarithms(values: Floats) -> Floats:
    """`log` of arrays."""
    found: Floats = np.where(np.greater(values, 0.0), np.log(values), NAN)
    return found


def default(value: float, instead: float) -> float:
    """Return the value, or another where it is unknown."""
    return value if value == value else instead


def defaults(values: Floats, instead: float) -> Floats:
    """`default` of arrays."""
    found: Floats = np.where(values == values, values, instead)
    return found


def spread(value: float | Floats, count: int) -> Floats:
    """Return one number for every offer."""
    return np.full(count, value) if not isinstance(value, np.ndarray) else value


def chosen(true: Mask, false: Mask, left: Floats, right: Floats) -> Floats:
    """Return the left number where the condition is true, the right one where it is false, unknown elsewhere."""
    found: Floats = np.where(true, left, np.where(false, right, NAN))
    return found


FUNCTIONS: dict[str, Any] = {
    "differ": differ,
    "differs": differs,
    "outside": outside,
    "within_all": within_all,
    "outside_all": outside_all,
    "quotient": quotient,
    "quotients": quotients,
    "least": least,
    "least_all": np.minimum,
    "greatest": greatest,
    "greatest_all": np.maximum,
    "log": log,
    "logarithms": logarithms,
    "default": default,
    "defaults": defaults,
    "absolute": abs,
    "spread": spread,
    "chosen": chosen,
    "NAN": NAN,
}
"""What generated code may call, by the names it uses."""

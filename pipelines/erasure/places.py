"""A place that may hold something of a customer, and what removing it from there means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

Step = Callable[[str], None]
"""Told each change of a disk or a store before it is made; never told whose."""


class Removed(NamedTuple):
    """What a place had, what was removed, and how where that is not by deleting."""

    found: int
    removed: int
    how: str = ""


class ErasurePlace(Protocol):
    """One place. Both calls may be repeated at any time, after a crash too."""

    name: str

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        """Removes what there is of these units.

        Raises:
            Failure, OSError: the place cannot be written to now; what was removed stays removed.
        """
        ...

    def left(self, units: Sequence[str]) -> int:
        """Return what a re-read of the place finds of these units; 0 when they are forgotten."""
        ...


def plain(unit: str) -> str:
    """Return the id as clients send it: that of an anonymous unit without its mark."""
    return unit.removeprefix("~")

"""Moments as types, so that a type checker refuses seconds where microseconds are meant."""

from __future__ import annotations

from typing import NewType

Micros = NewType("Micros", int)
"""A moment: microseconds since 1970, UTC. What is stored, sent and compared."""

Seconds = NewType("Seconds", float)
"""A moment: seconds since 1970, UTC. What a decision computes with."""


BEGINNING, BEGINNING_US = Seconds(0.0), Micros(0)
"""1970: for who has no moment, where none matters."""


def in_seconds(moment: Micros) -> Seconds:
    """Return a moment in seconds; a fraction of a microsecond is lost beyond the year 2106."""
    return Seconds(moment / 1_000_000)

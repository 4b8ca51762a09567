"""The operations of the compiled fold: how one stored value takes in one event.

`features/aggregates/incremental_kernels.py` computes them. Code that numba has compiled holds these numbers: append new
ones, and never give a number another meaning.
"""

from __future__ import annotations

from enum import IntEnum


class Operation(IntEnum):
    """What the fold does with an event that counts."""

    COUNT = 0
    """Add one."""
    SUM = 1
    """Add the event's number, in whole millionths."""
    MINIMUM = 2
    MAXIMUM = 3
    MOMENT = 4
    """Keep the latest time, in whole seconds since 1970."""
    STATED = 5
    """Add one if the event states the number."""
    LAST_NUMBER = 6
    """Keep the number of the latest event that states it."""
    LAST_TEXT = 7
    LATEST_NUMBER = 8
    """Keep the time, in microseconds since 1970, of the latest event that states the number."""
    LATEST_TEXT = 9

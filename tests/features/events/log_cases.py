"""A log with room on its disk, and what became of the events that were appended to it."""

from __future__ import annotations

from features.events.rows import Result
from features.events.sqlite_file import LogLimits

ROOMY = LogLimits(free_bytes_min=0)


def outcomes(results: list[Result]) -> list[str]:
    return [result.reason or result.outcome for result in results]

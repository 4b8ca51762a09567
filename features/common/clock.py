"""The clock of every process: the one place that reads the system's wall clock.

`OPPORTUNE_CLOCK` moves it, for tests and rehearsals: a span (`+90d`, `-36h`) by which it is ahead of or behind the
system's clock, or a moment with its zone (`2028-02-29T12:00:00Z`) at which it stands when the first process starts, and
from which it runs on. The variable then holds the span that follows from the moment, so that processes started from
this one have the same clock. Monotonic timers, and so timeouts and intervals, are not moved.

Vendors read the system's clock themselves (MLflow for its records, Feast for what it writes into its registry): no
result depends on it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime

from features.common.moments import Micros, Seconds, in_seconds

VARIABLE = "OPPORTUNE_CLOCK"
EXPECTED = (
    "a span like +90d or -36h, or a moment with its zone like 2028-02-29T12:00:00Z, between the years 2000 and 2100"
)

_MICROSECONDS = 1_000_000
_UNIT_US = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"([+-])([0-9]{1,12})(?:\.([0-9]{1,6}))?([smhdw])", re.ASCII)
_FIRST_US, _LAST_US = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * _MICROSECONDS for year in (2000, 2100))


def offset_of(text: str, system_us: int) -> int:
    """Return by how many microseconds a clock set to `text` is ahead of the system's, which stands at `system_us`
    (since 1970).

    Raises:
        ValueError: the text is neither a span nor a moment, or leads out of the years 2000 to 2099.
    """
    if span := _SPAN.fullmatch(text):
        sign, whole, fraction, unit = span.groups()
        size = (int(whole) * _MICROSECONDS + int((fraction or "").ljust(6, "0"))) * _UNIT_US[unit]
        offset = size if sign == "+" else -size
    else:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} names no zone")
        offset = round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * _MICROSECONDS) - system_us
    if not _FIRST_US <= system_us + offset < _LAST_US:
        raise ValueError(f"{text!r} leads too far")
    return offset


def _set(environment: MutableMapping[str, str]) -> int:
    """Return the offset that the environment asks for, and leave it there as a span for the processes that are started
    from here.
    """
    text = environment.get(VARIABLE, "")
    if not text:
        return 0
    try:
        offset = offset_of(text, time.time_ns() // 1_000)
    except ValueError:
        # Read before anything else runs, so this is the edge of the process: a line, and a status that is not zero.
        raise SystemExit(f"{VARIABLE}: expected {EXPECTED}, got {text!r}") from None
    environment[VARIABLE] = (
        f"{'-' if offset < 0 else '+'}{abs(offset) // _MICROSECONDS}.{abs(offset) % _MICROSECONDS:06d}s"
    )
    return offset


OFFSET_US = _set(os.environ)
"""Microseconds by which this process's clock is ahead of the system's; 0 where nothing is set."""


def _system_us() -> Micros:
    """Return microseconds since 1970, UTC."""
    return Micros(time.time_ns() // 1_000)


def _moved_us() -> Micros:
    """Return microseconds since 1970, UTC, by the clock that OPPORTUNE_CLOCK sets."""
    return Micros(time.time_ns() // 1_000 + OFFSET_US)


now_us = _moved_us if OFFSET_US else _system_us
"""Return microseconds since 1970, UTC: what the hot path calls, without a question about the setting."""


def now_s() -> Seconds:
    """Return seconds since 1970, UTC."""
    return in_seconds(now_us())


def now() -> datetime:
    """Return the moment as a datetime in UTC."""
    return datetime.fromtimestamp(now_s(), UTC)


def system_s() -> float:
    """Return seconds since 1970 by the system's clock, for what other machines stamp by theirs, such as HTTP's
    `Date`.
    """
    return time.time()


def written_s(status: os.stat_result) -> float:
    """Return when a file was written last, in seconds since 1970 by this clock: file systems stamp by the system's."""
    return status.st_mtime + OFFSET_US / _MICROSECONDS


def notice() -> str:
    """Return a line that says how the clock is moved; empty where it is the system's."""
    if not OFFSET_US:
        return ""
    moment = now().replace(microsecond=0).isoformat().replace("+00:00", "Z")
    return (
        f"{VARIABLE} moves the clock by {OFFSET_US / _MICROSECONDS:+,.0f} s: it is {moment} here. Unset it to serve"
        " anybody."
    )

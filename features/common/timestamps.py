"""Time as the house writes it: UTC, microseconds since 1970 inside, RFC 3339 at the edges; windows as `30d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from features.common import clock
from features.common.moments import Micros

MICROSECONDS = 1_000_000
DAY_SECONDS = 86_400
WEEK_MICROSECONDS = 7 * DAY_SECONDS * MICROSECONDS

# At most 9999 of a unit: in weeks that is 191 years, which any engine's arithmetic holds. `(?!\n)` as in `types.py`.
_NUMBER, _UNIT = "[1-9][0-9]{0,3}", "[mhdw]"
_LENGTH = _NUMBER + _UNIT
_DURATION = re.compile(f"({_NUMBER})({_UNIT})")
_SECONDS = {"m": 60, "h": 3_600, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS}

DURATION_PATTERN = rf"^{_LENGTH}$(?!\n)"
DURATION_OR_END_PATTERN = rf"^({_LENGTH}|offer_end)$(?!\n)"
WINDOW_PATTERN = rf"^({_LENGTH}|all)$(?!\n)"
_TWO = "[0-9]{2}"
MOMENT_PATTERN = rf"^[0-9]{{4}}-{_TWO}-{_TWO}(T{_TWO}:{_TWO}(:{_TWO}(\.[0-9]{{1,6}})?)?(Z|[+-]{_TWO}:{_TWO}))?$(?!\n)"

Duration = Annotated[str, Meta(pattern=DURATION_PATTERN)]
Window = Annotated[str, Meta(pattern=WINDOW_PATTERN)]
Moment = Annotated[str, Meta(pattern=MOMENT_PATTERN)]
"""A date (its first moment in UTC) or an RFC 3339 time with its offset."""


now = clock.now_us
"""Microseconds since 1970, UTC, by the clock of this process."""


def duration_seconds(text: str) -> int:
    """`30d` in seconds.

    Raises:
        ValueError: when the text is not a number from 1 to 9999 followed by m, h, d or w.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected a duration like 30m, 12h, 7d or 4w, got {text!r}")
    return int(match[1]) * _SECONDS[match[2]]


def window_seconds(text: str) -> int | None:
    """Return a window in seconds; None for `all`."""
    return None if text == "all" else duration_seconds(text)


def parse_moment(text: str) -> Micros:
    """Return a moment of a workspace file in microseconds since 1970; a date is its first moment in UTC.

    Raises:
        ValueError: for a text that is no date or time.
    """
    moment = datetime.fromisoformat(text)
    return to_microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def to_microseconds(moment: datetime) -> Micros:
    """Return a datetime with an offset as microseconds since 1970; exact, unlike `timestamp()`."""
    delta = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return Micros((delta.days * DAY_SECONDS + delta.seconds) * MICROSECONDS + delta.microseconds)


def from_microseconds(moment: int) -> datetime:
    """Return the inverse of `to_microseconds`, in UTC."""
    seconds, rest = divmod(moment, MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def rfc3339(moment: int) -> str:
    """`2026-11-22T09:30:00Z`; fractions only where there are any."""
    return from_microseconds(moment).isoformat().replace("+00:00", "Z")

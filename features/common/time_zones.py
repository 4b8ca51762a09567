"""Time zones as people write them: `Europe/Vienna` in any case, `+01:00`, `UTC+2`, `GMT-03:30`, `Z`."""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

ZONES_MAX = 1_024

_OFFSET = re.compile(r"(?:utc|gmt)?\s*([+-])(\d{1,2})(?::?(\d{2}))?", re.IGNORECASE | re.ASCII)
_HOURS_MAX = 14
"""Of offsets that are in use, west -12:00 and east +14:00; they are whole quarters of an hour."""
_QUARTER_MINUTES = 15


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """IANA's names by themselves in lower case."""
    return {name.lower(): name for name in sorted(available_timezones())}


@lru_cache(maxsize=ZONES_MAX)
def zone_of(text: str) -> tzinfo | None:
    """Return the time zone that a text, which may be anything, means; None where it means none.

    `Etc/GMT+2` is two hours west, as IANA has it; `GMT+2` and `UTC+2` are two hours east, as people write it.
    """
    name = text.strip()
    if name.lower() in ("z", "utc", "gmt"):
        return UTC
    known = _names().get(name.lower().replace(" ", "_"))
    if known is not None:
        try:
            return ZoneInfo(known)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return None
    match = _OFFSET.fullmatch(name)
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    offset = 60 * int(hours) + int(minutes or 0)
    if int(minutes or 0) > 59 or offset % _QUARTER_MINUTES or offset > 60 * (_HOURS_MAX if sign == "+" else 12):
        return None
    return timezone(timedelta(minutes=offset if sign == "+" else -offset))

"""When an event counts that names the decision which it followed from: never before it, as far as a clock explains that
it says so.

Clocks are coarse (whole seconds, hours, a date alone) and run behind. An event that names its decision and by its own
time came a little before it counts as happened at the decision's moment: by up to five minutes, or where its time is
the whole hour or the day (UTC) of the decision. What came earlier by more keeps its time, and follows from nothing. The
lake keeps all times as they were told; its views, and what the ledger hears, have them so. This is the one place that
says how.
"""

from __future__ import annotations

from features.common.timestamps import DAY_SECONDS, MICROSECONDS

BEHIND_SECONDS_MAX = 300
"""How far the clock of a client may be behind; so far it may be ahead."""
_COARSE_SECONDS = (3_600, DAY_SECONDS)
_ID_DIGITS = (8, 15)
_HEX = frozenset("0123456789abcdef")


def moment_of(decision_id: str | None) -> int | None:
    """Return when a decision of this service was made, by its id, microseconds since 1970; None for ids of others."""
    text, dash, _ = (decision_id or "").partition("-")
    return int(text, 16) if dash and _ID_DIGITS[0] <= len(text) <= _ID_DIGITS[1] and set(text) <= _HEX else None


def followed(time: int, decided: int | None) -> int:
    """Return when an event counts.

    Args:
        time: when it happened, as it says, microseconds since 1970.
        decided: when the decision was made that it names; None where that is not known.
    """
    if decided is None or time >= decided:
        return time
    near = decided - time <= BEHIND_SECONDS_MAX * MICROSECONDS
    return (
        decided if near or any(time == decided - decided % (unit * MICROSECONDS) for unit in _COARSE_SECONDS) else time
    )


def followed_sql(time: str, decided: str) -> str:
    """Return the same in SQL, of two TIMESTAMPTZ in a session in UTC; `decided` may be NULL."""
    coarse = f"{time} IN (date_trunc('hour', {decided}), date_trunc('day', {decided}))"
    near = f"{time} >= {decided} - to_seconds({BEHIND_SECONDS_MAX})"
    return (
        f"CASE WHEN NOT coalesce({time} < {decided}, false) THEN {time} WHEN {near} THEN {decided} WHEN {coarse} THEN"
        f" {decided} ELSE {time} END"
    )


def moment_sql(decision_id: str) -> str:
    """`moment_of` in SQL, as a TIMESTAMPTZ."""
    digits = f"regexp_extract({decision_id}, '^([0-9a-f]{{{_ID_DIGITS[0]},{_ID_DIGITS[1]}}})-', 1)"
    return f"make_timestamptz(TRY_CAST('0x' || nullif({digits}, '') AS BIGINT))"

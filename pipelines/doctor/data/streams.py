"""Checks of tables that go on: those that get no data any more, and the clock by which all of it is dated."""

from __future__ import annotations

from features.common.timestamps import DAY_SECONDS, MICROSECONDS, rfc3339
from features.events import log as event_log
from features.events.rows import read_state
from features.lake.lake import quoted, view_name
from features.lake.loop_tables import EXPOSURES
from features.lake.tables import tables_of
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts

ARRIVALS_MIN = 5
"""Hours, of events, or imports, that say what is usual."""
GAP_TIMES = 3.0
QUIET_SECONDS_MIN = DAY_SECONDS
"""A night without events is none."""
AHEAD_SECONDS_MAX = 60.0


def streams_stopped(facts: Facts) -> Seen:
    """A table gets no data for several times as long as it ever did."""
    found, looked = [], 0
    for table in tables_of(facts.workspace).values():
        view = quoted(view_name(table))
        # Of what comes as events the hours in which some came; of imports their moments.
        for which, moments in (
            (
                "events",
                f"SELECT DISTINCT received // 3600000000 * 3600000000 AS hour FROM {view} WHERE received IS NOT NULL",
            ),
            (
                "imports",
                (
                    f"SELECT DISTINCT epoch_us(imported_at) // 3600000000 * 3600000000 AS hour FROM {view} WHERE"
                    " received IS NULL"
                ),
            ),
        ):
            [(count, last, longest)] = facts.con.execute(
                "SELECT count(*), max(hour), max(gap) FROM (SELECT hour, hour - lag(hour) OVER (ORDER BY hour) AS gap"
                f" FROM ({moments}) WHERE hour IS NOT NULL)"
            ).fetchall()
            if count < ARRIVALS_MIN:
                continue
            looked += 1
            silent, usual = (facts.now - last) / MICROSECONDS, longest / MICROSECONDS
            if silent > max(QUIET_SECONDS_MIN, GAP_TIMES * usual):
                evidence: dict[str, float | str] = {
                    "table": table.name,
                    "hours_without": silent / 3_600,
                    "longest_before": usual / 3_600,
                }
                todo = (
                    "Look at what sends it: the client's key and address, its queue, or the job that writes the files."
                )
                what = f"{table.name} gets no {which} any more"
                found.append(Finding("streams_stopped", "warning", what, evidence, todo, rfc3339(last)))
    if not looked:
        raise CannotSay(f"no table got data in {ARRIVALS_MIN} different hours: nobody knows what is usual")
    return Seen(f"the arrivals of {looked} tables", found)


def clock_behind(facts: Facts) -> Seen:
    """Records are dated after now: this machine's clock went back, or was ahead when they were made."""
    newest: dict[str, int] = {}
    folder = event_log.event_folder(facts.workspace.data)
    if event_log.exists(folder):
        with event_log.reading(folder) as connection:
            newest["event log"] = read_state(connection).received
    for view in ("decisions", "recorded", EXPOSURES.name, "impressions", "outcomes"):
        [(latest,)] = facts.con.execute(f"SELECT max(received) FROM {view}").fetchall()
        if latest is not None:
            newest[view] = int(latest)
    newest["features"] = facts.steps.computed_at
    where, latest = max(newest.items(), key=lambda one: one[1])
    if not latest:
        raise CannotSay("nothing was recorded here yet")
    ahead = (latest - facts.now) / MICROSECONDS
    if ahead <= AHEAD_SECONDS_MAX:
        return Seen(f"the newest moments of {len(newest)} places")
    evidence: dict[str, float | str] = {"seconds": ahead, "newest": rfc3339(latest), "in": where}
    todo = (
        "Let a time service keep the clock. Where it was ahead before, limits and windows count what lies in the future"
        " until it is past."
    )
    what = "the newest record is dated after now: the clock of this machine went back, or was ahead when it was made"
    return Seen("the newest moments", [Finding("clock_behind", "error", what, evidence, todo)])


CHECKS = (streams_stopped, clock_behind)

"""Checks of what was brought: whether the tables know each other's ids, and hold what only looks like a customer or a time zone."""

from __future__ import annotations

from pipelines.doctor_facts import Facts, Finding
from pipelines.fitting import THINGS

ROWS_MIN = 20
"""Fewer rows say nothing."""
UNKNOWN_SHARE_MAX = 0.5
EARLY_SHARE_MAX = 0.02


def ids_in_common(facts: Facts) -> list[Finding] | str:
    """A table names customers, offers or decisions that the tables which describe these do not have."""
    data = facts.data
    if isinstance(data, str):
        return data
    looked = [shared for shared in data.shared if shared.known and shared.rows >= ROWS_MIN]
    if not looked:
        return f"no two tables have ids of one kind, and {ROWS_MIN} rows"
    found = []
    for shared in looked:
        things, nobody = THINGS[shared.column], not any(shared.known.values())
        unknown = (shared.unknown_rows or 0) / shared.rows
        if not nobody and unknown <= UNKNOWN_SHARE_MAX:
            continue
        what = (
            f"none of the {things} of {shared.table} is in another table"
            if nobody
            else f"most rows of {shared.table} are of unknown {things}"
        )
        evidence: dict[str, float | str] = {"rows": shared.rows, things: shared.ids, "rows_of_unknown": shared.unknown_rows or 0}
        evidence |= {f"in_{name}": count for name, count in shared.known.items()}
        todo = f"Compare `{shared.column}` of the tables: both must spell the same id the same way."
        found.append(Finding("ids_in_common", "error" if nobody else "warning", what, evidence, todo))
    return found


def ids_with_tails(facts: Facts) -> list[Finding] | str:
    """Ids that are whole numbers which a tool wrote as floats: `9001.0`."""
    data = facts.data
    if isinstance(data, str):
        return data
    return [
        Finding(
            "ids_with_tails",
            "warning",
            f"{THINGS[shared.column]} of {shared.table} end in `.0`, as {', '.join(shared.examples)}: a tool wrote whole numbers as floats",
            {"such": shared.tailed, "ids": shared.ids, "known_without_it": shared.tailed_known},
            f"Write `{shared.column}` as text or whole number; remove the table's folder of the lake, and import again.",
        )
        for shared in data.shared
        if shared.tailed
    ]


def one_customer(facts: Facts) -> list[Finding] | str:
    """One customer has so large a part of the events that it is hardly one: a default, a test, a shop's own till."""
    data = facts.data
    if isinstance(data, str):
        return data
    looked = [shared for shared in data.shared if shared.most]
    if not looked:
        return "no table has events of customers"
    return [
        Finding(
            "one_customer",
            "warning",
            f"the customer `{shared.most}` has {shared.most_rows / shared.rows:.0%} of the rows of {shared.table}",
            {"rows": shared.rows, "of_this_customer": shared.most_rows, "customers": shared.ids},
            "If that is nobody, leave its rows out where they come from; `missing` under `sources` names words that mean nobody.",
        )
        for shared in looked
        if shared.absurd
    ]


def imported_before_decisions(facts: Facts) -> list[Finding] | str:
    """Imported impressions and outcomes happened, as they say, long before the decision that they name."""
    data = facts.data
    if isinstance(data, str):
        return data
    tied = {shared.table: shared.rows for shared in data.shared if shared.column == "decision_id"}
    found = []
    for table, early in data.early.items():
        if early.before > EARLY_SHARE_MAX * tied.get(table, 0):
            evidence: dict[str, float | str] = {"rows": tied.get(table, 0), "long_before": early.before, "a_little_before": early.clamped}
            what = f"imported {table} happened long before the decision that they name: nothing learns from them"
            todo = "Look at the clocks and time zones of what exports `time`: without an offset it is UTC."
            found.append(Finding("imported_before_decisions", "warning", what, evidence, todo))
    return found


def time_zones(facts: Facts) -> list[Finding] | str:
    """Quiet hours look at a column whose time zones are none."""
    data = facts.data
    if isinstance(data, str):
        return data
    return [
        Finding(
            "time_zones",
            "warning",
            f"`{column}` of {table} has time zones that are none: quiet hours of these customers go by the workspace's own",
            dict(zones),
            "Write IANA names, as Europe/Vienna, or offsets, as +01:00.",
        )
        for table, columns in data.zones.items()
        for column, zones in columns.items()
    ]


CHECKS = (ids_in_common, ids_with_tails, one_customer, imported_before_decisions, time_zones)

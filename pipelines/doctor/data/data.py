"""Checks of how tables fit together: whether they know each other's ids, and whether events follow the decision that
they name.
"""

from __future__ import annotations

from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from pipelines.importing.table_fit import THINGS

ROWS_MIN = 20
"""Fewer rows say nothing."""
UNKNOWN_SHARE_MAX = 0.5
EARLY_SHARE_MAX = 0.02


def ids_in_common(facts: Facts) -> Seen:
    """A table names customers, offers or decisions that the tables which describe these do not have."""
    looked = [shared for shared in facts.data.shared if shared.known and shared.rows >= ROWS_MIN]
    if not looked:
        raise CannotSay(f"no two tables have ids of one kind, and {ROWS_MIN} rows")
    found = []
    for shared in looked:
        things, nobody = THINGS[shared.column], not any(shared.known.values())
        unknown = (shared.unknown_rows or 0) / shared.rows
        if not nobody and unknown <= UNKNOWN_SHARE_MAX:
            continue
        what = f"most rows of {shared.table} are of unknown {things}"
        if nobody:
            what = f"none of the {things} of {shared.table} is in another table"
        evidence: dict[str, float | str] = {
            "rows": shared.rows,
            things: shared.ids,
            "rows_of_unknown": shared.unknown_rows or 0,
        }
        evidence |= {f"in_{name}": count for name, count in shared.known.items()}
        todo = f"Compare `{shared.column}` of the tables: both must spell the same id the same way."
        found.append(Finding("ids_in_common", "error" if nobody else "warning", what, evidence, todo))
    return Seen(f"ids of {len(looked)} columns", found)


def ids_with_tails(facts: Facts) -> Seen:
    """Ids are whole numbers that a program wrote as decimal ones: `9001.0`."""
    found = []
    for shared in facts.data.shared:
        if shared.tailed:
            written = ", ".join(shared.examples)
            what = (
                f"{THINGS[shared.column]} of {shared.table} end in `.0`, as {written}: a program wrote whole numbers as"
                " decimal ones"
            )
            evidence: dict[str, float | str] = {
                "such": shared.tailed,
                "ids": shared.ids,
                "known_without_it": shared.tailed_known,
            }
            todo = (
                f"Write `{shared.column}` as text or whole number, remove the table's folder of the lake, and import"
                " again."
            )
            found.append(Finding("ids_with_tails", "warning", what, evidence, todo))
    return Seen(f"{sum(shared.ids for shared in facts.data.shared):,} ids", found)


def imported_before_decisions(facts: Facts) -> Seen:
    """Imported impressions and outcomes happened, as they say, long before the decision that they name."""
    tied = {
        shared.table: shared.rows
        for shared in facts.data.shared
        if shared.column == "decision_id" and shared.table != "decisions"
    }
    if not tied:
        raise CannotSay("no impression or outcome names a decision")
    found = []
    for table, early in facts.data.early.items():
        if early.before > EARLY_SHARE_MAX * tied.get(table, 0):
            evidence: dict[str, float | str] = {
                "rows": tied.get(table, 0),
                "long_before": early.before,
                "a_little_before": early.clamped,
            }
            what = f"imported {table} happened long before the decision that they name: nothing learns from them"
            todo = "Look at the clocks and time zones of what exports `time`: without an offset it is UTC."
            found.append(Finding("imported_before_decisions", "warning", what, evidence, todo))
    return Seen(f"{sum(tied.values()):,} rows that name a decision", found)


CHECKS = (ids_in_common, ids_with_tails, imported_before_decisions)

"""Checks of what is known of customers: is the online store filled, fresh and right, do columns say anything, have they
moved.
"""

from __future__ import annotations

import math

from features.common.timestamps import rfc3339
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.facts import ColumnFacts
from pipelines.doctor.facts.gather import Facts

ROWS_MIN = 50
"""Fewer rows say nothing of a column."""
KNOWN_SHARE_MIN = 0.5
STALE_SHARE_MAX = 0.05
MOVED_MIN = 0.25
"""Population stability index from which on a distribution counts as another one."""
NAMED_MAX = 10


def store_empty(facts: Facts) -> Seen:
    """The online store was never filled, has lost its rows, or is damaged."""
    store = facts.store
    if store.damage:
        todo = "Run `opportune rebuild --online`."
        return Seen(
            f"{store.sampled:,} customers looked up in the online store, and the checksum of every record",
            [Finding("store_empty", "error", "the online store is damaged", {"damage": store.damage}, todo)],
        )
    if not store.materialized and not store.known:
        todo = "Run `opportune materialize`, or `opportune up`."
        return Seen(
            f"{store.sampled:,} customers looked up in the online store, and the checksum of every record",
            [Finding("store_empty", "error", "the online store was never filled", {"sampled": store.sampled}, todo)],
        )
    if not store.sampled:
        raise CannotSay("no customer to look for")
    if store.known >= KNOWN_SHARE_MIN * store.sampled:
        return Seen(f"{store.sampled:,} customers looked up in the online store, and the checksum of every record")
    what = "the online store is empty" if not store.known else "customers are missing in the online store"
    evidence: dict[str, float | str] = {"sampled": store.sampled, "known": store.known}
    return Seen(
        f"{store.sampled:,} customers looked up in the online store, and the checksum of every record",
        [
            Finding(
                "store_empty",
                "error",
                what,
                evidence,
                "Run `opportune materialize`; `opportune rebuild --online` where it fails.",
            )
        ],
    )


def views_never_filled(facts: Facts) -> Seen:
    """A declared view has no row for anybody."""
    store = facts.store
    if not store.known:
        raise CannotSay("nobody of the sample is in the online store")
    empty = [view.name for view in store.views if not view.present]
    if not empty:
        return Seen(f"{store.known:,} rows of the online store")
    todo = (
        "Bring the data of these sources (`opportune import`), then `opportune materialize`; or take them out of"
        " features.yaml."
    )
    return Seen(
        f"{store.known:,} rows of the online store",
        [
            Finding(
                "views_never_filled",
                "warning",
                f"no customer has a row of {', '.join(empty)}",
                {"sampled": store.known},
                todo,
            )
        ],
    )


def rows_too_old(facts: Facts) -> Seen:
    """Rows are older than the freshness limits of the columns that the model uses."""
    store = facts.store
    if not store.known:
        raise CannotSay("nobody of the sample is in the online store")
    found = []
    for view in store.views:
        if view.present and view.stale > STALE_SHARE_MAX * view.present:
            evidence: dict[str, float | str] = {
                "sampled": view.present,
                "too_old": view.stale,
                "newest": rfc3339(int(view.newest * 1e6)),
            }
            what = f"rows of {view.name} are older than their freshness limit: what they say is missing in decisions"
            todo = "Run the background worker, or `opportune features` and `opportune materialize`."
            found.append(Finding("rows_too_old", "error", what, evidence, todo, rfc3339(int(view.newest * 1e6))))
    return Seen(f"{store.known:,} rows of the online store", found)


def columns_say_nothing(facts: Facts) -> Seen:
    """Columns are missing for everybody, or the same for everybody."""
    store = facts.store
    columns = [column for column in store.columns if column.rows >= ROWS_MIN]
    if not columns:
        raise CannotSay(f"fewer than {ROWS_MIN} known customers")
    return Seen(
        f"{len(columns)} columns of {store.known:,} rows",
        _silent(
            columns, "columns_say_nothing", "in the online store", "Look at their source and window in features.yaml."
        ),
    )


def recorded_columns_say_nothing(facts: Facts) -> Seen:
    """The same in what the model saw, context and pair columns included."""
    drift = facts.drift
    if drift.decisions < ROWS_MIN:
        raise CannotSay(f"{drift.decisions} recorded decisions, expected at least {ROWS_MIN}")
    todo = "A context column must come with the request; a pair column needs offers whose keys customers have."
    return Seen(
        f"{len(drift.columns)} columns of {drift.decisions:,} decisions",
        _silent(
            [c for c in drift.columns if c.rows >= ROWS_MIN],
            "recorded_columns_say_nothing",
            "in recorded decisions",
            todo,
        ),
    )


def _silent(columns: list[ColumnFacts], check: str, where: str, todo: str) -> list[Finding]:
    found = []
    missing = [column.name for column in columns if column.missing == column.rows]
    constant = [column.name for column in columns if column.missing == 0 and column.distinct == 1]
    for names, what in ((missing, "columns that are always missing"), (constant, "columns that never change")):
        if names:
            more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
            evidence: dict[str, float | str] = {"columns": len(names), "of": len(columns), "rows": columns[0].rows}
            found.append(
                Finding(check, "warning", f"{what} {where}: {', '.join(names[:NAMED_MAX])}{more}", evidence, todo)
            )
    return found


def columns_moved(facts: Facts) -> Seen:
    """The distribution of a column is another one than the model was trained on."""
    drift = facts.drift
    if not drift.compared:
        raise CannotSay("fewer recorded decisions or training rows than a comparison needs")
    moved = {name: index for name, index in drift.moved.items() if index > MOVED_MIN}
    if not moved:
        return Seen(f"{drift.compared} columns of {drift.customers:,} customers")
    worst = dict(sorted(moved.items(), key=lambda one: -one[1])[:NAMED_MAX])
    return Seen(
        f"{drift.compared} columns of {drift.customers:,} customers",
        [
            Finding(
                "columns_moved",
                "warning",
                f"{len(moved)} columns have another distribution than at training",
                {
                    "compared": drift.compared,
                    "customers": drift.customers,
                    **{name: _finite(index) for name, index in worst.items()},
                },
                "Look whether their source changed; if the world did, run `opportune train`.",
            )
        ],
    )


def _finite(index: float) -> float:
    return index if math.isfinite(index) else 99.0


def online_equals_lake(facts: Facts) -> Seen:
    """Online rows say what the lake says."""
    skew = facts.skew
    if not skew.customers:
        raise CannotSay("no online row to compare")
    if not skew.different:
        return Seen(f"rows of {skew.customers} customers")
    names = ", ".join(skew.different[:NAMED_MAX])
    evidence: dict[str, float | str] = {"customers": skew.customers, "columns": len(skew.different)}
    todo = "Run `opportune materialize`: the lake was changed behind the rows, or a source was imported again."
    return Seen(
        f"rows of {skew.customers} customers",
        [Finding("online_equals_lake", "warning", f"online rows differ from the lake in {names}", evidence, todo)],
    )


def consent(facts: Facts) -> Seen:
    """Most customers do not allow a purpose."""
    store = facts.store
    if not store.consents:
        raise CannotSay("no purpose of the workspace asks for consent")
    found = []
    for purpose, (rows, denied) in store.consents.items():
        if rows >= ROWS_MIN and denied > KNOWN_SHARE_MIN * rows:
            evidence: dict[str, float | str] = {"sampled": rows, "denied": denied, "share": denied / rows}
            todo = (
                "Look whether the column of features.yaml, `consent`, is filled: an unknown answer may count as a"
                " denial."
            )
            found.append(
                Finding("consent", "warning", f"most customers do not allow the purpose {purpose}", evidence, todo)
            )
    return Seen(f"{store.known:,} rows of the online store", found)


CHECKS = (
    store_empty,
    views_never_filled,
    rows_too_old,
    columns_say_nothing,
    recorded_columns_say_nothing,
    columns_moved,
    online_equals_lake,
    consent,
)

"""The units of an experiment, from the exposures of the lake: who was first exposed when, and in which arm.

The analysis unit is what was randomized, from its first exposure on. A unit that was exposed in two arms is counted and
left out. A unit whose window is still open is left out too, unless open ones are asked for, which all have done less
than they will; with windows closed, the order of units is that of their exposures, as intervals that allow many looks
want.

The view `exposures` has a row an exposure: customer_id, experiment, arm, time. It may have more, which says more:
`unit` (what was randomized, where that is no customer), `probability` (of the arm), `channel`, `placement`, `degraded`
(texts) and `took_us` (of the decision).
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
from msgspec import Struct

from features.common.errors import Failure
from features.common.moments import Micros
from features.config.experiments import Goals, Unit
from features.lake.lake import literal, quoted, select, view_name
from features.lake.loop_tables import EXPOSURES, LINKS
from features.workspace.workspace import Workspace

VIEW = "exposures"
REQUIRED = ("customer_id", "experiment", "arm", "time")
OPTIONAL = {
    "unit": "VARCHAR",
    "probability": "DOUBLE",
    "decision_id": "VARCHAR",
    "channel": "VARCHAR",
    "placement": "VARCHAR",
    "degraded": "VARCHAR[]",
    "took_us": "BIGINT",
}
MIXED_SHARE = 0.01


class NoExposures(Failure):
    """There is nothing to report on."""


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of the lake; moments in microseconds since 1970.

    Attributes:
        arms: those of the experiment, the control among them; exposures of others are left out.
        outcome: type of the outcomes that count as conversions, and whose values add up.
        since, until: bounds of first exposures, the second exclusive.
        now: what happened later is not known.
        open_windows: whether units count whose window is not closed at `now`.
        goals: how far a single unit may count.
    """

    experiment: str
    arms: tuple[str, ...]
    control: str
    outcome: str
    window_seconds: int
    now: Micros
    since: int | None = None
    until: int | None = None
    open_windows: bool = False
    goals: Goals = Goals()


class DrawnUnits(NamedTuple):
    """Units of a day by arm, and the probabilities with which most of them were drawn; None where nobody wrote them
    down.
    """

    day: int
    units: tuple[int, ...]
    probabilities: tuple[float | None, ...]
    is_mixed: bool
    """Whether more than `MIXED_SHARE` of an arm's units were drawn with another probability than most on that day."""


def show_units(con: duckdb.DuckDBPyConnection, workspace: Workspace, kind: Unit) -> None:
    """Let the lake's view of exposures say the units of one kind, which logging in does not change, beside the
    customers that they belong to.

    The lake's own views show a linked anonymous id as its customer: that is another unit, which other arms may have.
    """
    links = f"SELECT unit, arg_min(customer_id, received) AS customer_id FROM {view_name(LINKS)} GROUP BY unit"
    own = "coalesce(l.customer_id, e.customer_id)"
    unit = own if kind == "customer" else "coalesce(e.unit, e.customer_id)"
    con.execute(f"""
        CREATE OR REPLACE VIEW {VIEW} AS
        SELECT e.* REPLACE ({own} AS customer_id, {unit} AS unit)
        FROM ({select(workspace, EXPOSURES)}) e LEFT JOIN ({links}) l ON l.unit = e.customer_id""")


def drawn_in(con: duckdb.DuckDBPyConnection, question: Question) -> tuple[DrawnUnits, ...]:
    """Return the units of each day by arm alone, which takes a part of the time of `read`.

    Raises:
        NoExposures: the lake has no table of exposures.
    """
    make_cohort(con, question)
    return drawn(con, question)


def make_cohort(con: duckdb.DuckDBPyConnection, question: Question) -> None:
    """Make the temporary tables `exposed`, `seen`, `single` and `members` of one experiment.

    Raises:
        NoExposures: the lake has no table of exposures.
    """
    _expose(con, question)
    _gather(con, question)


def _expose(con: duckdb.DuckDBPyConnection, question: Question) -> None:
    """Make the table `exposed`: rows of this experiment that are known now, with every optional column, NULL where the
    lake has none.
    """
    try:
        has = {row[0] for row in con.execute(f"DESCRIBE {VIEW}").fetchall()}
    except duckdb.CatalogException as error:
        raise NoExposures(
            f"expected a table `{VIEW}` in the lake, got none: nothing was exposed yet, or journals are not shipped"
        ) from error
    lacks = [name for name in REQUIRED if name not in has]
    if lacks:
        raise NoExposures(
            f"expected the table `{VIEW}` to have the columns {', '.join(REQUIRED)}, got none called {', '.join(lacks)}"
        )
    more = ", ".join(
        f"{name if name in has else f'NULL::{kind}'} AS {name}" for name, kind in OPTIONAL.items() if name != "unit"
    )
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE exposed AS
        SELECT customer_id, {_unit(has)} AS unit, list_position({_listed(question.arms)}, arm) - 1 AS place, time,
            {more}
        FROM {VIEW} WHERE experiment = {literal(question.experiment)} AND time <= {moment_sql(question.now)}""")


def _gather(con: duckdb.DuckDBPyConnection, question: Question) -> None:
    """Make `seen`: all units of the cohort with the number of their arms; `single`: those of one arm; `members`: whose
    customers they are.

    Arms that are gone count as one, without a place.
    """
    bounds = [f"first >= {moment_sql(question.since)}"] if question.since is not None else []
    bounds += [f"first < {moment_sql(question.until)}"] if question.until is not None else []
    closes = f"first + to_seconds({question.window_seconds})"
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE seen AS
        SELECT unit, min(time) AS first, count(DISTINCT coalesce(place, -1)) AS arms, any_value(place) AS place,
            count(*) AS exposures,
            arg_min(probability, time) AS probability
        FROM exposed GROUP BY unit HAVING {" AND ".join(bounds) or "true"};
        CREATE OR REPLACE TEMP TABLE single AS
        SELECT *, {closes} AS closes, {closes} > {moment_sql(question.now)} AS is_open,
            epoch_us(first) // 86400000000 AS day
        FROM seen WHERE arms = 1 AND place IS NOT NULL;
        CREATE OR REPLACE TEMP TABLE members AS SELECT DISTINCT customer_id, unit FROM exposed SEMI JOIN single USING
            (unit);"""
    )


def drawn(con: duckdb.DuckDBPyConnection, question: Question) -> tuple[DrawnUnits, ...]:
    """Return the units of each day by arm, of the cohort that was made."""
    rows = con.execute(
        "SELECT day, place, round(probability, 6) AS share, count(*) FROM single GROUP BY ALL ORDER BY 1, 2, 4, 3"
    ).fetchall()
    days: dict[int, list[dict[float | None, int]]] = {}
    for day, at, probability, count in rows:
        days.setdefault(int(day), [{} for _ in question.arms])[at][probability] = count
    return tuple(
        DrawnUnits(
            day,
            tuple(sum(kinds.values()) for kinds in arms),
            tuple(max(kinds, key=kinds.__getitem__) if kinds else None for kinds in arms),
            any(max(kinds.values()) < (1 - MIXED_SHARE) * sum(kinds.values()) for kinds in arms if kinds),
        )
        for day, arms in days.items()
    )


def so_far(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Return exposures and units of every experiment that the lake knows; empty where it has no such table."""
    try:
        has = {row[0] for row in con.execute(f"DESCRIBE {VIEW}").fetchall()}
        rows = con.execute(
            f"SELECT experiment, count(*), count(DISTINCT {_unit(has)}) FROM {quoted(VIEW)} GROUP BY 1"
        ).fetchall()
    except duckdb.CatalogException:
        return {}
    return {str(key): (int(exposures), int(units)) for key, exposures, units in rows}


def _unit(has: set[str]) -> str:
    """SQL of a row's unit, of the columns that the view has."""
    return "coalesce(unit, customer_id)" if "unit" in has else "customer_id"


def moment_sql(at: int) -> str:
    """Return a moment, microseconds since 1970, as SQL."""
    return f"make_timestamptz({at}::BIGINT)"


def _listed(names: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(literal, names)) + "]"

"""What the units of an experiment did, from the lake: summaries by arm and day, and tallies by dimension.

What a unit did in the window after its first exposure counts, whatever it was shown: it is what its customers did,
those who were exposed as it, and whom its anonymous id was linked to, before and after they logged in.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np

from features.common.types import ANONYMOUS
from features.lake.lake import literal
from pipelines.experiments.cohort import DrawnUnits, NoExposures, Question, drawn, make_cohort, moment_sql
from pipelines.experiments.outliers import HeldValues, Outlier, bound, outliers
from pipelines.statistics.summaries import Floats, Summary

SLOW_QUANTILE = 0.95
"""A decision is slow that takes longer than this part of the control's."""
OVERLAPPING = ("channel", "placement")
"""Dimensions in which a unit counts once in each value where it was ever exposed: what is lost in one does not change
the others.
"""
DIMENSIONS = ("day", *OVERLAPPING, "kind of unit", "exposures")
DIMENSION_VALUES_MAX = 400
NUMBERS = (
    "converted",
    "conversions",
    "value",
    "decisions",
    "clicks",
    "impressions",
    "dismissals",
    "withdrawn",
    "degraded",
    "slow",
    "before_conversions",
    "before_value",
)
"""Of each unit, in the order of the columns of a summary. `converted` and `withdrawn` are 0 or 1."""


class Tally(NamedTuple):
    """Units of one value of a dimension, by arm."""

    dimension: str
    value: str
    units: tuple[int, ...]


class Read(NamedTuple):
    """What the lake says of an experiment; tuples are by arm, in the order of `Question.arms`.

    Attributes:
        exposures: rows, of all units that count for the split.
        units: those that were exposed, in one arm only.
        open: those of them whose window is not closed.
        heard: those of them of whom any impression or outcome followed within the window.
        several: units that were seen in more than one arm, be it one that is gone.
        others: units only of arms that the experiment does not have.
        days: the days of first exposures, in order, days since 1970.
        daily: the summary of each day and arm.
        recorded: names of the numbers that any unit has.
    """

    exposures: tuple[int, ...]
    units: tuple[int, ...]
    open: tuple[int, ...]
    heard: tuple[int, ...]
    several: int
    others: int
    days: tuple[int, ...]
    daily: tuple[tuple[Summary, ...], ...]
    drawn: tuple[DrawnUnits, ...]
    tallies: tuple[Tally, ...]
    recorded: frozenset[str]
    bounds: tuple[HeldValues, ...] = ()
    outliers: tuple[Outlier, ...] = ()


def read(con: duckdb.DuckDBPyConnection, question: Question) -> Read:
    """Ask the lake, through a connection that has its views (`features.lake.lake.connect`, then `show_units`). Memory
    is bounded by DuckDB's limit.

    Raises:
        NoExposures: the lake has no exposures of this experiment in these bounds.
    """
    make_cohort(con, question)
    _facts(con, question)
    bounds = bound(con, question.goals, len(question.arms))
    by_arm = {row[0]: row[1:] for row in con.execute(_BY_ARM).fetchall()}
    several, others = con.execute(
        "SELECT count(*) FILTER (arms > 1), count(*) FILTER (arms = 1 AND place IS NULL) FROM seen"
    ).fetchall()[0]
    if not by_arm and not several:
        raise NoExposures(
            f"expected exposures of the experiment {question.experiment} in the lake, got none"
            + (" between --since and --until" if question.since is not None or question.until is not None else "")
            + f"{'' if not others else f', but {others} units of arms that it does not have'}. Is it running, and are"
            " journals shipped?"
        )
    counts = np.array([by_arm.get(at, (0, 0, 0, 0)) for at in range(len(question.arms))], np.int64)
    days, daily, recorded = _summaries(con, question)
    exposures, units, still_open, heard = (tuple(int(count) for count in column) for column in counts.T)
    return Read(
        exposures,
        units,
        still_open,
        heard,
        int(several),
        int(others),
        days,
        daily,
        drawn(con, question),
        _tallies(con, question),
        recorded,
        bounds,
        outliers(con),
    )


_BY_ARM = """
    SELECT place, sum(exposures), count(*), count(*) FILTER (is_open), count(*) FILTER (is_heard)
    FROM single LEFT JOIN heard USING (unit) GROUP BY place"""


def _facts(con: duckdb.DuckDBPyConnection, question: Question) -> None:
    """Make the table `facts`: a row a unit with `NUMBERS`; and `heard`: of whom anything was heard."""
    slow = con.execute(
        f"SELECT quantile_cont(took_us, {SLOW_QUANTILE}) FROM exposed WHERE place ="
        f" {question.arms.index(question.control)}"
    ).fetchall()[0][0]
    window, now, label = f"to_seconds({question.window_seconds})", moment_sql(question.now), literal(question.outcome)
    inside = f"time >= u.first AND time < u.closes AND time <= {now}"
    before = f"time < u.first AND time >= u.first - {window}"
    of_units = "JOIN members m USING (customer_id) JOIN single u ON u.unit = m.unit"
    counted = "" if question.open_windows else "WHERE NOT u.is_open"
    summed = [name for name in NUMBERS if name not in ("converted", "withdrawn")]
    numbers = ", ".join(f"coalesce({name}, 0)::DOUBLE AS {name}" for name in summed)
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE did AS
        SELECT u.unit, count(*) FILTER ({inside} AND type = {label}) AS conversions,
            sum(value) FILTER ({inside} AND type = {label}) AS value, count(*) FILTER ({inside} AND type = 'click') AS
                clicks,
            count(*) FILTER ({inside} AND type = 'dismissal') AS dismissals, count(*) FILTER ({inside}) AS outcomes,
            count(*) FILTER ({before} AND type = {label}) AS before_conversions, sum(value) FILTER ({before} AND type =
                {label}) AS before_value
        FROM outcomes e {of_units} WHERE e.time >= u.first - {window} AND e.time < u.closes GROUP BY u.unit;
        CREATE OR REPLACE TEMP TABLE saw AS
        SELECT u.unit, count(*) AS impressions FROM impressions e {of_units} WHERE {inside.replace("time ", "e.time ")}
            GROUP BY u.unit;
        CREATE OR REPLACE TEMP TABLE withdrew AS
        SELECT DISTINCT u.unit FROM consents e {of_units} WHERE NOT allowed AND {inside.replace("time ", "e.time ")};
        CREATE OR REPLACE TEMP TABLE decided AS
        SELECT u.unit, count(DISTINCT coalesce(decision_id, time::VARCHAR)) AS decisions,
            count(DISTINCT coalesce(decision_id, time::VARCHAR)) FILTER (len(x.degraded) > 0) AS degraded,
            count(DISTINCT coalesce(decision_id, time::VARCHAR)) FILTER (took_us >
                {slow if slow is not None else "NULL"}) AS slow
        FROM (SELECT unit, time, decision_id, degraded, took_us FROM exposed) x JOIN single u USING (unit) WHERE
            {inside} GROUP BY u.unit;
        CREATE OR REPLACE TEMP TABLE heard AS
        SELECT unit, coalesce(outcomes, 0) + coalesce(impressions, 0) > 0 AS is_heard FROM did FULL JOIN saw USING
            (unit);
        CREATE OR REPLACE TEMP TABLE facts AS
        SELECT u.place, u.day, (coalesce(conversions, 0) > 0)::DOUBLE AS converted, (w.unit IS NOT NULL)::DOUBLE AS
            withdrawn,
            {numbers}
        FROM single u LEFT JOIN did USING (unit) LEFT JOIN saw USING (unit) LEFT JOIN decided USING (unit) LEFT JOIN
            withdrew w USING (unit)
        {counted};""")


def _summaries(
    con: duckdb.DuckDBPyConnection, question: Question
) -> tuple[tuple[int, ...], tuple[tuple[Summary, ...], ...], frozenset[str]]:
    """Return the days, the summary of each day by arm, and which numbers are not all zero."""
    pairs = [(one, other) for at, one in enumerate(NUMBERS) for other in NUMBERS[at:]]
    means = ", ".join(f"avg({name})" for name in NUMBERS)
    spreads = ", ".join(f"covar_pop({one}, {other})" for one, other in pairs)
    rows = con.execute(f"SELECT day, place, count(*), {means}, {spreads} FROM facts GROUP BY day, place").fetchall()
    upper, found = np.triu_indices(len(NUMBERS)), {}
    recorded = np.zeros(len(NUMBERS), bool)
    for day, at, count, *numbers in rows:
        averages, flat = np.array(numbers[: len(NUMBERS)]), np.array(numbers[len(NUMBERS) :])
        scatter: Floats = np.zeros((len(NUMBERS), len(NUMBERS)))
        scatter[upper] = flat * count
        scatter.T[upper] = flat * count
        found[int(day), int(at)] = Summary(np.asarray(float(count)), averages, scatter)
        recorded |= (averages != 0) | (np.diagonal(scatter) > 0)
    nobody = Summary(np.zeros(()), np.zeros(len(NUMBERS)), np.zeros((len(NUMBERS), len(NUMBERS))))
    days = tuple(sorted({day for day, _ in found}))
    daily = tuple(tuple(found.get((day, at), nobody) for at in range(len(question.arms))) for day in days)
    return days, daily, frozenset(name for name, some in zip(NUMBERS, recorded, strict=True) if some)


_VALUE_OF = {
    "day": "strftime(make_timestamp(day * 86400000000), '%Y-%m-%d')",
    "channel": "channel",
    "placement": "placement",
    "kind of unit": f"CASE WHEN starts_with(unit, {literal(ANONYMOUS)}) THEN 'anonymous' ELSE 'known' END",
    "exposures": "CASE WHEN exposures > {bots} THEN 'more than {bots}' ELSE 'at most {bots}' END",
}
BOT_EXPOSURES = 200
"""A unit that was exposed more often is hardly a person."""


def _tallies(con: duckdb.DuckDBPyConnection, question: Question) -> tuple[Tally, ...]:
    found: dict[tuple[str, str], list[int]] = {}
    for dimension in DIMENSIONS:
        value = _VALUE_OF[dimension].format(bots=BOT_EXPOSURES)
        of_units = "exposed SEMI JOIN single USING (unit)" if dimension in OVERLAPPING else "single"
        rows = con.execute(
            f"SELECT {value} AS value, place, count(DISTINCT unit) AS units FROM {of_units} WHERE value IS NOT NULL"
            " GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
        for name, at, units in rows[: DIMENSION_VALUES_MAX * len(question.arms)]:
            found.setdefault((dimension, str(name)), [0] * len(question.arms))[at] += units
    return tuple(Tally(dimension, value, tuple(units)) for (dimension, value), units in found.items())

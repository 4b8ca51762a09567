"""Units that do far more than all others: bounded where experiments.yaml says so, and told where one of them hides what
the arms do.

Bounds are of both arms together, so that they favour neither, and what a unit did before (CUPED) is held to the same
ones.
"""

from __future__ import annotations

import duckdb
from msgspec import Struct

from features.config.experiments import Bounded, Goals

BEFORE = {"value": "before_value"}
"""Number -> what it was before the first exposure."""
DOMINATING_SHARE = 0.25
"""Of the variance of a number; one unit that has more decides what the number shows."""
SUM_SHARE = 0.01
"""Of the sum: below it the unit moves no mean, however even the others are."""
UNITS_MIN = 25
"""Who have anything of the number; among fewer each has a large part."""


class HeldValues(Struct, frozen=True):
    """A number of units that was held to bounds.

    Attributes:
        by: the option, as the file has it: `cap: 500`.
        low, high: what less and more counts as.
        units: of each arm, how many were beyond.
    """

    number: str
    by: str
    low: float
    high: float
    units: tuple[int, ...]


class Outlier(Struct, frozen=True):
    """A number of which one unit has so large a share of the variance, after bounds."""

    number: str
    share: float
    largest: float


def bound(con: duckdb.DuckDBPyConnection, goals: Goals, arms: int) -> tuple[HeldValues, ...]:
    """Hold the numbers of the table `facts` to the bounds of a file; returns what was done."""
    found = []
    for number in goals.__struct_fields__:
        option: Bounded | None = getattr(goals, number)
        if option is not None and (ends := _ends(con, number, option)) is not None:
            low, high = ends
            beyond = f"{number} > {high!r} OR {number} < {low!r}"
            by_arm = dict(con.execute(f"SELECT place, count(*) FILTER ({beyond}) FROM facts GROUP BY place").fetchall())
            sets = ", ".join(
                f"{name} = least(greatest({name}, {low!r}), {high!r})"
                for name in (number, BEFORE.get(number))
                if name is not None
            )
            con.execute(f"UPDATE facts SET {sets}")
            by = f"cap: {option.cap:g}" if option.cap is not None else f"winsorize: {option.winsorize:g}"
            found.append(HeldValues(number, by, low, high, tuple(int(by_arm.get(at, 0)) for at in range(arms))))
    return tuple(found)


def _ends(con: duckdb.DuckDBPyConnection, number: str, option: Bounded) -> tuple[float, float] | None:
    """Both bounds; None where no unit has anything of the number.

    A quantile is that of the units that have anything: most have nothing, and their zeros would be the quantile. It is
    a value that some unit has, the one that scipy's `winsorize` takes. Where no value is below zero there is nothing to
    bound there.
    """
    if option.cap is not None:
        return -option.cap, option.cap
    above, below = con.execute(
        f"SELECT quantile_disc({number}, $part) FILTER ({number} <> 0), quantile_disc(-{number}, $part) FILTER"
        f" ({number} <> 0) FROM facts",
        {"part": option.winsorize},
    ).fetchall()[0]
    return None if above is None else (min(-float(below), 0.0), max(float(above), 0.0))


def outliers(con: duckdb.DuckDBPyConnection) -> tuple[Outlier, ...]:
    """Numbers of the table `facts` that one unit dominates."""
    found = []
    for number in Goals.__struct_fields__:
        some, largest, total, share = con.execute(
            f"SELECT count(*) FILTER ({number} <> 0), arg_max({number}, abs({number} - mean)), sum(abs({number})),"
            f" max(({number} - mean) ** 2) / nullif(sum(({number} - mean) ** 2), 0) FROM facts, (SELECT avg({number})"
            " AS mean FROM facts)"
        ).fetchall()[0]
        if some >= UNITS_MIN and share is not None and share > DOMINATING_SHARE and abs(largest) > SUM_SHARE * total:
            found.append(Outlier(number, float(share), float(largest)))
    return tuple(found)

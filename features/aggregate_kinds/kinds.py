"""Every aggregate of events, a class each. A new one is a class here, named in `AGGREGATES`, and nothing else.

What a kind can say stands in `features/aggregate_kinds/kind.py`. `opportune check`, the windows, the fold, the layout
and the documents read it from there; `tests/features/aggregate_kinds/test_kinds.py` brings every kind the whole way.
"""

from __future__ import annotations

from features.aggregate_kinds.kind import (
    MILLIONTHS,
    AddEvents,
    Aggregate,
    Companion,
    Quotient,
    Tiles,
    by_name,
    exact_sum,
    over_days,
    whole_second,
    whole_sum,
)
from features.aggregate_kinds.operations import Operation


class Count(Aggregate):
    """How many events there are."""

    name, value = "count", "number of events"
    dtype, zero, grows = "integer", True, True
    combine = "sum"
    operation = Operation.COUNT
    tiles = Tiles(
        lambda _, filters: f"nullif(count(*) FILTER ({filters}), 0)",
        lambda value, window: f"sum({value}) FILTER (WHERE {window})::DOUBLE",
    )

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"nullif(count(e.time) FILTER ({filters}), 0)"


class Sum(Aggregate):
    """The sum of a number, exact in whole millionths."""

    name, value = "sum", "sum; events without the number are passed over"
    fields, zero, grows = "number", True, True
    combine = "sum"
    operation = Operation.SUM
    tiles = Tiles(whole_sum, lambda value, window: f"sum({value}) FILTER (WHERE {window})::DOUBLE / {MILLIONTHS}")

    def sql(self, column: str, filters: str, whole: str) -> str:
        return exact_sum(column, filters)


class Stated(Aggregate):
    """How many events state the field; only beside columns."""

    name, declared = "stated", False
    fields, dtype = "any", "integer"
    operation = Operation.STATED

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"nullif(count({column}) FILTER ({filters}), 0)"


class Mean(Aggregate):
    """The mean of a number."""

    name, value = "mean", "mean; events without the number are passed over"
    fields = "number"
    quotient = Quotient("sum", "stated")

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"({exact_sum(column, filters)}) / {STATED.sql(column, filters, whole)}"

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        return Companion("sum", SUM), Companion("stated", STATED)


class _Extreme(Aggregate):
    """The least or the greatest of a number."""

    fields, grows = "number", True

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"{self.name}({column}) FILTER ({filters})"

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        """Where nothing is stored as 0, tell that 0 from an extreme of 0."""
        return (Companion("stated", STATED),) if zero else ()


class Minimum(_Extreme):
    """The least of a number."""

    name, value = "min", "least; events without the number are passed over"
    combine = "min"
    operation = Operation.MINIMUM
    tiles = Tiles(lambda column, filters: f"min({column}) FILTER ({filters})", over_days("min"))


class Maximum(_Extreme):
    """The greatest of a number."""

    name, value = "max", "greatest; events without the number are passed over"
    operation = Operation.MAXIMUM
    tiles = Tiles(lambda column, filters: f"max({column}) FILTER ({filters})", over_days("max"))


class Latest(Aggregate):
    """The time of the last event that states the field, in microseconds since 1970; only beside columns."""

    name, declared = "latest", False
    fields, dtype = "any", "integer"
    operation, operation_of_texts = Operation.LATEST_NUMBER, Operation.LATEST_TEXT

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"max(epoch_us(e.time)) FILTER ({filters} AND {column} IS NOT NULL)"


class Last(Aggregate):
    """The field of the latest event that states it."""

    name, value = "last", "of the latest event that has it; of several at one moment the largest"
    fields, dtype = "any", None
    operation, operation_of_texts = Operation.LAST_NUMBER, Operation.LAST_TEXT

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"arg_max({column}, (e.time, {column})) FILTER ({filters} AND {column} IS NOT NULL)"

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        return (Companion("latest", LATEST, zero=False),)


class Distinct(Aggregate):
    """How many different texts a category has."""

    name, value = "distinct", "how many different ones"
    fields, dtype, zero, grows = "category", "integer", True, True
    tells_apart = True

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"nullif(count(DISTINCT {column}) FILTER ({filters}), 0)"


class DaysSince(Aggregate):
    """The moment of the latest event; the model sees days between it and the decision."""

    name, value = "days_since", "days between the latest event and the decision"
    dtype, has_zero = "time", False
    operation = Operation.MOMENT
    tiles = Tiles(lambda _, filters: f"epoch({whole_second(f'max(e.time) FILTER ({filters})')})", over_days("max"))

    def sql(self, column: str, filters: str, whole: str) -> str:
        return f"max(e.time) FILTER ({filters})"


class Share(Aggregate):
    """The part of the events, or of the sum of a number, for which `where` holds."""

    name = "share"
    value = (
        "part of the events (or of the number's sum) for which `where` holds; with `group`, part of each value in the"
        " events for which `where` holds; unknown where the whole is nothing"
    )
    fields, is_part = "number or none", True
    quotient = Quotient("part", "whole")

    def sql(self, column: str, filters: str, whole: str) -> str:
        if column:
            return f"coalesce({exact_sum(column, filters)}, 0) / nullif({exact_sum(column, whole)}, 0)"
        return f"count(e.time) FILTER ({filters})::DOUBLE / nullif(count(e.time) FILTER ({whole}), 0)"

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        kind = SUM if of else COUNT
        return Companion("part", kind), Companion("whole", kind, of_whole=True)


class Spread(Aggregate):
    """The sum of squared deviations from the mean; only beside columns, whose own fold writes it.

    Amounts are taken as whole millionths and in their order, so that the result does not depend on that of the events.
    """

    name, declared = "spread", False
    fields = "number"
    tolerance = 2e-9  # a square: twice that of the deviation

    def sql(self, column: str, filters: str, whole: str) -> str:
        amount = f"round({column} * {MILLIONTHS})"
        variance = f"var_pop({amount} ORDER BY {amount}) FILTER ({filters})"
        return f"{variance} * {STATED.sql(column, filters, whole)} / {MILLIONTHS**2}"


class Stddev(Aggregate):
    """The standard deviation of a sample, with n - 1 below the line; missing with fewer than two numbers.

    Events are added by the update of Welford (Technometrics 4, 1962), which has no cancellation. The last bits depend
    on the order of events, so the fold is within `tolerance` of the batch while the deviation is above a millionth of
    the mean.
    """

    name = "stddev"
    value = "standard deviation of a sample (n - 1); unknown with fewer than two events that have the number"
    fields = "number"
    tolerance = 1e-9

    def sql(self, column: str, filters: str, whole: str) -> str:
        spread, count = SPREAD.sql(column, filters, whole), STATED.sql(column, filters, whole)
        return f"sqrt({spread} / nullif({count} - 1, 0))"

    def companions(self, of: str | None, zero: bool) -> tuple[Companion, ...]:
        return Companion("spread", SPREAD), Companion("sum", SUM), Companion("stated", STATED)

    def own_fold(self) -> AddEvents:
        import numba  # here, see `Aggregate.own_fold`
        import numpy as np

        moments, table, specs = numba.int64[::1], numba.float64[:, ::1], numba.int64[:, ::1]
        truths, fresh, row = numba.boolean[:, ::1], numba.boolean[::1], numba.float64[::1]

        @numba.njit(numba.void(moments, table, truths, specs, moments, fresh, row), nogil=True, cache=True)
        def add(times, numbers, truths, specs, since, fresh, row):  # type: ignore[no-untyped-def]
            for s in range(specs.shape[0]):
                where, field, window, slot, zero, spread, total, stated = specs[s]
                count, amounts, squares = 0.0, 0.0, 0.0  # in whole millionths, which are exact below 2**53
                if not fresh[window]:
                    if np.isnan(row[stated]):
                        continue  # stored without its companions
                    count, amounts, squares = row[stated], np.rint(row[total] * 1e6), row[spread] * 1e12
                for i in range(times.shape[0]):
                    if truths[where, i] and times[i] >= since[window] and not np.isnan(numbers[field, i]):
                        scaled = numbers[field, i] * 1e6
                        amount = np.trunc(scaled)
                        if abs(scaled - amount) >= 0.5:
                            amount += np.copysign(1.0, scaled)  # half away from zero, as DuckDB rounds
                        if count > 0.0:
                            squares += (amount - amounts / count) ** 2 * count / (count + 1.0)
                        count += 1.0
                        amounts += amount
                row[spread] = squares / 1e12
                if count >= 2.0:
                    row[slot] = np.sqrt(row[spread] / (count - 1.0))
                else:
                    row[slot] = 0.0 if zero == 1 else np.nan

        code: AddEvents = add
        return code


COUNT, SUM, STATED, LATEST, SPREAD = Count(), Sum(), Stated(), Latest(), Spread()

AGGREGATES = by_name(
    (
        COUNT,
        SUM,
        Mean(),
        Minimum(),
        Maximum(),
        Last(),
        Distinct(),
        DaysSince(),
        Share(),
        Stddev(),
        STATED,
        LATEST,
        SPREAD,
    )
)
"""By name, in the order in which error messages list them."""

DECLARED = tuple(name for name, kind in AGGREGATES.items() if kind.declared)
PAIRED = tuple(name for name, kind in AGGREGATES.items() if kind.tiles is not None)
"""Those that a pair column may name."""

"""The standard deviation: SQL over all events, the fold over some of them, and an exact oracle give one number."""

from __future__ import annotations

import statistics

import duckdb
import hypothesis
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from features.aggregate_kinds.kinds import AGGREGATES
from features.aggregates import incremental_kernels as kernels
from features.aggregates.incremental import Fold
from features.aggregates.window_sql import aggregate
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.features.folding import event_of, seconds

START = 1_772_323_200 * MICROSECONDS
LATER = Micros(START + 3_600 * MICROSECONDS)
TOLERANCE = AGGREGATES["stddev"].tolerance
SLOT = "moves.varied_all"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("bank")
    column = {"stream": "moves", "aggregate": "stddev", "of": "amount"}
    content = {
        "workspace.yaml": {"name": "bank"},
        "features.yaml": {
            "streams": {"moves": {"numbers": ["amount"]}},
            "columns": {"varied": column, "steady": {**column, "missing": "zero"}},
        },
        "offers.yaml": {"placements": {"home": {}}, "offers": [{"offer_id": "o"}]},
        "model.yaml": {"name": "m", "label": {"outcome": "click"}},
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    return load(folder)


def batch(con: duckdb.DuckDBPyConnection, workspace: Workspace, numbers: list[float | None]) -> OnlineRow:
    """The row that the batch stores of events with these numbers."""
    plan = RowSchema.of(workspace.views)
    row = plan.nobody()
    row.event_times[:] = seconds(START)
    for scalar in workspace.views[0].scalars:
        sql = aggregate(scalar.aggregate, scalar.of, scalar.window_seconds, scalar.where)
        found = con.execute(f"SELECT {sql} FROM (SELECT unnest(?::DOUBLE[]) AS amount, 0 AS time) e", [numbers])
        (value,) = found.fetchone() or (None,)
        row.numbers[plan.scalars[f"moves.{scalar.name}"]] = (0 if scalar.zero else np.nan) if value is None else value
    return row


amounts = st.none() | st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)


@settings(max_examples=200, deadline=None)
@given(st.lists(amounts, max_size=8), st.lists(amounts, max_size=5), st.sampled_from([0.0, -1e5, 1e9]))
def test_batch_fold_and_oracle_agree(
    workspace: Workspace, before: list[float | None], after: list[float | None], offset: float
) -> None:
    """Over any numbers, the fold of some onto the rest is the batch over all, and both are the exact value."""
    before, after = ([None if one is None else one + offset for one in part] for part in (before, after))
    whole = [int(kernels.millionths(one)) for one in [*before, *after] if one is not None]
    exact = statistics.stdev(whole) / 1e6 if len(whole) > 1 else None
    hypothesis.assume(exact is None or exact == 0 or exact > abs(statistics.fmean(whole)) / 1e12)
    plan, con = RowSchema.of(workspace.views), duckdb.connect()
    events = [
        event_of(at, "moves", START + at, START + at, **({} if one is None else {"amount": one}))
        for at, one in enumerate(after)
    ]
    expected = batch(con, workspace, [*before, *after])
    got = Fold(plan, Dictionary())(batch(con, workspace, before), events, LATER)
    con.close()
    for row in (expected, got):
        value, zeroed = (float(row.numbers[plan.scalars[f"moves.{name}_all"]]) for name in ("varied", "steady"))
        if exact is None:
            assert np.isnan(value) and zeroed == 0.0, "fewer than two numbers deviate from nothing"
        else:
            assert value == zeroed == pytest.approx(exact, rel=TOLERANCE, abs=0.0)


def test_the_batch_does_not_depend_on_the_order_of_events(workspace: Workspace) -> None:
    """Any order of the same numbers gives the same bits."""
    drawn, con = np.random.default_rng(1), duckdb.connect()
    numbers = [float(one) for one in drawn.lognormal(3.0, 2.0, 500)]
    rows = [batch(con, workspace, list(drawn.permutation(numbers))).numbers.tobytes() for _ in range(5)]
    con.close()
    assert len(set(rows)) == 1


def test_a_row_that_lacks_the_companions_stays_as_it_is(workspace: Workspace) -> None:
    """A row that an older version stored has nothing to add to: its value stays until the batch computes it."""
    plan = RowSchema.of(workspace.views)
    row = plan.nobody()
    row.event_times[:] = seconds(START)
    row.numbers[plan.scalars[SLOT]] = 2.5
    folded = Fold(plan, Dictionary())(row, [event_of(1, "moves", START, START, amount=9.0)], LATER)
    assert folded.numbers[plan.scalars[SLOT]] == 2.5


def test_a_customer_without_a_row_gets_one(workspace: Workspace) -> None:
    """Of a customer of whom nothing is stored the events themselves are all there is."""
    plan = RowSchema.of(workspace.views)
    events = [event_of(at, "moves", START + at, START + at, amount=amount) for at, amount in enumerate((2.0, 4.0, 9.0))]
    folded = Fold(plan, Dictionary())(plan.nobody(), events, LATER)
    assert folded.numbers[plan.scalars[SLOT]] == pytest.approx(statistics.stdev([2.0, 4.0, 9.0]), rel=1e-15)

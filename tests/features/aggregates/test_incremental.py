"""The fold against the batch: what is added to a row is what SQL computes from all events, value by value."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.aggregates import incremental_kernels as kernels
from features.aggregates import windows
from features.aggregates.incremental import Fold
from features.columns.rows import Dictionary, KeyedRow, RowSchema
from features.columns.views import KEYS_MAX
from features.common.timestamps import DAY_SECONDS, MICROSECONDS
from features.config.features_file import FeaturesFile
from features.ledger.recent import RecentEvent
from features.workspace.workspace import Workspace
from serving.hub.consent import ConsentPolicy
from tests.features.aggregates.fold_cases import GRID, HOUR, START, events_of, features, happened, leaves, made
from tests.features.folding import agrees, event_of, rows_of, seconds, shown, write_lake


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return made(tmp_path_factory.mktemp("fold"), {"columns": {"moved": {"stream": "moves", "aggregate": "count"}}})


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(features, happened, st.integers(0, 25), st.integers(0, 25), st.booleans())
def test_the_fold_is_what_the_batch_computes(
    workspace: Workspace, said: dict[str, Any], drawn: list[Any], first: int, second: int, empty: bool
) -> None:
    """Over the row of a moment, or over none, the fold at a later moment gives what the batch gives then, for all that
    has not aged.
    """
    base, now = START + min(first, second) * GRID, START + max(first, second) * GRID
    events = events_of(drawn)
    there = replace(workspace, features=msgspec.convert(said, FeaturesFile, strict=False))
    write_lake(there, "streams.moves", ["1"] * len(events), events)
    plan, words = RowSchema.of(there.views), Dictionary()
    (expected,) = rows_of(plan, words, windows.compute_for(there, now, ["1"])).values()
    (before,) = rows_of(plan, words, windows.compute_for(there, base, ["1"])).values()
    heard = [event for event in events if event.received < now]
    if empty:
        before = plan.nobody()
        base = START - 10_000 * DAY_SECONDS * MICROSECONDS
        if not heard:
            return
    stored = shown(plan, words, before)
    folded = Fold(plan, words)(before, heard, now)
    assert shown(plan, words, before) == stored, "the given row stays as it was"
    assert folded.event_times.tolist() == ([seconds(now)] if empty else before.event_times.tolist())
    if not heard:
        assert folded is before
        return
    got, wanted = shown(plan, words, folded), shown(plan, words, expected)
    for view in plan.views:
        for scalar in view.scalars:
            if not leaves(events, base, now, _span(scalar.window_seconds)):
                name = f"{view.name}.{scalar.name}"
                assert agrees(scalar.aggregate, got[name], wanted[name]), name
        for family in view.families:
            name = f"{view.name}.{family.name}"
            aged = [leaves(events, base, now, _span(measure.window_seconds)) for measure in family.measures]
            for measure, has_aged in zip(family.measures, aged, strict=True):
                assert has_aged or got[f"{name}.{measure.name}"] == wanted[f"{name}.{measure.name}"], (
                    name,
                    measure.name,
                )
            assert any(aged) or got[name] == wanted[name]


def _span(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * MICROSECONDS


LASTING = {
    "columns": {
        "seen": {"stream": "moves", "aggregate": "count", "windows": ["all"]},
        "typical": {"stream": "moves", "aggregate": "mean", "of": "amount", "windows": ["all"], "purposes": ["ads"]},
        "latest": {"stream": "moves", "aggregate": "last", "of": "kind", "windows": ["all"]},
        "kinds": {"stream": "moves", "aggregate": "distinct", "of": "kind", "windows": ["all"], "purposes": ["ads"]},
    },
    "offer": {"shop": {"dtype": "category"}},
    "pairs": {"bought": {"stream": "moves", "aggregate": "count", "windows": ["all"], "key": "shop", "match": "shop"}},
}


@pytest.fixture(scope="module")
def lasting(workspace: Workspace) -> Workspace:
    said = {"streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}}, **LASTING}
    return replace(workspace, features=msgspec.convert(said, FeaturesFile, strict=False))


def test_what_is_hidden_is_no_column(lasting: Workspace) -> None:
    """What a mean, a last and a distinct are added up with is stored, and the model, its names and history know nothing
    of it.
    """
    (view,) = lasting.views
    assert view.hidden == {
        *("_sum_typical_all", "_stated_typical_all", "_latest_latest_all"),
        *("_values_kinds_all__keys", "_values_kinds_all__times"),
    }
    assert view.hidden < {name for name, _ in view.fields}
    assert lasting.contract.names == ["seen_all", "typical_all", "latest_all", "kinds_all", "offer_shop", "bought_all"]
    assert len({scalar.name for scalar in view.scalars}) == len(view.scalars) == 7


def test_what_is_hidden_is_withheld_with_its_column(lasting: Workspace) -> None:
    """Without its purpose a column is missing with all that is kept beside it, and is named once."""
    plan = RowSchema.of(lasting.views)
    row = plan.nobody()
    row.numbers[:] = 1.0
    row.families = [KeyedRow(np.array([1], np.uint32), np.ones((1, 1))) for _ in plan.families]
    found = ConsentPolicy(lasting.features, plan).withheld(row, ["personalization"])
    assert found is not None
    assert found.names == ("kinds_all", "typical_all")
    left = found.row(row)
    gone = {name for name, slot in plan.scalars.items() if np.isnan(left.numbers[slot])}
    assert gone == {"moves.typical_all", "moves.kinds_all", "moves._sum_typical_all", "moves._stated_typical_all"}
    assert [name for name, at in plan.families.items() if left.families[at] is None] == ["moves._values_kinds_all"]


def test_what_does_not_fit_is_passed_over(lasting: Workspace) -> None:
    """Events of other streams, of now and later, and values of another type than is declared change nothing; nothing
    fails.
    """
    plan, words = RowSchema.of(lasting.views), Dictionary()
    fold, row = Fold(plan, words), plan.nobody()
    row.event_times[:] = seconds(START)
    row.numbers[:] = 0.0
    later = [event_of(1, "moves", START + HOUR, START, kind="card"), event_of(2, "calls", START, START + 1)]
    assert fold(row, later, START + HOUR) is row
    assert fold.streams == {"moves"}
    odd = RecentEvent(1, "moves", START, START, {"amount": "much", "kind": 7.0, "shop": "s1"})
    got = shown(plan, words, fold(row, [odd], START + HOUR))
    assert (got["moves.seen_all"], got["moves.typical_all"], got["moves.kinds_all"]) == (1.0, None, 0.0)
    assert got["moves.by_shop"] is None, "a list that is not known is not begun"


def test_what_a_row_lacks_stays_missing(workspace: Workspace) -> None:
    """Of a row that has one view of a stream and lacks another, the other is not made up from what is new."""
    said = {
        "streams": {"moves": {"categories": ["kind"]}, "calls": {}},
        "columns": {name: {"stream": name, "aggregate": "count"} for name in ("moves", "calls")},
    }
    plan, words = RowSchema.of(replace(workspace, features=msgspec.convert(said, FeaturesFile)).views), Dictionary()
    row = plan.nobody()
    row.event_times[1], row.numbers[1] = seconds(START), 2.0
    events = [event_of(1, "moves", START, START), event_of(2, "calls", START, START)]
    folded = Fold(plan, words)(row, events, START + HOUR)
    assert (folded.numbers[1], folded.event_times[1]) == (3.0, seconds(START))
    assert np.isnan([folded.numbers[0], folded.event_times[0]]).all()
    (made,) = {tuple(Fold(plan, words)(plan.nobody(), events, START + HOUR).numbers.tolist())}
    assert made == (1.0, 1.0)


def test_a_family_stays_within_its_bound(lasting: Workspace) -> None:
    """With more keys than the batch keeps, those of what is new stay, in the order of their texts; texts that are told
    apart are counted all.
    """
    plan, words = RowSchema.of(lasting.views), Dictionary()
    row = plan.nobody()
    row.event_times[:], row.numbers[:] = seconds(START), 0.0
    keys = [words.id(f"k{number:05d}") for number in range(KEYS_MAX)]
    row.families = [KeyedRow(np.array(keys, np.uint32), np.ones((1, len(keys)))) for _ in plan.families]
    row.numbers[plan.scalars["moves.kinds_all"]] = KEYS_MAX + 10
    events = [event_of(at, "moves", START, START, kind=text, shop=text) for at, text in enumerate(["a", "k00007", "z"])]
    got = shown(plan, words, Fold(plan, words)(row, events, START + HOUR))
    assert got["moves.by_shop"] == ["a", *(f"k{number:05d}" for number in range(KEYS_MAX - 2)), "z"]
    assert got["moves.by_shop.bought_all"]["k00007"] == 2.0
    assert got["moves.kinds_all"] == KEYS_MAX + 12


amounts = st.floats(-8e9, 8e9)


@settings(max_examples=300, deadline=None)
@given(amounts, st.lists(amounts, max_size=6))
def test_sums_are_exact(lasting: Workspace, stored: float, more: list[float]) -> None:
    """From a stored sum below 2**33, sums are those of whole millionths, whatever the amounts' binary forms are."""
    whole = int(kernels.millionths(stored))
    hypothesis.assume(
        all(
            abs(whole + sum(int(kernels.millionths(a)) for a in more[:n])) < 2**33 * 10**6 for n in range(len(more) + 1)
        )
    )
    plan = RowSchema.of(lasting.views)
    row = plan.nobody()
    row.event_times[:] = seconds(START)
    row.numbers[plan.scalars["moves._sum_typical_all"]] = whole / 1e6
    events = [event_of(at, "moves", START, START, amount=amount) for at, amount in enumerate(more)]
    folded = Fold(plan, Dictionary())(row, events, START + HOUR)
    expected = (whole + sum(int(kernels.millionths(amount)) for amount in more)) / 10**6
    assert folded.numbers[plan.scalars["moves._sum_typical_all"]] == expected


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9) | st.integers(-4, 4).map(lambda number: (number + 0.5) / 1e6), min_size=1))
def test_millionths_are_those_of_the_database(numbers: list[float]) -> None:
    """DuckDB rounds an amount to the same whole millionths."""
    con = duckdb.connect()
    query = "SELECT CAST(round(unnest(?::DOUBLE[]) * 1000000) AS BIGINT)"
    assert [int(kernels.millionths(number)) for number in numbers] == [
        row[0] for row in con.execute(query, [numbers]).fetchall()
    ]
    con.close()

"""Windows against a reference of a few lines: every aggregate, window, filter and group, over random events."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from features.aggregates import windows
from features.columns.rows import Dictionary
from features.common import clock
from features.common.timestamps import to_microseconds, window_seconds
from features.feature_store import definitions, point_in_time
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.importing.import_files import import_all
from tests.features.aggregates.window_cases import DAY, START, Event, events_of, features, made, moments_of, offline
from tests.workspaces import make_workspace


@pytest.fixture(scope="module", params=[1, 2])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[Event]]:
    events = events_of(request.param)
    return made(tmp_path_factory.mktemp("windows") / "bank", events, moments_of(request.param)), events


def holds(where: dict[str, Any], event: Event) -> bool:
    for field, wanted in where.items():
        value = event[field]
        if isinstance(wanted, dict):
            if value is None or value < wanted.get("minimum", value) or value >= wanted.get("below", value + 1):
                return False
        elif value not in ([wanted] if isinstance(wanted, str) else wanted):
            return False
    return True


def total(numbers: Iterable[float]) -> float:
    return sum(round(number * 1_000_000) for number in numbers) / 1_000_000


def reference(
    events: list[Event], moment: datetime, aggregate: str, of: str | None, window: str, where: Any, whole: Any
) -> Any:
    """What the documentation says, as a loop; None where no event counts."""
    seconds = window_seconds(window)
    seen = [
        e
        for e in events
        if e["time"] < moment and (seconds is None or e["time"] >= moment - timedelta(seconds=seconds))
    ]
    part = [e for e in seen if holds(where, e)]
    values = [e[of] for e in part if of and e[of] is not None]
    if aggregate == "share":
        base = [e for e in seen if holds(whole, e)]
        below = total(e[of] for e in base if e[of] is not None) if of else float(len(base))
        return (total(values) if of else len(part)) / below if below else None
    if aggregate == "last":
        stated = [(e["time"], e[of]) for e in part if e[of] is not None]
        return max(stated)[1] if stated else None
    simple: dict[str, Callable[[], Any]] = {
        "count": lambda: len(part) or None,
        "days_since": lambda: max((e["time"] for e in part), default=None),
        "distinct": lambda: len(set(values)) or None,
        "sum": lambda: total(values) if values else None,
        "mean": lambda: total(values) / len(values) if values else None,
        "min": lambda: min(values, default=None),
        "max": lambda: max(values, default=None),
    }
    return simple[aggregate]()


@pytest.mark.slow
def test_every_scalar_is_what_the_reference_says(case: tuple[Workspace, list[Event]]) -> None:
    """Each aggregate, window, filter and group equals a plain loop, at every moment of every customer."""
    workspace, events = case
    rows = offline(workspace, "moves").to_pylist()
    compared = 0
    for name, column in features()["columns"].items():
        group = column.get("group")
        for window, value in itertools.product(column["windows"], group["values"] if group else [None]):
            where = column["where"] | ({"kind": value} if group else {})
            field = f"{name}_{window}" + (f"_{value}" if group else "")
            whole = column["where"] if group else {}
            zero = column.get("missing") == "zero" or (
                "missing" not in column and column["aggregate"] in ("count", "sum", "distinct")
            )
            for row in rows:
                own = [e for e in events if e["customer_id"] == row["customer_id"]]
                expected = reference(
                    own, row["event_timestamp"], column["aggregate"], column.get("of"), window, where, whole
                )
                assert row[field] == (0 if expected is None and zero else expected), (
                    field,
                    row["customer_id"],
                    row["event_timestamp"],
                )
                compared += 1
    assert compared > 10_000


@pytest.mark.parametrize("scope", ["customer", "everyone"])
def test_every_measure_is_what_the_reference_says(case: tuple[Workspace, list[Event]], scope: str) -> None:
    """Each measure of a family equals a plain loop over the events of its key; everyone's days add up to the same."""
    workspace, events = case
    rows = offline(workspace, "moves" if scope == "customer" else "everyone_moves").to_pylist()
    compared = 0
    for row in rows:
        own = [e for e in events if scope == "everyone" or e["customer_id"] == row["customer_id"]]
        keys = row["by_shop__keys"]
        assert keys == sorted(keys, key=str.encode)
        for name, pair in features()["pairs"].items():
            if pair["scope"] != scope:
                continue
            for window in pair["windows"]:
                values = dict(zip(keys, row[f"by_shop__{name}_{window}"], strict=True))
                for key in ("s1", "s2", "é"):
                    of_key = [e for e in own if e["shop"] == key]
                    expected = reference(
                        of_key, row["event_timestamp"], pair["aggregate"], pair.get("of"), window, pair["where"], {}
                    )
                    if isinstance(expected, datetime):
                        expected = expected.timestamp()
                    assert values.get(key) == expected, (name, window, key, row["event_timestamp"])
                    compared += 1
    assert compared > 1_000


def test_an_event_at_the_moment_is_not_seen_and_one_at_the_start_is(tmp_path: Path) -> None:
    """A window of three days at t holds t - 3 days and not t; a microsecond decides."""
    tick = timedelta(microseconds=1)
    moment = START + 4 * DAY
    times = [moment - 3 * DAY - tick, moment - 3 * DAY, moment - tick, moment]
    events = [{"customer_id": "a", "time": time, "amount": 1.0, "kind": "card", "shop": "s1"} for time in times]
    row = offline(made(tmp_path / "w", events, [("a", moment)], ("any",)), "moves").to_pylist()[0]
    assert (row["count_events_any_3d"], row["count_events_any_all"]) == (2, 3)
    assert row["days_since_events_any_all"] == moment - timedelta(seconds=1)  # stored as whole seconds


@pytest.mark.slow
def test_order_and_buckets_change_nothing(tmp_path: Path) -> None:
    """Shuffled events in seven buckets give the same bits as sorted ones in a single bucket."""
    events, moments = events_of(3), moments_of(3)
    shuffled = random.Random(5).sample(events, len(events))
    wheres = ("any", "both")
    one, seven = (
        made(tmp_path / "one", events, moments, wheres),
        made(tmp_path / "seven", shuffled, moments, wheres, buckets=7),
    )
    assert len(list((seven.offline / "moves").iterdir())) == 7
    for view in ("moves", "everyone_moves"):
        assert offline(one, view).equals(offline(seven, view)), view


@pytest.mark.slow
def test_a_future_event_moves_no_training_row(tmp_path: Path) -> None:
    """Events, outcomes, decisions and attributes from a moment on, planted later, change no row up to that moment."""
    end = datetime(2026, 6, 1, tzinfo=UTC)
    workspace = load(make_workspace(tmp_path / "w", customers=25, decisions=3, days=20, now=end))
    now = to_microseconds(end)
    before = _rows_up_to(workspace, now, end - 5 * DAY)
    cut = end - 5 * DAY
    planted = 0
    for name, times in (("calls", "time"), ("outcomes", "time"), ("customers", "since")):
        file = tmp_path / "w" / "data" / f"{name}.parquet"
        table = pa.parquet.read_table(file)
        more = [row | {times: cut + number * timedelta(hours=1)} for number, row in enumerate(table.to_pylist()[:60])]
        more = [
            row | ({times: cut + timedelta(microseconds=1), "tariff": "new"} if name == "customers" else {})
            for row in more
        ]
        pa.parquet.write_table(pa.concat_tables([table, pa.Table.from_pylist(more, table.schema)]), file)
        planted += len(more)
    after = _rows_up_to(workspace, now, cut)
    assert planted > 60
    assert sum(table.num_rows for table in before.values()) > 100
    for view, table in before.items():
        assert table.equals(after[view]), view


def _rows_up_to(workspace: Workspace, now: int, cut: datetime) -> dict[str, pa.Table]:
    """What the point-in-time join says at every decision up to a moment, and the offline rows themselves."""
    import_all(workspace, now)
    windows.compute(workspace, now)
    definitions.apply(workspace)
    found = {}
    for view in workspace.views:
        table = offline(workspace, view.name).drop_columns("created")
        found[view.name] = table.filter(pa.compute.field("event_timestamp") <= pa.scalar(cut))
    asked = found["calls"]
    moments = asked.column("event_timestamp").cast(pa.int64()).to_numpy()
    joined = point_in_time.join(workspace, asked.column("customer_id").to_pylist(), moments, Dictionary()).table
    return found | {"joined": joined.select(sorted(set(joined.column_names) - {"event_timestamp"}))}


def test_a_workspace_without_customer_columns_is_computed(tmp_path: Path) -> None:
    """A business that knows only offers and context needs no views: everything runs and is empty."""
    folder = make_workspace(tmp_path / "w", customers=5, decisions=2, days=5)
    plain = {"context": {"hour": {"dtype": "number"}}, "offer": {"price": {"dtype": "number"}}}
    (folder / "features.yaml").write_text(yaml.safe_dump(plain))
    (folder / "policies.yaml").unlink()
    (folder / "offers.yaml").write_text(yaml.safe_dump({"placements": {"home": {}, "bill": {}}}))
    settings = yaml.safe_load((folder / "workspace.yaml").read_text())
    del settings["sources"]["streams"]
    (folder / "workspace.yaml").write_text(yaml.safe_dump(settings))
    workspace = load(folder)
    now = clock.now_us()
    import_all(workspace, now)
    assert windows.compute(workspace, now) == {}
    definitions.apply(workspace)
    rows = list(point_in_time.join(workspace, ["a", "b"], pa.array([now, now]).to_numpy(), Dictionary()).rows())
    assert [row.known for row in rows] == [False, False]

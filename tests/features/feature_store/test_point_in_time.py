"""Point-in-time joins: Feast on its DuckDB offline store against a raw ASOF join, our own join on top, and the
registry.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml
from feast.infra.online_stores.redis import RedisOnlineStore

from features.aggregates import windows
from features.columns.rows import Dictionary
from features.columns.views import View
from features.common.timestamps import to_microseconds
from features.feature_store import definitions, point_in_time
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.importing.import_files import import_all
from tests.features.feast_fixtures import feast_store, view
from tests.workspaces import make_workspace

END = datetime(2026, 6, 1, tzinfo=UTC)
TTL_DAYS = 7


def test_feast_on_duckdb_is_an_asof_join(tmp_path: Path) -> None:
    """Several offers at one moment, late corrections, expired rows and no row at all: Feast gives what ASOF, TTL and
    created say.
    """
    random = np.random.default_rng(4)
    ours = view("habits", {"spend": "number", "visits": "integer", "city": "category"})
    ours = View(ours.name, ours.entity, ours.stream, ours.scalars, ours.families, TTL_DAYS * 86_400)
    rows = pd.DataFrame(
        {
            "customer_id": [f"c{n}" for n in random.integers(0, 60, 900)],
            "event_timestamp": pd.to_datetime(END) - pd.to_timedelta(random.integers(0, 60 * 24, 900), unit="h"),
            "spend": random.normal(size=900),
            "visits": random.integers(0, 9, 900),
            "city": random.choice(["Wien", "Graz", ""], 900),
        }
    ).drop_duplicates(["customer_id", "event_timestamp"])
    rows["created"] = rows["event_timestamp"] + pd.Timedelta(hours=1)
    late = rows.sample(frac=0.2, random_state=1).assign(
        spend=lambda part: part["spend"] + 100, created=lambda part: part["created"] + pd.Timedelta(days=9)
    )
    rows = pd.concat([rows, late]).sample(frac=1, random_state=2)  # corrections: the same moment, created later
    for column in ("event_timestamp", "created"):
        rows[column] = rows[column].astype("datetime64[us, UTC]")
    store = feast_store(tmp_path, {"type": "sqlite", "path": str(tmp_path / "online.db")}, (ours,), created=True)
    rows.to_parquet(tmp_path / "habits.parquet")
    asked = pd.DataFrame(
        {
            "customer_id": [f"c{n}" for n in random.integers(0, 70, 400)],  # ten of them were never seen
            "event_timestamp": pd.to_datetime(END) - pd.to_timedelta(random.integers(-20 * 24, 70 * 24, 400), unit="h"),
        }
    )
    asked = pd.concat([asked, asked.head(150), asked.head(40)], ignore_index=True)  # several offers at one moment
    known = rows.head(20)  # exactly at the moment of a row, and exactly at the end of its life
    edges = [known["event_timestamp"] + offset for offset in (pd.Timedelta(0), pd.Timedelta(days=TTL_DAYS))]
    asked = pd.concat(
        [asked, *(pd.DataFrame({"customer_id": known["customer_id"], "event_timestamp": edge}) for edge in edges)],
        ignore_index=True,
    )
    asked["event_timestamp"] = asked["event_timestamp"].astype("datetime64[us, UTC]")
    asked["offer"] = np.arange(len(asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = ["habits:spend", "habits:visits", "habits:city"]
        joined = store.get_historical_features(entity_df=asked, features=features).to_arrow().sort_by("offer")
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    truth = con.execute(f"""
        WITH latest AS (SELECT * FROM rows QUALIFY row_number() OVER (PARTITION BY customer_id, event_timestamp ORDER
            BY created DESC) = 1),
        found AS (SELECT a.offer, a.event_timestamp AS t, l.* FROM asked a ASOF LEFT JOIN latest l
            ON a.customer_id = l.customer_id AND a.event_timestamp >= l.event_timestamp)
        SELECT offer, CASE WHEN event_timestamp >= t - INTERVAL {TTL_DAYS} DAY THEN
            {{'spend': spend, 'visits': visits, 'city': city}} END AS row
        FROM found ORDER BY offer
        """).fetchall()
    con.close()
    assert joined.num_rows == len(asked)
    got = joined.to_pylist()
    missing = 0
    for expected, row in zip(truth, got, strict=True):
        assert expected[0] == row["offer"]
        assert {name: row[name] for name in ("spend", "visits", "city")} == (
            expected[1] or {"spend": None, "visits": None, "city": None}
        )
        missing += expected[1] is None
    assert 50 < missing < len(asked) - 200


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = load(make_workspace(tmp_path_factory.mktemp("history"), customers=20, decisions=3, days=20, now=END))
    import_all(made, to_microseconds(END))
    windows.compute(made, to_microseconds(END))
    definitions.apply(made)
    return made


def test_rows_come_in_the_order_of_the_moments(workspace: Workspace) -> None:
    """One row for each moment asked for, in that order, the same moment twice the same, each with its own values."""
    file = str(workspace.offline / "calls" / "*.parquet")
    found = duckdb.sql(
        "SELECT customer_id, epoch_us(event_timestamp), calls_all, last_country_all, epoch(since_call_all) FROM"
        f" '{file}'"
    ).fetchall()
    chosen = [found[at] for at in np.random.default_rng(2).integers(0, len(found), 200)]
    words = Dictionary()
    joined = point_in_time.join(workspace, [row[0] for row in chosen], np.array([row[1] for row in chosen]), words)
    rows = list(joined.rows())
    assert len(joined) == len(rows) == 200
    slots = [joined.plan.scalars[f"calls.{name}"] for name in ("calls_all", "last_country_all", "since_call_all")]
    for row, expected in zip(rows, chosen, strict=True):
        calls, country, since = (row.numbers[slot] for slot in slots)
        assert calls == expected[2]
        assert (None if np.isnan(country) else words.texts[int(country)]) == expected[3]
        assert (None if np.isnan(since) else since) == expected[4]
        assert row.event_times[[v.name for v in joined.plan.views].index("calls")] == expected[1] / 1e6
    assert joined.texts("calls.last_country_all") == [row[3] for row in chosen]


def test_families_come_with_their_keys(workspace: Workspace) -> None:
    """Keys are sorted by text, and each measure has as many values; a customer without events has empty families."""
    words = Dictionary()
    file = str(workspace.offline / "calls" / "*.parquet")
    now = to_microseconds(END)
    found = duckdb.sql(
        f"SELECT customer_id, by_topic__keys, by_topic__topic_calls_all FROM '{file}' WHERE event_timestamp ="
        f" make_timestamptz({now}) ORDER BY 1"
    ).fetchall()
    joined = point_in_time.join(workspace, [row[0] for row in found], np.full(len(found), now), words)
    at, empty = joined.plan.families["calls.by_topic"], 0
    measure = [
        m.name
        for v in joined.plan.views
        if v.name == "calls"
        for f in v.families
        if f.name == "by_topic"
        for m in f.measures
    ].index("topic_calls_all")
    for row, (_, keys, values) in zip(joined.rows(), found, strict=True):
        family = row.families[at]
        assert family is not None
        assert [words.texts[word] for word in family.keys] == keys == sorted(keys)
        assert family.values[measure].tolist() == values
        empty += not keys
    assert 0 < empty < len(found)


def test_who_was_not_known_is_missing(workspace: Workspace) -> None:
    """A stranger, a moment before the first row, and one after all rows have expired: rows of missing values, none
    dropped.
    """
    now = to_microseconds(END)
    customer = "436600000"
    moments = np.array([now, now - 300 * 86_400_000_000, now + 500 * 86_400_000_000, now])
    joined = point_in_time.join(workspace, ["stranger", customer, customer, customer], moments, Dictionary())
    assert [row.known for row in joined.rows()] == [False, False, False, True]
    assert all(family is None for row in list(joined.rows())[:3] for family in row.families)


def test_everyone_is_joined_by_time_alone(workspace: Workspace) -> None:
    """Popularity at a moment is that of the midnight before it."""
    midnight = to_microseconds(END - timedelta(days=5))
    words = Dictionary()
    joined = point_in_time.join(
        workspace, [], np.array([midnight, midnight + 3_600_000_000, midnight + 1]), words, "everyone"
    )
    first, second, third = joined.rows()
    at = joined.plan.families["everyone_outcomes.by_offer_id"]
    for other in (second, third):
        left, right = first.families[at], other.families[at]
        assert left is not None
        assert right is not None
        assert left.keys.tolist() == right.keys.tolist()
        np.testing.assert_array_equal(left.values, right.values)
    assert first.known


def test_feasts_own_command_line_reads_the_registry(workspace: Workspace) -> None:
    """`feast feature-views list` on the applied folder names every view."""
    feast = Path(sys.executable).with_name("feast")
    command = [str(feast), "-c", str(workspace.data / "feast"), "feature-views", "list"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert {view.name for view in workspace.views} <= set(told.split())
    assert len(workspace.views) == 6


def test_what_is_no_longer_declared_leaves_the_registry(tmp_path: Path) -> None:
    """Views, sources and entities that a workspace drops are gone after the next apply, and the rest stays."""
    folder = make_workspace(tmp_path, customers=3, decisions=1, days=2)
    store = definitions.apply(load(folder))
    assert {view.name for view in store.list_feature_views()} >= {"payments", "everyone_outcomes"}
    content = yaml.safe_load((folder / "features.yaml").read_text())
    content["pairs"] = {"targeted": content["pairs"]["targeted"]}
    content["columns"] = {"calls": content["columns"]["calls"]}
    (folder / "features.yaml").write_text(yaml.safe_dump(content))
    workspace = load(folder)
    definitions.apply(workspace)
    store = definitions.open_store(workspace)
    assert {view.name for view in store.list_feature_views()} == {"customer", "calls", "decisions"}
    expected = {f"{view}_{what}" for view in ("customer", "calls", "decisions") for what in ("source", "push")}
    assert {source.name for source in store.list_data_sources()} == expected
    assert {entity.name for entity in store.list_entities()} == {"customer"}
    (service,) = store.list_feature_services()
    assert {projection.name for projection in service.feature_view_projections} == {"customer", "calls", "decisions"}


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "settings"),
    [
        ("redis://cache:6380/3", "redis", ["cache:6380"], {"db": 3}),
        ("redis://me:p%2Cw%3D%22@cache", "redis", ["cache:6379"], {"db": 0, "username": "me", "password": 'p,w="'}),
        ("redis+cluster://a:1,b:2", "redis_cluster", ["a:1", "b:2"], {}),
        ("rediss://cache?ssl_cert_reqs=none", "redis", ["cache:6379"], {"db": 0, "ssl": True, "ssl_cert_reqs": "none"}),
    ],
)
def test_feast_reads_the_address_of_a_redis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, kind: str, hosts: list[str], settings: dict[str, object]
) -> None:
    """Feast's own parser finds hosts, database and credentials again, commas and quotes in a password among them."""
    workspace = load(make_workspace(tmp_path, customers=3, decisions=1, days=2))
    monkeypatch.setenv("OPPORTUNE_ONLINE_URL", url)
    store = definitions.configuration(workspace)["online_store"]
    nodes, found = RedisOnlineStore._parse_connection_string(store["connection_string"])
    assert (store["redis_type"], [f"{node['host']}:{node['port']}" for node in nodes], found) == (kind, hosts, settings)

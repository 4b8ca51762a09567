"""Feast's side of a workspace: entities, sources, views and the feature service, made from the views and applied from
Python.

Nothing here runs while a request is answered. Feast's own command line reads the result: `feast -c <data>/feast
feature-views list`.

The registry holds the absolute paths of the offline tables: DuckDB's offline store knows no others. A workspace that
was copied or moved has them written anew when its store is opened.
"""

from __future__ import annotations

import glob
import os
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import yaml

os.environ.setdefault("FEAST_USAGE", "False")

from feast import Entity, FeatureService, FeatureStore, FeatureView, FileSource, PushSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.feature_view import DUMMY_ENTITY_NAME

from features.columns.views import View
from features.common.files import write_whole
from features.common.moments import Micros
from features.common.pseudonyms import pseudonym
from features.common.timestamps import from_microseconds
from features.feature_store.store_config import KEY_VERSION, feature_view, online_section, prepare
from features.lake.lake import folder_reader, literal
from features.workspace.workspace import Workspace

FEATURE_SERVICE = "opportune"
ONLINE_BATCH_ROWS = 10_000


def configuration(workspace: Workspace, generation: str = "") -> dict[str, Any]:
    """Return what Feast is configured with, secrets included.

    Args:
        generation: of the embedded online store, to be filled instead of the one in use.
    """
    return {
        "project": workspace.project,
        "provider": "local",
        "registry": {"path": str(workspace.data / "feast" / "registry.db"), "cache_ttl_seconds": 0},
        "offline_store": {"type": "duckdb"},
        "online_store": online_section(workspace) | ({"generation": generation} if generation else {}),
        "entity_key_serialization_version": KEY_VERSION,
        "materialization": {"online_write_batch_size": ONLINE_BATCH_ROWS},
    }


def objects_of(workspace: Workspace, bucket: int | None = None) -> list[Any]:
    """Feast objects of a workspace; with a bucket, sources read the offline files of that bucket alone."""
    entities = {
        "customer": Entity(
            name="customer", join_keys=["customer_id"], value_type=ValueType.STRING, description="One customer"
        ),
        "everyone": Entity(
            name="everyone",
            join_keys=["everyone_id"],
            value_type=ValueType.STRING,
            description="All customers together",
        ),
    }
    views = [_feature_view(workspace, view, entities[view.entity], bucket) for view in workspace.views]
    used = [entity for name, entity in entities.items() if any(view.entity == name for view in workspace.views)]
    of_customer: list[Any] = [
        made for made, view in zip(views, workspace.views, strict=True) if view.entity == "customer"
    ]
    return [*used, *views, FeatureService(name=FEATURE_SERVICE, features=of_customer)]


def _feature_view(workspace: Workspace, view: View, entity: Entity, bucket: int | None) -> FeatureView:
    """Return the source of a customer's view: its files, and what is pushed beside them."""
    files = "bucket-*.parquet" if bucket is None or view.entity == "everyone" else f"bucket-{bucket:04d}.parquet"
    source = FileSource(
        name=f"{view.name}_source",
        path=f"{glob.escape(str(workspace.offline / view.name))}/{files}",
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    return feature_view(
        view, entity, PushSource(name=_push_source(view), batch_source=source) if view.entity == "customer" else source
    )


def _push_source(view: View) -> str:
    return f"{view.name}_push"


def open_store(workspace: Workspace, generation: str = "") -> FeatureStore:
    """Return the workspace's feature store, as applied; applied once more where the workspace lies elsewhere since."""
    store = _opened(workspace, generation)
    offline = glob.escape(str(workspace.offline))
    sources = [source for source in store.list_data_sources() if isinstance(source, FileSource)]
    if any(not Path(source.path).is_relative_to(offline) for source in sources):
        return apply(workspace, generation)
    return store


def _opened(workspace: Workspace, generation: str) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(**configuration(workspace, generation), repo_path=Path(workspace.data / "feast"))
    )


def _written(workspace: Workspace) -> dict[str, Any]:
    """Return what Feast's own configuration file says: placeholders instead of secrets, and paths from the file's own
    folder.
    """
    said = configuration(workspace)
    said["registry"]["path"] = "registry.db"
    if workspace.online_feast is not None:
        said["online_store"] = workspace.online_feast_written  # Feast's command line fills in the placeholders itself
    path = said["online_store"].get("path")
    if isinstance(path, str) and Path(path).is_relative_to(workspace.folder):
        said["online_store"] = {**said["online_store"], "path": os.path.relpath(path, workspace.data / "feast")}
    return said


def apply(workspace: Workspace, generation: str = "") -> FeatureStore:
    """Write the registry anew: what the workspace no longer declares is gone from it.

    Args:
        generation: see `configuration`; Feast's own configuration file does not name it.
    """
    folder = workspace.data / "feast"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(online_section(workspace))
    write_whole(folder / "feature_store.yaml", yaml.safe_dump(_written(workspace), sort_keys=False).encode())
    store = _opened(workspace, generation)
    wanted = objects_of(workspace)
    names = {thing.name for thing in wanted} | {f"{view.name}_source" for view in workspace.views}
    names |= {_push_source(view) for view in workspace.views if view.entity == "customer"}
    registered: list[Any] = [*store.list_feature_views(), *store.list_data_sources(), *store.list_entities()]
    gone: list[Any] = [thing for thing in registered if thing.name not in names and thing.name != DUMMY_ENTITY_NAME]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store.apply([*wanted], objects_to_delete=gone, partial=not gone)
    return store


def materialize(store: FeatureStore, workspace: Workspace, now: Micros) -> None:
    """Bring the rows of the moment `now` (and of the last midnight, for everyone) into the online store."""
    end: datetime = from_microseconds(now)
    views = [view.name for view in workspace.views]
    everyone = [view.name for view in workspace.views if view.entity == "everyone"]
    customers = [name for name in views if name not in everyone]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if customers:
            store.materialize(start_date=end - timedelta(microseconds=1), end_date=end, feature_views=customers)
        if everyone:
            store.materialize(start_date=end - timedelta(days=1), end_date=end, feature_views=everyone)


def push(store: FeatureStore, view: View, table: pa.Table) -> None:
    """Bring newer rows of a customer view into the online store.

    A store keeps of each customer the row of the latest moment: what is pushed late changes nothing, and what was
    pushed is replaced by the next materialization of a later moment.

    Args:
        table: rows as `windows.compute_for` gives them.
    """
    if not table.num_rows:
        return
    rows = table.to_pandas(types_mapper=pd.ArrowDtype)  # pandas' own integers cannot be missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rows[[name for name, _ in view.fields]].isnull().all(axis=None):
            # Feast passes over rows that state nothing. They must be written: what was stored has left its window.
            store._get_provider().ingest_df(store.get_feature_view(view.name), rows)
        else:
            store.push(_push_source(view), rows)


@dataclass(frozen=True)
class ReadBack:
    """What a read-back found: customers compared, and `pseudonym: view.field` of each difference."""

    customers: int
    different: list[str]


def compare_sample(store: FeatureStore, workspace: Workspace, now: Micros, size: int) -> ReadBack:
    """Read a sample of customers back through Feast's SDK and compare it with the offline tables, value by value."""
    views = [view for view in workspace.views if view.entity == "customer"]
    if not views:
        return ReadBack(0, [])
    ids: list[Any] = (
        _computed(workspace, views[0], now, f"TRUE ORDER BY md5(customer_id) LIMIT {size}")
        .column("customer_id")
        .to_pylist()
    )
    chosen = f"customer_id IN ({', '.join(map(literal, ids)) or 'NULL'})"
    tables = {view.name: _computed(workspace, view, now, chosen) for view in views}
    different = []
    for view in views:
        if not ids:
            continue
        names = [name for name, _ in view.fields]
        rows = [{"customer_id": customer} for customer in ids]
        online = store.get_online_features(
            features=[f"{view.name}:{name}" for name in names], entity_rows=rows
        ).to_dict()
        written = {row["customer_id"]: row for row in tables[view.name].to_pylist()}
        for at, customer in enumerate(ids):
            unequal = [name for name in names if not _same(online[name][at], written.get(customer, {}).get(name))]
            different += [f"{pseudonym(workspace.data, customer)}: {view.name}.{name}" for name in unequal]
    return ReadBack(len(ids), different)


def _computed(workspace: Workspace, view: View, now: Micros, chosen: str) -> pa.Table:
    rows = folder_reader(workspace.offline / view.name)
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    query = f"SELECT * FROM {rows} WHERE event_timestamp = make_timestamptz({now}::BIGINT) AND {chosen}"
    found: pa.Table = con.execute(query).to_arrow_table()
    con.close()
    return found


def _same(online: Any, written: Any) -> bool:
    if isinstance(written, float) and written != written:
        written = None
    if isinstance(written, datetime) and isinstance(online, datetime):
        return online.astimezone(UTC) == written.astimezone(UTC)
    if isinstance(written, list):
        same_empty = not written and not online
        return same_empty or (online is not None and len(online) == len(written) and all(map(_same, online, written)))
    if isinstance(online, float) and online != online:
        online = None
    return bool(online == written)

"""A small Feast project for tests: entities and views generated from ours, and a store to write them with."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp

from features.columns.rows import CUSTOMER_JOIN_KEY, EVERYONE_JOIN_KEY
from features.columns.views import Family, Measure, Scalar, View

DTYPES: dict[str, Any] = {
    "number": Float64,
    "integer": Int64,
    "category": String,
    "boolean": Bool,
    "time": UnixTimestamp,
    "texts": Array(String),
    "numbers": Array(Float64),
}

CUSTOMER = Entity(name="customer", join_keys=[CUSTOMER_JOIN_KEY], value_type=ValueType.STRING)
EVERYONE = Entity(name="everyone", join_keys=[EVERYONE_JOIN_KEY], value_type=ValueType.STRING)


def measure(name: str) -> Measure:
    return Measure(name, "sum", None, None, {}, (), None, None)


def view(
    name: str, scalars: dict[str, Any], families: dict[str, list[str]] | None = None, entity: Any = "customer"
) -> View:
    """A view of ours: scalars as name -> dtype, families as name -> measures."""
    made = tuple(
        Family(family, family, tuple(measure(m) for m in measures)) for family, measures in (families or {}).items()
    )
    return View(name, entity, name, tuple(Scalar(n, dtype) for n, dtype in scalars.items()), made, 400 * 86_400)


def feast_view(ours: View, folder: Path, created: bool = False) -> FeatureView:
    """The Feast view of one of ours, over a parquet file and a push source."""
    file = FileSource(
        name=f"{ours.name}_file",
        path=str(folder / f"{ours.name}.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created" if created else "",
    )
    entity = CUSTOMER if ours.entity == "customer" else EVERYONE
    return FeatureView(
        name=ours.name,
        entities=[entity],
        ttl=timedelta(seconds=ours.ttl_seconds),
        schema=[
            Field(name=entity.join_key, dtype=String),
            *(Field(name=name, dtype=DTYPES[kind]) for name, kind in ours.fields),
        ],
        source=PushSource(name=f"{ours.name}_push", batch_source=file),
    )


def feast_store(
    folder: Path, online: dict[str, Any], views: tuple[View, ...] = (), created: bool = False, project: str = "shop"
) -> FeatureStore:
    """A store with these views applied; its registry lies in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    store = FeatureStore(
        config=RepoConfig(
            project=project,
            provider="local",
            registry=str(folder / "registry.db"),
            online_store=online,
            offline_store={"type": "duckdb"},
            entity_key_serialization_version=3,
        )
    )
    if views:
        store.apply([CUSTOMER, EVERYONE, *(feast_view(ours, folder, created) for ours in views)])
    return store

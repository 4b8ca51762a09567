"""Feast's side of the embedded store: an online store of our own, so that materialize, push and the SDK's reads work on
it.

    online_store:
      type: features.feature_store.lmdb_online_store.LmdbOnlineStore
      path: .opportune/online

What Feast's own stores leave open is settled here: an older event never overwrites a newer one, also within one batch;
of two with the same event time the later created one is kept, and the first where that is equal too, as in Feast's
Redis store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import FeastConfigBaseModel

from features.feature_store.lmdb_sections import Read, Row, SectionStore, key_of_entity
from features.feature_store.values import schema_of
from features.lmdb_store.environment import (
    MAP_BYTES,
    MAP_BYTES_MAX,
    META,
    WORDS_MAX,
    Environment,
    attach,
    failing,
)


class LmdbOnlineStoreConfig(FeastConfigBaseModel):
    """Settings of the embedded store."""

    type: str = "features.feature_store.lmdb_online_store.LmdbOnlineStore"

    path: str = "data/online"
    """Folder of the store; relative to the repository of the configuration."""

    generation: str = ""
    """A generation to write to that is not the one in use: how a rebuild fills what it will swap in."""

    batch_rows: int = 500
    """Rows a transaction: how long a batch keeps other writers waiting."""

    map_bytes: int = MAP_BYTES
    map_bytes_max: int = MAP_BYTES_MAX
    words_max: int = WORDS_MAX


class LmdbOnlineStore(OnlineStore):
    """Feast's interface over the embedded store. Raises StoreUnavailable where the store is gone, damaged or full."""

    def __init__(self) -> None:
        self._environment: Environment | None = None
        self._sections = SectionStore()

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        environment = self._open(config, create=True)
        schema = schema_of(table)
        batch_rows = config.online_store.batch_rows
        for start in range(0, len(data), batch_rows):
            batch = data[start : start + batch_rows]
            with failing("write to the online store"):
                self._sections.write(environment, config.online_store, schema, batch)
            if progress:
                progress(len(batch))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        environment = self._open(config, create=False)
        wanted = list(requested_features or [feature.name for feature in table.features])
        kinds = dict(schema_of(table).fields)
        with failing("read the online store"), environment.begin() as transaction:
            self._sections.refresh(transaction)
            return [
                self._sections.read(transaction, table.name, key_of_entity(entity), wanted, kinds)
                for entity in entity_keys
            ]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        for table in tables_to_keep:
            schema_of(table)  # a type that cannot be stored is better found at `apply`
        environment = self._open(config, create=True)
        for table in tables_to_delete:
            self._sections.forget(environment, config.online_store, table.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        environment = self._open(config, create=True)
        for table in tables:
            self._sections.forget(environment, config.online_store, table.name)

    def _open(self, config: RepoConfig, create: bool) -> Environment:
        """Return the environment in use now: a rebuild may have swapped in another since the last call."""
        settings = config.online_store
        path = Path(settings.path)
        if not path.is_absolute() and config.repo_path:
            path = Path(config.repo_path) / path
        opened = attach(path, create=create, generation=settings.generation, map_bytes=settings.map_bytes)
        held = self._environment
        if held is opened:
            opened.release()
            return opened
        if held is not None:
            held.release()
        self._environment, self._sections = opened, SectionStore()
        self._own(opened, config)
        return opened

    def _own(self, environment: Environment, config: RepoConfig) -> None:
        """One store belongs to one Feast project: its keys do not tell them apart."""
        with failing("open the online store"):
            with environment.begin() as transaction:
                owner = transaction.get(META + b"project")
            if owner is None:
                with environment.write() as transaction:
                    transaction.put(META + b"project", config.project.encode(), overwrite=False)
                    owner = transaction.get(META + b"project") or b""
        if owner != config.project.encode():
            raise ValueError(
                f"the online store belongs to the Feast project {owner.decode()!r}, not to {config.project!r}; give it"
                " another path"
            )

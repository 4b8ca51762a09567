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

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pandas as pd
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

from features.columns.rows import StoreUnavailable
from features.common.timestamps import from_microseconds, to_microseconds
from features.feature_store.values import Packer, schema_of, values_of
from features.lmdb_store.dictionary import StoredWords
from features.lmdb_store.environment import (
    MAP_BYTES,
    MAP_BYTES_MAX,
    META,
    ROWS,
    SCHEMAS,
    WORDS_MAX,
    Environment,
    attach,
    failing,
    id_key,
    schemas_in,
)
from features.lmdb_store.record import (
    CREATED_NONE,
    KEY_BYTES_MAX,
    DamagedRecord,
    Kind,
    Schema,
    Section,
    entity_key,
    pack,
    unpack,
)

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]


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
        self._schemas: dict[Schema, int] = {}
        self._schema_of: dict[int, Schema] = {}
        self._words = StoredWords()

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        environment = self._open(config, create=True)
        schema = schema_of(table)
        batch_rows = config.online_store.batch_rows
        for start in range(0, len(data), batch_rows):
            batch = data[start : start + batch_rows]
            with failing("write to the online store"):
                self._write(environment, config.online_store, schema, batch)
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
            self._refresh(transaction)
            return [self._read(transaction, table.name, _key(entity), wanted, kinds) for entity in entity_keys]

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
            self._forget(environment, config, table.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        environment = self._open(config, create=True)
        for table in tables:
            self._forget(environment, config, table.name)

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
        self._environment, self._schemas, self._schema_of, self._words = opened, {}, {}, StoredWords()
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

    def _refresh(self, transaction: lmdb.Transaction[bytes]) -> None:
        self._words.load(transaction)
        schemas_in(transaction, self._schema_of)
        for number in range(len(self._schemas), len(self._schema_of)):
            self._schemas[self._schema_of[number]] = number

    def _growing(
        self, environment: Environment, settings: Any, work: Callable[[lmdb.Transaction[bytes]], None]
    ) -> None:
        """Does the work in a write transaction, again in a larger map where it did not fit."""
        while True:
            try:
                with environment.write() as transaction:
                    self._refresh(transaction)
                    work(transaction)
                return
            except lmdb.MapFullError as error:
                self._doubt()
                if not environment.grow(settings.map_bytes_max):
                    raise StoreUnavailable(
                        f"the online store is full: map_bytes_max is {settings.map_bytes_max} bytes; raise it in"
                        " online_store"
                    ) from error
            except BaseException:
                self._doubt()
                raise

    def _doubt(self) -> None:
        """Forgets what was read in a transaction that was undone, and with it what was declared there."""
        self._words.forget()
        self._schemas.clear()
        self._schema_of.clear()

    def _write(self, environment: Environment, settings: Any, schema: Schema, batch: list[Row]) -> None:
        with environment.begin() as transaction:
            self._refresh(transaction)
        # Protobuf is taken apart before the lock is taken; words that are new are added in a transaction of their own.
        packer = Packer(schema)
        rows = [
            (_stored_key(key), packer.take(values), *_order(event, created)) for key, values, event, created in batch
        ]
        if any(text not in self._words.ids for text in packer.texts) or schema not in self._schemas:
            declare = partial(self._declare, words_max=settings.words_max, schema=schema, texts=packer.texts)
            self._growing(environment, settings, declare)
        number = self._schemas[schema]
        newest: dict[bytes, Section] = {}
        for key, taken, event, created in rows:
            known = newest.get(key)
            if known is None or (event, created) > (known.event, known.created):
                newest[key] = Section(number, event, created, *packer.pack(taken, event, created, self._words.ids))
        self._growing(environment, settings, partial(self._merge, newest=newest))

    def _declare(self, transaction: lmdb.Transaction[bytes], words_max: int, schema: Schema, texts: set[str]) -> None:
        self._words.intern(transaction, texts, words_max)
        if schema not in self._schemas:
            transaction.put(id_key(SCHEMAS, len(self._schema_of)), schema.encode())
            self._refresh(transaction)

    def _merge(self, transaction: lmdb.Transaction[bytes], newest: dict[bytes, Section]) -> None:
        words = len(self._words.texts)
        for key in sorted(newest):  # in the order of the tree, so that pages are touched once
            section = newest[key]
            record = transaction.get(key)
            others = self._others(record, section) if record is not None else []
            if others is not None:
                others.append(section)
                others.sort()
                transaction.put(key, pack(others, words))

    def _others(self, record: bytes, section: Section) -> list[Section] | None:
        """Return the other views' sections; None when the stored section is newer than this one."""
        view = self._schema_of[section.schema].view
        try:
            stored = unpack(record, self._schema_of)
        except DamagedRecord:
            return []  # what cannot be read is missing already
        others = []
        for other in stored:
            if self._schema_of[other.schema].view != view:
                others.append(other)
            elif (other.event, other.created) > (section.event, section.created):
                return None
            elif (other.event, other.created) == (section.event, section.created) and other.schema == section.schema:
                return None  # the same moment with other fields is a view that was changed and computed again: taken
        return others

    def _read(
        self,
        transaction: lmdb.Transaction[bytes],
        view: str,
        key: bytes | None,
        wanted: list[str],
        kinds: dict[str, Kind],
    ) -> Read:
        record = None if key is None else transaction.get(key)
        if record is None:
            return None, None
        try:
            for section in unpack(record, self._schema_of):
                schema = self._schema_of[section.schema]
                if schema.view == view:
                    return from_microseconds(section.event), values_of(
                        schema, section, wanted, kinds, self._words.texts
                    )
        except (DamagedRecord, IndexError):
            pass
        return None, None

    def _forget(self, environment: Environment, config: RepoConfig, view: str) -> None:
        """Removes a view's sections from all records, a batch a transaction."""
        batch_rows = config.online_store.batch_rows
        with failing("delete from the online store"):
            after: bytes | None = ROWS
            while after is not None:
                keys = list(self._keys(environment, after, batch_rows))
                self._growing(environment, config.online_store, partial(self._without, keys=keys, view=view))
                after = keys[-1] + b"\0" if keys else None

    def _keys(self, environment: Environment, start: bytes, count: int) -> Iterator[bytes]:
        with environment.begin() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(start):
                for _, key in zip(range(count), cursor.iternext(values=False), strict=False):
                    if not key.startswith(ROWS):
                        return
                    yield key

    def _without(self, transaction: lmdb.Transaction[bytes], keys: list[bytes], view: str) -> None:
        for key in keys:
            record = transaction.get(key)
            try:
                sections = unpack(record or b"", self._schema_of)
            except DamagedRecord:
                sections = []
            kept = [section for section in sections if self._schema_of[section.schema].view != view]
            if not kept:
                transaction.delete(key)
            elif len(kept) < len(sections):
                transaction.put(key, pack(kept, len(self._words.texts)))


def _key(entity: EntityKey) -> bytes | None:
    if len(entity.join_keys) != 1 or entity.entity_values[0].WhichOneof("val") != "string_val":
        raise ValueError(f"the embedded store needs one join key of type String, got {list(entity.join_keys)}")
    return entity_key(entity.join_keys[0], entity.entity_values[0].string_val)


def _stored_key(entity: EntityKey) -> bytes:
    key = _key(entity)
    if key is None:
        raise ValueError(
            f"a key of the embedded store has at most {KEY_BYTES_MAX} bytes with its join key; got one of more"
        )
    return key


def _order(event: datetime, created: datetime | None) -> tuple[int, int]:
    """Event and created time in microseconds; naive ones are UTC, as everywhere in Feast."""
    event = event if event.tzinfo else event.replace(tzinfo=UTC)
    if created is None or pd.isna(created):  # NaT, where a column has gaps
        return to_microseconds(event), CREATED_NONE
    return to_microseconds(event), to_microseconds(created if created.tzinfo else created.replace(tzinfo=UTC))

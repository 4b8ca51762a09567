"""What Feast's views are in the embedded store: sections of records, written, read and removed in transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import lmdb
import pandas as pd
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.columns.rows import StoreUnavailable
from features.common.timestamps import from_microseconds, to_microseconds
from features.feature_store.values import Packer, values_of
from features.lmdb_store.dictionary import StoredWords
from features.lmdb_store.environment import (
    ROWS,
    SCHEMAS,
    Environment,
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


class SectionStore:
    """The sections of one environment, with its schemas and words as far as they were read."""

    def __init__(self) -> None:
        self._schemas: dict[Schema, int] = {}
        self._schema_of: dict[int, Schema] = {}
        self._words = StoredWords()

    def refresh(self, transaction: lmdb.Transaction[bytes]) -> None:
        """Read the schemas and words that are new in the environment."""
        self._words.load(transaction)
        schemas_in(transaction, self._schema_of)
        for number in range(len(self._schemas), len(self._schema_of)):
            self._schemas[self._schema_of[number]] = number

    def _growing(
        self, environment: Environment, settings: Any, work: Callable[[lmdb.Transaction[bytes]], None]
    ) -> None:
        """Do the work in a write transaction, again in a larger map where it did not fit."""
        while True:
            try:
                with environment.write() as transaction:
                    self.refresh(transaction)
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
        """Forget what was read in a transaction that was undone, and with it what was declared there."""
        self._words.forget()
        self._schemas.clear()
        self._schema_of.clear()

    def write(self, environment: Environment, settings: Any, schema: Schema, batch: list[Row]) -> None:
        """Write the rows of one view, in one transaction; a newer event is never overwritten by an older one."""
        with environment.begin() as transaction:
            self.refresh(transaction)
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
            self.refresh(transaction)

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

    def read(
        self,
        transaction: lmdb.Transaction[bytes],
        view: str,
        key: bytes | None,
        wanted: list[str],
        kinds: dict[str, Kind],
    ) -> Read:
        """Return a view's event time and values of an entity; None and None where they are absent or damaged."""
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

    def forget(self, environment: Environment, settings: Any, view: str) -> None:
        """Remove a view's sections from all records, a batch a transaction."""
        batch_rows = settings.batch_rows
        with failing("delete from the online store"):
            after: bytes | None = ROWS
            while after is not None:
                keys = list(self._keys(environment, after, batch_rows))
                self._growing(environment, settings, partial(self._without, keys=keys, view=view))
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


def key_of_entity(entity: EntityKey) -> bytes | None:
    """Return the key of an entity's record; None where it would be too long to be stored.

    Raises:
        ValueError: for an entity of several keys, or of another type than String.
    """
    if len(entity.join_keys) != 1 or entity.entity_values[0].WhichOneof("val") != "string_val":
        raise ValueError(f"the embedded store needs one join key of type String, got {list(entity.join_keys)}")
    return entity_key(entity.join_keys[0], entity.entity_values[0].string_val)


def _stored_key(entity: EntityKey) -> bytes:
    key = key_of_entity(entity)
    if key is None:
        raise ValueError(
            f"a key of the embedded store has at most {KEY_BYTES_MAX} bytes with its join key; got one of more"
        )
    return key


def _order(event: datetime, created: datetime | None) -> tuple[int, int]:
    """Return event and created time in microseconds; naive ones are UTC, as everywhere in Feast."""
    event = event if event.tzinfo else event.replace(tzinfo=UTC)
    if created is None or pd.isna(created):  # NaT, where a column has gaps
        return to_microseconds(event), CREATED_NONE
    return to_microseconds(event), to_microseconds(created if created.tzinfo else created.replace(tzinfo=UTC))

"""Removing a customer from a store that Feast serves. Feast has no way to delete one entity's values: what can be done
differs by store.

SQLite is a file that is known here: its rows are deleted and overwritten. Any other store gets a row of nulls in place
of each view's, at the present moment: nothing is known of the customer any more, but that there was one. The store's
own retention removes the key.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from feast import FeatureStore, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.columns.rows import CUSTOMER_JOIN_KEY, StoreUnavailable
from features.common.timestamps import from_microseconds, now
from features.feature_store.definitions import open_store
from features.feature_store.store_config import KEY_VERSION
from features.workspace.workspace import Workspace, is_sqlite

LOCKED_SECONDS_MAX = 10.0
DELETED, NULLED = "deleted", "overwritten by nulls: Feast cannot delete from this kind of store"


class StoreErasure(NamedTuple):
    """Whether the store had values of the customer, and what became of them."""

    found: bool
    how: str


def exists(workspace: Workspace, customer_id: str) -> bool:
    """Return whether any value of a customer is stored, in any view.

    Raises:
        StoreUnavailable: with whatever the store has thrown.
    """
    store = open_store(workspace)
    if is_sqlite(workspace.online_feast or {}):
        return _in_sqlite(workspace, store, customer_id, delete=False)
    opened, key = get_online_store_from_config(store.config.online_store), _key(customer_id)
    # Edge of the process: a store is foreign code and throws what its driver throws.
    try:
        reads = [opened.online_read(store.config, view, [key], _fields(view))[0] for view in _views(workspace, store)]
    except Exception as error:
        raise StoreUnavailable(f"the online store failed: {type(error).__name__}") from error
    return any(value.WhichOneof("val") for _, values in reads for value in (values or {}).values())


def delete(workspace: Workspace, customer_id: str) -> StoreErasure:
    """Removes what the store has of a customer, as far as it can.

    Raises:
        StoreUnavailable: with whatever the store has thrown.
    """
    store = open_store(workspace)
    if is_sqlite(workspace.online_feast or {}):
        return StoreErasure(_in_sqlite(workspace, store, customer_id, delete=True), DELETED)
    found = exists(workspace, customer_id)
    if found:
        opened, key, at = (
            get_online_store_from_config(store.config.online_store),
            _key(customer_id),
            from_microseconds(now()),
        )
        try:
            for view in _views(workspace, store):
                nulls = {name: Value() for name in _fields(view)}
                opened.online_write_batch(store.config, view, [(key, nulls, at, at)], None)
        except Exception as error:  # the same edge
            raise StoreUnavailable(f"the online store failed: {type(error).__name__}") from error
    return StoreErasure(found, NULLED)


def _in_sqlite(workspace: Workspace, store: FeatureStore, customer_id: str, *, delete: bool) -> bool:
    file = Path((workspace.online_feast or {})["path"])
    if not file.exists():
        return False
    key = serialize_entity_key(_key(customer_id), entity_key_serialization_version=KEY_VERSION)
    found = False
    try:
        with closing(sqlite3.connect(file, timeout=LOCKED_SECONDS_MAX)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for view in _views(workspace, store):
                table = f"{workspace.project}_{view.name}"
                if table in tables:
                    name = '"' + table.replace('"', '""') + '"'
                    counted = connection.execute(f"SELECT count(*) FROM {name} WHERE entity_key = ?", (key,)).fetchone()
                    found |= bool(counted[0])
                    if delete:
                        connection.execute(f"DELETE FROM {name} WHERE entity_key = ?", (key,))
            connection.commit()
            if delete:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the online store failed: {error}") from error
    return found


def _views(workspace: Workspace, store: FeatureStore) -> list[FeatureView]:
    applied: dict[str, Any] = {view.name: view for view in store.list_feature_views()}
    return [applied[view.name] for view in workspace.views if view.entity == "customer" and view.name in applied]


def _fields(view: FeatureView) -> list[str]:
    return [field.name for field in view.features]


def _key(customer_id: str) -> EntityKey:
    return EntityKey(join_keys=[CUSTOMER_JOIN_KEY], entity_values=[Value(string_val=customer_id)])

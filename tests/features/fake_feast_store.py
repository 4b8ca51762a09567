"""A foreign online store: a plug-in of Feast's that does, at each read, whatever a test has told it to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel

Read = tuple[datetime | None, dict[str, Value] | None]

ACTS: dict[str, Callable[[str, str], Read]] = {}
"""What the store of a name answers to a view and a customer."""
USERS: dict[str, set[tuple[int, int]]] = {}
"""Which thread has read with which store object."""
_alive: list[ForeignOnlineStore] = []  # so that no two objects have the same id


class ForeignOnlineStoreConfig(FeastConfigBaseModel):
    """Names what the store does."""

    type: str = "tests.features.fake_feast_store.ForeignOnlineStore"
    name: str
    port: int = 0


class ForeignOnlineStore(OnlineStore):
    """Reads as it is told; nothing is ever written."""

    def __init__(self) -> None:
        _alive.append(self)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        name = config.online_store.name
        USERS.setdefault(name, set()).add((id(self), threading.get_ident()))
        return [ACTS[name](table.name, key.entity_values[0].string_val) for key in entity_keys]

    def online_write_batch(self, *given: Any, **named: Any) -> None:
        raise NotImplementedError

    def update(self, *given: Any, **named: Any) -> None:
        raise NotImplementedError

    def teardown(self, *given: Any, **named: Any) -> None:
        raise NotImplementedError

"""The online stores, a class each: how one is opened, and how a customer's row is found and removed.

A new store is a class here, its kind in `features/workspace/store_kind.py` and its engine in a room of its own.
`tests/features/online/` holds all of them to one contract. Rooms of stores are imported when they are needed: a server
loads only the one that it reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from features.columns.rows import OnlineEngine
from features.columns.views import View
from features.redis_store.address import SCHEMES
from features.workspace.store_kind import EMBEDDED, FEAST, SERVER, StoreKind
from features.workspace.workspace import Workspace

DELETED = "deleted"
STORE_SECONDS_MAX = 5.0
"""A store over the network answers within this time, or the forgetting is gone on with later."""


class Opening(NamedTuple):
    """What an engine is opened with; see `engines.open_engine`."""

    url: str
    path: Path
    views: tuple[View, ...]
    timeout_ms: float
    project: str
    feast: dict[str, Any] | None
    near_cache_rows: int


class OnlineStore(Protocol):
    """What is done with an online store beside reading rows."""

    def open(self, opening: Opening) -> OnlineEngine:
        """Return the engine that reads it."""

    def exists(self, workspace: Workspace, customer_id: str) -> bool:
        """Return whether it knows anything of a customer."""

    def delete(self, workspace: Workspace, customer_id: str) -> tuple[bool, str]:
        """Remove a customer's row; return whether there was one, and how it was removed."""

    def compact(self, workspace: Workspace) -> None:
        """Make sure that no file of it holds bytes of deleted rows."""


class EmbeddedStore:
    """LMDB in the data folder."""

    def open(self, opening: Opening) -> OnlineEngine:
        from features.lmdb_store.engine import EmbeddedEngine

        return EmbeddedEngine(opening.path, opening.views)

    def exists(self, workspace: Workspace, customer_id: str) -> bool:
        from features.lmdb_store import erase

        return erase.exists(workspace.online, customer_id)

    def delete(self, workspace: Workspace, customer_id: str) -> tuple[bool, str]:
        from features.lmdb_store import erase

        return erase.delete(workspace.online, customer_id), DELETED

    def compact(self, workspace: Workspace) -> None:
        from features.lmdb_store import erase

        erase.compact(workspace.online)


class RedisStore:
    """A Redis or Valkey, alone or a cluster."""

    def open(self, opening: Opening) -> OnlineEngine:
        scheme = urlsplit(opening.url).scheme
        if scheme not in SCHEMES:
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise ValueError(
                f"stores.online.url: expected {known}, or nothing for the embedded store; got the scheme {scheme!r}"
            )
        from features.redis_store.engine import RedisEngine

        timeout_ms, rows = opening.timeout_ms, opening.near_cache_rows
        return RedisEngine(opening.url, opening.views, timeout_ms, opening.project, rows)

    def exists(self, workspace: Workspace, customer_id: str) -> bool:
        from features.redis_store import erase

        return erase.exists(workspace.online_url, workspace.project, customer_id, STORE_SECONDS_MAX)

    def delete(self, workspace: Workspace, customer_id: str) -> tuple[bool, str]:
        from features.redis_store import erase

        return erase.delete(workspace.online_url, workspace.project, customer_id, STORE_SECONDS_MAX), DELETED

    def compact(self, workspace: Workspace) -> None:
        """Nothing: its files are not ours."""


class FeastStore:
    """Any store that Feast knows."""

    def open(self, opening: Opening) -> OnlineEngine:
        from features.feature_store.engine import FeastEngine

        assert opening.feast is not None, "a store that Feast reads has a section"
        folder = opening.path.parent / "feast"
        return FeastEngine(opening.feast, opening.views, opening.timeout_ms, opening.project, folder)

    def exists(self, workspace: Workspace, customer_id: str) -> bool:
        from features.feature_store import erase

        return erase.exists(workspace, customer_id)

    def delete(self, workspace: Workspace, customer_id: str) -> tuple[bool, str]:
        from features.feature_store import erase

        return erase.delete(workspace, customer_id)

    def compact(self, workspace: Workspace) -> None:
        """Nothing: its files are not ours."""


STORES: dict[StoreKind, OnlineStore] = {EMBEDDED: EmbeddedStore(), SERVER: RedisStore(), FEAST: FeastStore()}


def store_of(workspace: Workspace) -> OnlineStore:
    """Return the online store that a workspace names."""
    return STORES[workspace.store_kind]

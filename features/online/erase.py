"""Removing a customer's row from the online store that a workspace names, whatever its engine."""

from __future__ import annotations

from features.online.stores import store_of
from features.workspace.workspace import Workspace


def exists(workspace: Workspace, customer_id: str) -> bool:
    """Return whether the online store knows anything of a customer.

    Raises:
        StoreUnavailable: it does not answer, or is damaged.
    """
    return store_of(workspace).exists(workspace, customer_id)


def delete(workspace: Workspace, customer_id: str) -> tuple[bool, str]:
    """Remove a customer's row, at once and for all workers; return whether there was one, and how it was removed.

    Raises:
        StoreUnavailable: it does not answer, or is damaged.
    """
    return store_of(workspace).delete(workspace, customer_id)


def compact(workspace: Workspace) -> None:
    """Make sure that no file of the store holds bytes of deleted rows; see `lmdb_store.erase.compact`."""
    store_of(workspace).compact(workspace)

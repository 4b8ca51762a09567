"""Removing a customer's row from the online store that a workspace names, whatever its engine."""

from __future__ import annotations

from features.workspace.workspace import Workspace

DELETED = "deleted"
STORE_SECONDS_MAX = 5.0
"""A store over the network answers within this time, or the forgetting is gone on with later."""


def exists(workspace: Workspace, customer_id: str) -> bool:
    """Return whether the online store knows anything of a customer.

    Raises:
        StoreUnavailable: it does not answer, or is damaged.
    """
    url = workspace.online_url
    if url.startswith("feast:"):
        from features.feature_store import erase as feast_erase

        return feast_erase.exists(workspace, customer_id)
    if url == "embedded":
        from features.lmdb_store import erase as lmdb_erase

        return lmdb_erase.exists(workspace.online, customer_id)
    from features.redis_store import erase as redis_erase

    return redis_erase.exists(url, workspace.project, customer_id, STORE_SECONDS_MAX)


def delete(workspace: Workspace, customer_id: str) -> tuple[bool, str]:
    """Removes a customer's row, at once and for all workers; whether there was one, and how it was removed.

    Raises:
        StoreUnavailable: it does not answer, or is damaged.
    """
    url = workspace.online_url
    if url.startswith("feast:"):
        from features.feature_store import erase as feast_erase

        return feast_erase.delete(workspace, customer_id)
    if url == "embedded":
        from features.lmdb_store import erase as lmdb_erase

        return lmdb_erase.delete(workspace.online, customer_id), DELETED
    from features.redis_store import erase as redis_erase

    return redis_erase.delete(url, workspace.project, customer_id, STORE_SECONDS_MAX), DELETED


def compact(workspace: Workspace) -> None:
    """Makes sure that no file of the store holds bytes of deleted rows; needed by the embedded store alone. See
    `lmdb_store.erase.compact`.
    """
    if workspace.online_url == "embedded":
        from features.lmdb_store import erase as lmdb_erase

        lmdb_erase.compact(workspace.online)

"""Opens the online engine that a workspace names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.columns.rows import OnlineEngine
from features.columns.views import View
from features.online.stores import STORES, Opening
from features.workspace.store_kind import EMBEDDED, FEAST, kind_of


def open_engine(
    url: str | None,
    path: Path,
    views: tuple[View, ...],
    timeout_ms: float,
    project: str,
    feast: dict[str, Any] | None = None,
    near_cache_rows: int = 0,
) -> OnlineEngine:
    """Return the engine over Feast's section `feast`, or else at `url`, or the embedded one at `path` where there is
    neither.

    Args:
        url: `stores.online.url`; None, empty or `embedded`: the embedded store.
        path: the folder of the embedded store.
        timeout_ms: how long a read over the network may take.
        project: Feast's project.
        feast: `stores.online.feast` with its placeholders filled in; None where another engine serves.
        near_cache_rows: how many rows the Redis engine keeps in this process; the others have no use for it.

    Raises:
        ValueError: when the URL's scheme is not supported, or the URL is malformed.
    """
    kind = FEAST if feast is not None else kind_of(url or EMBEDDED.name)
    return STORES[kind].open(Opening(url or "", path, views, timeout_ms, project, feast, near_cache_rows))

"""Opens the online engine that a workspace names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from features.columns.rows import OnlineEngine
from features.columns.views import View
from features.redis_store.address import SCHEMES


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
    if feast is not None:
        from features.feature_store.engine import FeastEngine

        return FeastEngine(feast, views, timeout_ms, project, path.parent / "feast")
    if url is None or url in ("", "embedded"):
        from features.lmdb_store.engine import EmbeddedEngine

        return EmbeddedEngine(path, views)
    if urlsplit(url).scheme in SCHEMES:
        from features.redis_store.engine import RedisEngine

        return RedisEngine(url, views, timeout_ms, project, near_cache_rows)
    raise ValueError(
        f"stores.online.url: expected {', '.join(f'{scheme}://' for scheme in SCHEMES)}, or nothing for the embedded"
        f" store; got the scheme {urlsplit(url).scheme!r}"
    )

"""Opens the online engine that a workspace names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from features.online import OnlineEngine
from features.redis_address import SCHEMES
from features.views import View


def open_engine(url: str | None, path: Path, views: tuple[View, ...], timeout_ms: float, project: str) -> OnlineEngine:
    """The engine at `url`, or the embedded one at `path` where there is none.

    Args:
        url: `stores.online.url`; None, empty or `embedded`: the embedded store.
        path: the folder of the embedded store.
        timeout_ms: how long a read over the network may take.
        project: Feast's project.

    Raises:
        ValueError: when the URL's scheme is not supported, or the URL is malformed.
    """
    if url is None or url in ("", "embedded"):
        from features.embedded import EmbeddedEngine

        return EmbeddedEngine(path, views)
    if urlsplit(url).scheme in SCHEMES:
        from features.redis_engine import RedisEngine

        return RedisEngine(url, views, timeout_ms, project)
    raise ValueError(
        f"stores.online.url: expected {', '.join(f'{scheme}://' for scheme in SCHEMES)}, or nothing for the embedded store; "
        f"got the scheme {urlsplit(url).scheme!r}"
    )

"""The embedded store under the path by which Feast configurations of earlier releases name it; it lives in
`features/feature_store`.
"""

from __future__ import annotations

from features.feature_store.lmdb_online_store import LmdbOnlineStore, LmdbOnlineStoreConfig

__all__ = ["LmdbOnlineStore", "LmdbOnlineStoreConfig"]

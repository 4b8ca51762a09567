"""What the numbers of recorded decisions mean: names and categories of a bundle's columns, kept beside them for good.

    lake/recorded/bundles/<digest of the bundle>.json

A bundle is deleted some versions later; what it recorded stays, and its category codes can be turned into texts for
ever.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from features.columns.contract import Column, Contract
from features.common.files import write_whole
from features.lake.loop_tables import RECORDED
from features.workspace.workspace import Workspace

_SAME = ("kind", "dtype", "source", "match", "combine", "empty", "relative", "relative_to")


class RecordedBundle(Struct, frozen=True):
    """The columns of one bundle, in model order, and the texts of its categories."""

    contract: Contract
    categories: dict[str, list[str]]


def bundle_file(workspace: Workspace, bundle: str) -> Path:
    """Return where the columns of a bundle (`sha256:…`) are kept."""
    return workspace.lake / RECORDED.folder / "bundles" / f"{bundle.removeprefix('sha256:')}.json"


def keep_bundle(workspace: Workspace, bundle: str, contract: Contract, categories: dict[str, list[str]]) -> bool:
    """Keep what a bundle's numbers mean; False where it is kept already."""
    file = bundle_file(workspace, bundle)
    if file.exists():
        return False
    write_whole(file, msgspec.json.encode(RecordedBundle(contract, categories)))
    return True


def read_bundle(workspace: Workspace, bundle: str) -> RecordedBundle | None:
    """Return what the numbers of a bundle mean; None where nobody kept it."""
    try:
        return msgspec.json.decode(bundle_file(workspace, bundle).read_bytes(), type=RecordedBundle)
    except FileNotFoundError:
        return None


def is_same(column: Column, other: Column) -> bool:
    """Return whether two columns of one name hold the same; units, purposes, limits and defaults were applied before
    they were recorded.
    """
    return all(getattr(column, name) == getattr(other, name) for name in _SAME)

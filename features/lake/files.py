"""Which files of a lake's folder count: imported and shipped ones, and merged ones in place of those that they replace.

    day=2026-11-22/import-<id>-0.parquet          brought by an import
    day=2026-11-22/shipped-00000017-<digest>.parquet   brought by a shipment of the journal
    day=2026-11-22/merged-<digest>.parquet        several shipped files as one; counts once the file beside it is there
    day=2026-11-22/merged-<digest>.json           what it replaces
    day=2026-11-22/expired.json                   the day is over its retention: none of its files counts

Whoever lists at any moment sees each row once: a merged file is in place before the `.json` that makes it count and
hides the others, and hidden files stay long enough for whoever listed them before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from msgspec import Struct

from features.common.files import locked

SHIPPED, MERGED, EXPIRED = "shipped-", "merged-", "expired.json"


class Replaces(Struct, frozen=True):
    """What a merged file stands for: names of all files of its folder that no longer count, also those that these had
    replaced.
    """

    files: list[str]
    at: int
    """Microseconds since 1970."""


def is_imported(file: Path) -> bool:
    """Return whether an import brought the file, rather than a shipment."""
    return not file.name.startswith((SHIPPED, MERGED))


def replaced_by(folder: Path, names: list[str]) -> dict[str, Replaces]:
    """Return what each merged file of a folder replaces, which counts, or did.

    Args:
        names: those of the folder, listed once.
    """
    found = {}
    for name in names:
        if name.startswith(MERGED) and name.endswith(".json"):
            try:
                found[name.removesuffix(".json") + ".parquet"] = msgspec.json.decode(
                    (folder / name).read_bytes(), type=Replaces
                )
            except FileNotFoundError:  # it was itself replaced long ago, and removed just now
                continue
    return found


def counting(folder: Path) -> list[Path]:
    """Return the files of a table, by day and name; none where there is no folder."""
    return sorted(_counting(folder))


def _counting(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.is_dir()) for entry in entries]
    except FileNotFoundError:
        return
    names = [name for name, is_folder in listed if not is_folder]
    for name, is_folder in listed:
        if is_folder:
            yield from _counting(folder / name)
    if EXPIRED in names:
        return
    merged = replaced_by(folder, names)
    hidden = {name for replaces in merged.values() for name in replaces.files}
    plain = {name for name in names if name.endswith(".parquet") and not name.startswith(MERGED)}
    # A merged file is there before its .json is, whatever the listing saw first.
    for name in (plain | merged.keys()) - hidden:
        yield folder / name


def writing(lake: Path) -> AbstractContextManager[None]:
    """Hold the lake while files are moved in or removed; readers need no lock."""
    return locked(lake.with_name("lake.lock"))  # beside it: an empty lake has no files

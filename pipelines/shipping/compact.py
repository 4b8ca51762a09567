"""Merges the many small files that shipments leave in a day's folder, while anybody may be reading.

A merged file is made aside and moved in, where it does not count yet; then a `.json` beside it says what it replaces,
and from that moment it counts and the others do not (see `features/lake/files.py`). Those are removed later. Imported
files are left alone: an import knows them by their names.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec
import pyarrow.parquet as pq

from features.common.clock import written_s
from features.common.errors import Failure
from features.common.files import sync, write_whole
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.lake.files import EXPIRED, MERGED, Replaces, counting, is_imported, replaced_by, writing
from features.lake.lake import literal, reader
from features.workspace.workspace import Workspace
from pipelines.shipping.parts import Step
from pipelines.shipping.ship import alone

FILES_MANY = 16
"""Files of a day that are as many before they are merged."""
MERGED_BYTES_MAX = 64 << 20
"""A file of this size is not merged again."""
REWRITE_FACTOR = 4
"""A file that is so many times as large as all smaller ones together is left alone until they have grown."""
GRACE_SECONDS = 3_600
"""What no longer counts is removed after so long: a query may still read what it listed before."""


class Compacted(NamedTuple):
    """What one run did, in files."""

    made: int
    merged: int
    removed: int


class BadMerge(Failure):
    """A merged file has not the rows of those that it should replace; they stay."""


def compact(workspace: Workspace, now: Micros, step: Step = lambda _: None) -> Compacted:
    """Merge small files, and remove those that were replaced long enough ago.

    Args:
        now: microseconds since 1970.
        step: told each step on the file system before it is taken.

    Raises:
        BadMerge: nothing was replaced.
    """
    made = merged = removed = 0
    with alone(workspace):
        for folder in day_folders(workspace.lake):
            small = _small([file for file in counting(folder) if not is_imported(file)])
            if len(small) >= FILES_MANY:
                _merge(workspace, folder, small, now, step)
                made, merged = made + 1, merged + len(small)
            removed += _remove_replaced(workspace, folder, now, step)
    return Compacted(made, merged, removed)


def day_folders(lake: Path) -> list[Path]:
    """Return the folders of all days of all tables, also of streams that are no longer declared."""
    return sorted(folder for folder in lake.glob("**/day=*") if folder.is_dir())


def _small(files: list[Path]) -> list[Path]:
    """Return those worth merging, so that a row is written again only when the files with it have multiplied in
    size.
    """
    chosen: list[Path] = []
    total = 0
    for size, file in sorted((file.stat().st_size, file) for file in files):
        if size >= MERGED_BYTES_MAX or (chosen and size > REWRITE_FACTOR * total):
            break
        chosen.append(file)
        total += size
    return sorted(chosen)


def _merge(workspace: Workspace, folder: Path, files: list[Path], now: Micros, step: Step) -> None:
    aside = workspace.data / "aside" / "merging"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    before = replaced_by(folder, os.listdir(folder))  # noqa: PTH208 (names are wanted)
    names = {file.name for file in files}
    names |= {older for name in names for older in (before[name].files if name in before else ())}
    target = folder / f"{MERGED}{hashlib.sha256(' '.join(sorted(names)).encode()).hexdigest()[:16]}.parquet"
    step(f"write {target.name}")
    made = aside / target.name
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"COPY (SELECT * FROM {reader(files)}) TO {literal(str(made))} (FORMAT parquet, COMPRESSION zstd)")
    if (got := pq.read_metadata(made).num_rows) != rows:
        raise BadMerge(
            f"expected {rows} rows of {len(files)} files of {folder} in one, got {got}: nothing was replaced"
        )
    sync(made)
    with writing(workspace.lake):
        step(f"move {target.name}")
        made.rename(target)
        sync(folder)
        step(f"tell {target.name}")
        write_whole(target.with_suffix(".json"), msgspec.json.encode(Replaces(sorted(names), now)))
    shutil.rmtree(aside)


def _remove_replaced(workspace: Workspace, folder: Path, now: Micros, step: Step) -> int:
    names = set(os.listdir(folder))  # noqa: PTH208 (names are wanted)
    old = now - GRACE_SECONDS * MICROSECONDS
    merged = replaced_by(folder, sorted(names))
    gone = {name for replaces in merged.values() if replaces.at < old for name in replaces.files} & names
    # Merged files that nothing tells of: their process died before it could.
    gone |= {
        name
        for name in names
        if name.startswith(MERGED) and name.endswith(".parquet") and name not in merged and _is_old(folder / name, old)
    }
    if gone and EXPIRED not in names:
        with writing(workspace.lake):
            for name in sorted(gone):
                step(f"remove {name}")
                (folder / name).unlink(missing_ok=True)
                if name in merged:
                    (folder / name).with_suffix(".json").unlink(missing_ok=True)
    return len(gone)


def _is_old(file: Path, moment: int) -> bool:
    return written_s(file.stat()) * MICROSECONDS < moment

"""Backing up a workspace while it serves: its own files, and a consistent copy of all that it has made of them, in one
file.
"""

from __future__ import annotations

import platform
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from features.common.errors import Failure
from features.common.timestamps import now
from features.config.workspace_file import Source
from features.lake.tables import Table, tables_of
from features.validation.load import FILES
from features.workspace.workspace import Workspace
from pipelines.backup.archive import DATA, FORMAT, WORKSPACE, BackupManifest, is_safe, write
from pipelines.backup.contents import contents_of
from pipelines.backup.copy import copy_data
from pipelines.erasure.task import one_at_a_time
from pipelines.importing.source_files import files_of
from pipelines.materialize.hold import held

LIBRARIES = ("opportune", "feast", "mlflow", "lightgbm", "lmdb", "duckdb")
"""Those whose files are in a backup, and ours."""

Tell = Callable[[str, float | None], None]


class CannotBackUp(Failure):
    """The file of a backup cannot be written where it was asked for."""


def back_up(workspace: Workspace, file: Path, tell: Tell = lambda *_: None) -> BackupManifest:
    """Write a backup. All that was acknowledged before it began is in it, once.

    Nobody is forgotten meanwhile: that waits, so that no copy keeps what a proof says is gone.

    Raises:
        CannotBackUp: the file would lie within the data folder, its folder is not there, or a database cannot be read.
        Busy: another process holds the workspace for too long.
        OSError: the disk refuses; what was there under the file's name stays.
    """
    if not file.absolute().parent.is_dir() or file.is_dir():
        raise CannotBackUp(f"expected the name of a file in a folder that is there, got {file}")
    if file.resolve().is_relative_to(workspace.data.resolve()):
        raise CannotBackUp(f"expected a file outside of {workspace.data}, which is what is copied, got {file}")
    aside = workspace.data / "aside" / "backup"
    with one_at_a_time(workspace):
        shutil.rmtree(aside, ignore_errors=True)
        try:
            tell("wait for the workspace", None)
            with held(workspace):
                tell("copy", None)
                at = now()
                left_out = copy_data(workspace, aside / DATA)
            tell("count", None)
            contents = contents_of(laid_out(workspace, aside))
            left_out |= _elsewhere(workspace)
            own, outside = _own_files(workspace)
            if outside:
                left_out["sources"] = (
                    f"{outside} files that lie outside of the workspace's folder, or have names that no backup takes"
                )
            members = [*own, *((f"{DATA}/{path.relative_to(aside / DATA)}", path) for path in _files(aside / DATA))]
            if bad := next((name for name, _ in members if not is_safe(name)), None):
                raise CannotBackUp(f"expected names of files without control characters, got {bad!r}: rename it")
            made = BackupManifest(FORMAT, workspace.settings.name, at, _versions(), contents, left_out, [])
            return write(file, members, lambda written: msgspec.structs.replace(made, members=written), tell)
        except sqlite3.Error as error:
            raise CannotBackUp(f"expected to read the databases in {workspace.data}, got: {error}") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def laid_out(workspace: Workspace, folder: Path) -> Workspace:
    """Return the workspace with the data folder that lies in a backup's folder."""
    return replace(workspace, folder=folder, settings=msgspec.structs.replace(workspace.settings, data=DATA))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _own_files(workspace: Workspace) -> tuple[list[tuple[str, Path]], int]:
    """Return the workspace's files and the sources that lie in its folder, by their names in the archive; and how many
    sources do not.
    """
    found = {f"{WORKSPACE}/{name}": workspace.folder / name for name in FILES if (workspace.folder / name).exists()}
    outside = 0
    for table in tables_of(workspace).values():
        source = workspace.source(table.name)
        for file in () if source is None else _sources(workspace, table, source):
            if file.is_relative_to(workspace.folder) and is_safe(
                name := f"{WORKSPACE}/{file.relative_to(workspace.folder)}"
            ):
                found[name] = file
            else:
                outside += 1
    return sorted(found.items()), outside


def _sources(workspace: Workspace, table: Table, source: Source) -> list[Path]:
    try:
        return files_of(workspace, table, source)
    except Failure:  # not there any more: what was imported is in the lake
        return []


def _elsewhere(workspace: Workspace) -> dict[str, str]:
    """Return what the workspace keeps in other places, which have backups of their own."""
    stores, found = workspace.settings.stores, {}
    if not workspace.store_kind.in_data_folder:
        found["online"] = (
            f"rows{'' if workspace.store_kind.ledger_in_data_folder else ' and contact ledger'} are in a store of"
            " their own"
        )
    if stores.registry:
        found["registry"] = "runs and versions are in a registry of their own"
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a part that was left out, or a checkout that was not installed
            continue
    return found

"""Restoring a backup: unpacked aside and compared, then moved into place. What was there is kept aside, never
overwritten.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec
from msgspec import Struct

from features.common.errors import Failure
from features.common.files import digest_of, sync
from features.common.timestamps import now, rfc3339
from features.validation.load import FILES, data_of, load
from features.workspace.workspace import Workspace
from pipelines.backup.archive import DATA, WORKSPACE, BackupManifest, BadBackup, read
from pipelines.backup.backup import laid_out
from pipelines.backup.contents import contents_of
from pipelines.deploy.supervisor import only_one
from pipelines.materialize import steps
from pipelines.materialize.damage import servers_run
from training.bundle import artifact_locations

Tell = Callable[[str, float | None], None]


class CannotRestore(Failure):
    """The place is taken: nothing was changed."""


class Restored(Struct):
    """What was restored.

    Attributes:
        kept: where the data folder is that was there before, and the workspace's files that were others; nothing where
            there were none.
        sources_kept: sources that were there already, and are left as they are.
    """

    manifest: BackupManifest
    folder: str
    kept: str
    sources_kept: list[str]


def restore(file: Path, folder: Path, *, force: bool = False, tell: Tell = lambda *_: None) -> Restored:
    """Restore a backup into a folder, which need not exist.

    All digests and counts are compared before anything that is there is touched.

    Args:
        force: put aside the data folder that is there, and the workspace's files that are others than those of the
            backup.

    Raises:
        BadBackup: the file is not a whole backup.
        CannotRestore: the folder has a data folder, or other files of a workspace; or servers run there.
        OSError: the disk refuses.
    """
    new = not folder.exists()
    if not new and not force:
        _require_room(data_of(folder))
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder.resolve() / f".restore-{os.getpid()}"
    try:
        aside.mkdir(mode=0o700)
        manifest = read(file, aside, tell)
        (aside / DATA).mkdir(exist_ok=True)
        tell("count", None)
        restored = _counted(file, manifest, aside)
        return _moved(restored, manifest, aside, folder.resolve(), force=force)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _counted(file: Path, manifest: BackupManifest, aside: Path) -> Workspace:
    """Return the workspace that was unpacked, whose contents are those that were counted when it was copied."""
    found = load(aside / WORKSPACE, sources=False)
    try:
        contents = contents_of(laid_out(found, aside))
    except (Failure, sqlite3.Error, ValueError) as error:
        # Its digests fit: it was damaged before it was backed up, or made by somebody else.
        raise BadBackup(f"{file}: expected files that can be counted, got: {error}") from error
    if contents != manifest.contents:
        said, got = msgspec.to_builtins(manifest.contents), msgspec.to_builtins(contents)
        name = next(name for name in said if said[name] != got[name])
        raise BadBackup(f"{file}: expected {said[name]} as its {name}, got {got[name]}: it is damaged, do not use it")
    return found


def _moved(restored: Workspace, manifest: BackupManifest, aside: Path, folder: Path, *, force: bool) -> Restored:
    data = folder / restored.settings.data
    _require_below(data, folder, aside)
    others = [name for name in FILES if _differs(aside / WORKSPACE / name, folder / name)]
    if not force:
        _require_room(data)
        if others:
            raise CannotRestore(
                f"expected {folder} to have no other files of a workspace, got {', '.join(others)}, which differ from"
                " the backup's: restore into another folder, or put them aside with --force"
            )
    with ExitStack() as held:
        if _is_taken(data):
            there = replace(restored, folder=folder)
            if servers_run(there):
                raise CannotRestore(f"expected no server on {folder}, got one that runs: end it first")
            held.enter_context(only_one(there))
            held.enter_context(steps.alone(there))
        kept = _put_aside(data, folder, others)
        sources_kept = _place_files(aside / WORKSPACE, folder)
        _move_in(aside / DATA, data)
    artifact_locations.relocate(data)
    return Restored(manifest, str(folder), kept, sources_kept)


def _require_below(data: Path, folder: Path, aside: Path) -> None:
    """A backup must not choose where on the disk it goes: a data folder elsewhere has to be what the folder's own file
    says already.
    """
    mine, its = folder / "workspace.yaml", aside / WORKSPACE / "workspace.yaml"
    below = data.resolve().is_relative_to(folder) and data.resolve() != folder
    if not below and not (mine.exists() and digest_of(mine) == digest_of(its)):
        raise CannotRestore(
            f"expected a data folder below {folder}, got {data} from the backup's workspace.yaml: if that is where it"
            " should go, put this workspace.yaml into the folder first"
        )


def _is_taken(data: Path) -> bool:
    """Return whether there is something in a data folder; a file system that is mounted there has a folder of its
    own.
    """
    return data.is_dir() and any(entry.name != "lost+found" for entry in data.iterdir())


def _require_room(data: Path) -> None:
    if _is_taken(data):
        raise CannotRestore(
            f"expected no data in {data}, got some: restore into another folder, or put it aside with --force"
        )


def _differs(source: Path, target: Path) -> bool:
    """Return whether a file is there that is another than the backup's, or that the backup does not have."""
    return target.exists() and (not source.exists() or digest_of(source) != digest_of(target))


def _put_aside(data: Path, folder: Path, others: list[str]) -> str:
    """Put what is in the way into a folder beside the data folder; where that is, or nothing."""
    taken = _is_taken(data)
    if not others and not taken:
        return ""
    before = data.with_name(f"{data.name}.before-{rfc3339(now()).replace(':', '')}")
    data.rename(before) if taken else before.mkdir(mode=0o700, parents=True)
    for name in others:
        (before / WORKSPACE).mkdir(mode=0o700, exist_ok=True)
        _rename(folder / name, before / WORKSPACE / name)
    sync(data.parent)
    return str(before)


def _place_files(files: Path, folder: Path) -> list[str]:
    """Move the workspace's files in; its sources are the business's own and stay where they are there already."""
    kept = []
    for source in sorted(path for path in files.rglob("*") if path.is_file()):
        target = folder / source.relative_to(files)
        if target.exists():
            if digest_of(source) != digest_of(target):
                kept.append(str(source.relative_to(files)))
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        source.chmod(0o644)
        source.rename(target)
    sync(folder)
    return kept


def _move_in(source: Path, data: Path) -> None:
    """Move the data folder in at once; into one that is there and empty, which may be where a disk is mounted, piece by
    piece.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    if data.is_dir():
        for entry in source.iterdir():
            _rename(entry, data / entry.name)
    else:
        _rename(source, data)
    sync(data.parent)


def _rename(source: Path, target: Path) -> None:
    """Rename; from another file system by a copy beside the target, so that the name appears with the whole."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.move(source, aside)
        aside.rename(target)

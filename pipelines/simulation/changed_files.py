"""A workspace under changed files: those of another folder in place of its own, on the same data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from features.common.errors import Failure
from features.config.documents import content_of
from features.config.faults import BadWorkspace, Fault
from features.validation.load import FILES, load
from features.workspace.workspace import Workspace


class BadChanges(Failure):
    """Changed files that cannot be held against the workspace."""


def changed(workspace: Workspace, folder: Path) -> tuple[Workspace, list[str]]:
    """Return the workspace with the files that `folder` holds, checked whole, and the names of those that say something
    else.

    Raises:
        BadChanges: the folder holds no file of a workspace, or one that is none, or needs other data or another model.
        BadWorkspace: what the files say together is wrong; faults name the file where it lies.
    """
    given = _given(folder)
    with TemporaryDirectory() as aside:
        for name in FILES:
            source = folder / name if name in given else workspace.folder / name
            if os.path.lexists(source):
                (Path(aside) / name).write_bytes(content_of(source, str(source)))
        try:
            found = load(Path(aside), sources=False)
        except BadWorkspace as bad:
            raise BadWorkspace([_placed(fault, workspace, folder, given) for fault in bad.faults]) from bad
    found = replace(found, folder=workspace.folder)
    differing = [name for name, one, other in zip(FILES, _said(workspace), _said(found), strict=True) if one != other]
    _require_same_ground(workspace, found)
    return found, differing


def _given(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadChanges(f"--changes: expected a folder with the files that differ, got {folder}, which is none")
    given = [name for name in FILES if os.path.lexists(folder / name)]
    others = sorted(
        file.name for file in folder.iterdir() if file.suffix in (".yaml", ".yml") and file.name not in FILES
    )
    if others or not given:
        got = f"{', '.join(others)}, which would be without effect: remove or rename it" if others else "none of them"
        raise BadChanges(f"--changes: expected some of {', '.join(FILES)} in {folder}, got {got}")
    return given


def _placed(fault: Fault, workspace: Workspace, folder: Path, given: list[str]) -> Fault:
    return replace(fault, file=str((folder if fault.file in given else workspace.folder) / fault.file))


def _said(workspace: Workspace) -> list[object]:
    """Return what each of `FILES` says, in their order."""
    return [
        workspace.settings,
        workspace.features,
        workspace.offers,
        workspace.policies,
        workspace.experiments,
        workspace.model,
    ]


def _require_same_ground(before: Workspace, after: Workspace) -> None:
    """Both sides decide with the same rows and the same bundle.

    Raises:
        BadChanges: they could not.
    """
    remedy = "simulate compares files on the same data and model; take this change in its own step, with `opportune up`"
    for what, one, other in (
        ("name, data or stores of workspace.yaml", _place(before), _place(after)),
        ("the columns that are kept of a customer (features.yaml)", before.views, after.views),
        ("the columns of the model", before.contract.fingerprint, after.contract.fingerprint),
    ):
        if one != other:
            raise BadChanges(f"--changes: expected files for the same data, got a change of {what}: {remedy}")


def _place(workspace: Workspace) -> object:
    settings = workspace.settings
    return settings.name, settings.data, settings.stores

"""Forgetting what stores and crashes leave in files: pages of LMDB that are no longer used, and files that were being
written.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from features.common.clock import now_s, written_s
from features.lmdb_store.scrub import scrub
from features.online import erase as online_erase
from features.workspace.workspace import Workspace
from pipelines.erasure.places import Removed, Step
from pipelines.erasure.scan import holds, offsets, untold

SPILL_SECONDS = 3_600.0
"""What was not touched for so long is no running query's."""


class OnlineFiles:
    """The files of the embedded online store: its rows once more, for a refresh may have brought them back, then its
    pages.
    """

    name = "online_files"

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        for unit in units:
            step("delete from the online store again")
            online_erase.delete(self._workspace, unit)
        found = self.left(units)
        compacts = found or (self._workspace.store_kind.in_data_folder and untold(units))
        if compacts:
            step("compact the online store")
            online_erase.compact(self._workspace)
        return Removed(found, found, "what is live was copied into a new generation" if compacts else "")

    def left(self, units: Sequence[str]) -> int:
        """Files with bytes of the id."""
        return int(self._workspace.store_kind.in_data_folder and holds(self._workspace.online, units))


class LedgerFiles:
    """The file of the embedded ledger: its keys are hashes, but what is new of an anonymous unit names its customer."""

    name = "ledger_files"

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.data / "ledger"

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        found = self.left(units)
        if found:
            step("overwrite free pages of the ledger")
            scrub(self._folder, partial(offsets, units=units))
        return Removed(found, found, "free pages were overwritten" if found else "")

    def left(self, units: Sequence[str]) -> int:
        """Files with bytes of the id."""
        return int(holds(self._folder, units))


class Leftovers:
    """What a process that was killed had not finished writing (whoever writes there holds the workspace, so nobody is),
    and stores that were set aside as damaged: nobody can tell what they hold, so they go as a whole.
    """

    name = "leftovers"

    def __init__(self, workspace: Workspace) -> None:
        self._whole = (workspace.data / "aside", workspace.data / "damaged")
        self._spill = workspace.data / "spill"

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        found = self._files()
        if found:
            step("remove leftovers")
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return Removed(len(found), len(found))

    def left(self, units: Sequence[str]) -> int:
        return len(self._files())

    def _files(self) -> list[Path]:
        before = now_s() - SPILL_SECONDS
        aside = [path for folder in self._whole if folder.is_dir() for path in folder.iterdir()]
        spilt = (
            [path for path in self._spill.iterdir() if written_s(path.stat()) < before] if self._spill.is_dir() else []
        )
        return [*aside, *spilt]

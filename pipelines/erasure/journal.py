"""Forgetting in the decision journals: live workers seal what they have written, then the customer's lines are blanked
file by file.

A blanked line is as long as it was: the shipper knows files by stem and byte. A file is written aside and put in place
of the old one, so that a crash leaves the old or the new one; nobody but the process that has a file open appends to
it, and that one has turned to the next.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from features.common.errors import Failure
from features.common.files import write_whole
from features.events.journal_redaction import blanked
from features.workspace.workspace import Workspace
from pipelines.erasure.places import Removed, Step
from serving.journal.files import DAMAGED, OPEN, SEALED, TURN

TURN_SECONDS_MAX = 20.0
"""Live workers seal their files within this time, a hundred times what they need."""
LOOK_SECONDS = 0.02


class NotTurned(Failure):
    """A worker has not sealed its journal in time."""


class Journals:
    """All journal files of a workspace; see `Place`."""

    name = "journal"

    def __init__(self, workspace: Workspace, turn_seconds_max: float = TURN_SECONDS_MAX) -> None:
        self._folder, self._turn_seconds_max = workspace.data / "journal", turn_seconds_max

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        found = 0
        if self._folder.is_dir():
            for draft in self._folder.glob(f".*Z-*{SEALED}.*"):  # of a forgetting that was killed
                draft.unlink(missing_ok=True)
            step("turn the journals")
            self._turn()
            for file in self._sealed():
                found += self._blank(file, units, step)
            for file in sorted(self._folder.glob(f"*{OPEN}")):
                found += self._blank_dead(file, units, step)
        return Removed(found, found)

    def left(self, units: Sequence[str]) -> int:
        """Looks at what live workers are writing too."""
        found = 0
        for file in [*self._sealed(), *self._folder.glob(f"*{OPEN}")]:
            with suppress(FileNotFoundError):
                found += blanked(file.read_bytes(), units).lines
        return found

    def _sealed(self) -> list[Path]:
        return sorted([*self._folder.glob(f"*{SEALED}"), *self._folder.glob(f"*{DAMAGED}")])

    def _turn(self) -> None:
        """Have live workers seal what they have written until now.

        Raises:
            NotTurned: one has not done it in time.
        """
        files = list(self._folder.glob(f"*{OPEN}"))  # before they are asked: what a worker turns to is not waited for
        (self._folder / TURN).touch(mode=0o600)
        waited = {file for file in files if _size(file)}
        deadline = time.monotonic() + self._turn_seconds_max
        while True:
            waited = {file for file in waited if file.exists() and _is_written(file)}
            if not waited:
                return
            if time.monotonic() > deadline:
                raise NotTurned(
                    f"expected all workers to seal their journals within {self._turn_seconds_max:g} s, got"
                    f" {len(waited)} that did not: is a server stopped, or its disk full? It is tried again"
                )
            time.sleep(LOOK_SECONDS)

    def _blank_dead(self, file: Path, units: Sequence[str], step: Step) -> int:
        """Return a file that a dead process left: the next server takes it in. What is written now was begun after the
        turn.
        """
        with _owned(file) as is_owned:
            return self._blank(file, units, step) if is_owned else 0

    def _blank(self, file: Path, units: Sequence[str], step: Step) -> int:
        try:
            content = file.read_bytes()
        except FileNotFoundError:  # over its bounds, deleted
            return 0
        without = blanked(content, units)
        if without.lines:
            step(f"rewrite {file.name}")
            write_whole(file, without.content)
            file.chmod(0o600)
        return without.lines


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _is_written(file: Path) -> bool:
    """Return whether a live process has a file open."""
    with _owned(file) as is_owned:
        return not is_owned and file.exists()


@contextmanager
def _owned(file: Path) -> Iterator[bool]:
    """Hold an open file that no live process holds; False where one does, or where it is gone."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield file.exists()
    finally:
        os.close(handle)

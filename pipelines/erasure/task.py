"""A forgetting that is under way, as a file: whoever finds it after a crash goes on with it.

<data>/forget/<keyed hash of the unit>.json    readable by its owner alone; the one place that holds the id until all is
done
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from msgspec import Struct, field

from features.common.errors import Failure
from features.common.files import locked, sync, write_whole
from features.common.pseudonyms import pseudonym
from features.workspace.workspace import Workspace

FOLDER = "forget"
NAME_BYTES = 16


class BadTask(Failure):
    """A task's file that cannot be read."""


class ErasedCounts(Struct):
    """What was found in one place and what was removed from it, over all tries; `left` is what the last re-read
    found.
    """

    found: int = 0
    removed: int = 0
    left: int = 0
    how: str = ""
    """How it was removed, where that is not by deleting."""


class ErasureTask(Struct):
    """Whom to forget, and how far that is."""

    unit: str
    at: int
    """Microseconds since 1970: what happened before is forgotten, also what is told of it later."""
    units: list[str] = field(default_factory=list)
    """The unit, those that are linked to it, and the accounts that are theirs alone; found before the links go, and
    kept, since they cannot be found again.
    """
    counted: dict[str, ErasedCounts] = field(default_factory=dict)
    tries: int = 0


def folder_of(workspace: Workspace) -> Path:
    """Return where the tasks are."""
    return workspace.data / FOLDER


def task_file(workspace: Workspace, unit: str) -> Path:
    """Return where the task of a unit is; its name does not tell the unit."""
    return folder_of(workspace) / f"{pseudonym(workspace.data, unit, NAME_BYTES)}.json"


def read_task(file: Path) -> ErasureTask | None:
    """Return a task; None where there is none, or no longer.

    Raises:
        BadTask: it is damaged, and so nobody knows whom to forget.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=ErasureTask)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise BadTask(
            f"expected the task of a forgetting in {file}, got something else: remove it, and forget the customer again"
        ) from error


def one_at_a_time(workspace: Workspace) -> AbstractContextManager[None]:
    """Hold the tasks: whoever comes second waits."""
    folder = folder_of(workspace)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # tasks are written aside with the usual mode
    return locked(folder / "lock")


def keep_task(workspace: Workspace, task: ErasureTask) -> None:
    """Write a task down, durably."""
    write_whole(task_file(workspace, task.unit), msgspec.json.encode(task))
    task_file(workspace, task.unit).chmod(0o600)


def remove_task(workspace: Workspace, unit: str) -> None:
    """Remove the task once all is done: from here on nothing knows the id."""
    file = task_file(workspace, unit)
    file.unlink(missing_ok=True)
    for draft in file.parent.glob(f".{file.name}.*"):  # of a process that was killed while it wrote
        draft.unlink(missing_ok=True)
    sync(file.parent)


def tasks_of(workspace: Workspace) -> list[Path]:
    """Return the files of all tasks that are not done, the oldest first."""
    found = []
    for file in folder_of(workspace).glob("*.json"):
        try:
            found.append((file.stat().st_mtime, file))
        except FileNotFoundError:  # done meanwhile
            continue
    return [file for _, file in sorted(found)]

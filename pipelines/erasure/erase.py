"""Forgetting a customer everywhere: late events first of all, then what serves, then what is on disk; proved by a
re-read of all of it.

    task       written down, with the units that are linked to the customer (`task`), and the accounts that are theirs
    alone at once    event log and dead letters, ledger, online store: no worker knows the customer any more from here
    on the rest   behind the locks of whoever else changes the workspace: journals, lake, offline tables, what stores
    leave in their files proof      every place is read again, and the bytes of all files are looked through

A crash at any moment leaves the task, and `resume` goes on with it: every step may be repeated. Where the proof finds
something, for example of a decision that was under way, all is done again, `TRIES_MAX` times. A customer who comes back
later is a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from features.common.errors import Failure
from features.common.timestamps import now as clock
from features.common.timestamps import rfc3339
from features.common.types import ANONYMOUS, Id
from features.workspace.workspace import Workspace
from pipelines.erasure.accounts import accounts_of
from pipelines.erasure.identities import units_of
from pipelines.erasure.journal import Journals
from pipelines.erasure.lake import ParquetFolder
from pipelines.erasure.leftovers import LedgerFiles, Leftovers, OnlineFiles
from pipelines.erasure.places import ErasurePlace, Step
from pipelines.erasure.scan import Scan, scan
from pipelines.erasure.stores import Contacts, EventLogPlace, OnlineRows
from pipelines.erasure.task import (
    ErasedCounts,
    ErasureTask,
    keep_task,
    one_at_a_time,
    read_task,
    remove_task,
    task_file,
    tasks_of,
)
from pipelines.materialize.hold import held

TRIES_MAX = 3

SOURCES = (
    "The business's own files are not touched: remove the customer there too. Until then `opportune import` refuses"
    " their rows of before the forgetting."
)

Tell = Callable[[str, float | None], None]


class BadId(Failure):
    """A text that no customer or anonymous unit can have as its id."""


class ErasureReport(Struct):
    """What became of a forgetting. `left` and `plaintext_hits` are 0 when `done`; it never holds the id."""

    done: bool
    at: str
    units: int
    """The customer, the anonymous units that are linked, and the accounts that are theirs alone."""
    places: dict[str, ErasedCounts]
    proof: Scan
    seconds: float
    sources: str = SOURCES


def unit_named(text: str, *, anonymous: bool = False) -> str:
    """Return the unit of an id as people and clients write it: a customer's, or, with `~` before it or when it is said
    so, an anonymous one.

    Raises:
        BadId: it is no id.
    """
    bare = text.removeprefix(ANONYMOUS)
    try:
        msgspec.convert(bare, Id)
    except msgspec.ValidationError:
        raise BadId(
            "expected the id of a customer, or ~ and an anonymous id: letters, digits and ._:@+=|~- , at most 64 of"
            " them"
        ) from None
    return ANONYMOUS + bare if anonymous or text != bare else bare


def forget(workspace: Workspace, unit: str, tell: Tell = lambda *_: None, step: Step = lambda _: None) -> ErasureReport:
    """Forget a customer, or an anonymous unit, in every place.

    Args:
        unit: see `unit_named`.
        tell: told what goes on, and the part that is done.
        step: told each change before it is made, for tests.

    Raises:
        Failure, OSError: a place cannot be written to now. What is done stays done, late events are refused, and
            `resume` does the rest.
    """
    with one_at_a_time(workspace):
        task = read_task(task_file(workspace, unit))
        if task is None:
            task = ErasureTask(unit, clock())
        else:  # what was told of the customer since it was begun goes too
            task.at = clock()
        step("begin")
        keep_task(workspace, task)
        return _done(workspace, task, tell, step)


def resume(workspace: Workspace, tell: Tell = lambda *_: None, step: Step = lambda _: None) -> list[ErasureReport]:
    """Go on with all forgettings that a crash, a busy workspace or a store that was away has left; to be called now and
    then.

    Raises:
        Failure, OSError: as `forget`.
    """
    done = []
    if tasks_of(workspace):
        with one_at_a_time(workspace):
            for file in tasks_of(workspace):
                task = read_task(file)
                if task is not None:
                    done.append(_done(workspace, task, tell, step))
    return done


def _done(workspace: Workspace, task: ErasureTask, tell: Tell, step: Step) -> ErasureReport:
    begun = time.monotonic()
    task.units = list(dict.fromkeys([*task.units, *units_of(workspace, task.unit)]))
    task.units = list(dict.fromkeys([*task.units, *accounts_of(workspace, task.units)]))
    keep_task(workspace, task)  # before the links go, by which they are found
    at_once: list[ErasurePlace] = [EventLogPlace(workspace, task.at), Contacts(workspace), OnlineRows(workspace)]
    rest: list[ErasurePlace] = [
        Journals(workspace),
        ParquetFolder(workspace, "lake", workspace.lake),
        ParquetFolder(workspace, "offline", workspace.offline),
        OnlineFiles(workspace),
        LedgerFiles(workspace),
        Leftovers(workspace),
    ]
    places = [*at_once, *rest]
    proof = Scan()
    for _ in range(TRIES_MAX):
        for place in at_once:
            _remove(workspace, task, place, places, tell, step)
        tell("wait for the workspace", None)
        with held(workspace):
            for place in rest:
                _remove(workspace, task, place, places, tell, step)
            for place in places:
                tell(f"read {place.name} again", None)
                task.counted[place.name].left = place.left(task.units)
            tell("look through all files", None)
            proof = scan(workspace.data, task.units)
        task.tries += 1
        if not proof.plaintext_hits and not any(counted.left for counted in task.counted.values()):
            break
    step("end")
    remove_task(
        workspace, task.unit
    )  # also where something stays: the answer names it, and to try for ever would help nobody
    left = proof.plaintext_hits or sum(counted.left for counted in task.counted.values())
    return ErasureReport(
        not left, rfc3339(task.at), len(task.units), task.counted, proof, round(time.monotonic() - begun, 3)
    )


def _remove(
    workspace: Workspace, task: ErasureTask, place: ErasurePlace, places: list[ErasurePlace], tell: Tell, step: Step
) -> None:
    """Remove what one place has, and write down how much that was: a crash later on must not forget it."""
    tell(place.name, places.index(place) / (len(places) + 1))
    removed = place.remove(task.units, step)
    counted = task.counted.setdefault(place.name, ErasedCounts())
    counted.found, counted.removed = counted.found + removed.found, counted.removed + removed.removed
    counted.how = removed.how or counted.how
    keep_task(workspace, task)

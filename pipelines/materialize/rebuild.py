"""Rebuild the embedded stores from the lake: the online rows and the contact ledger are derived things.

The online rows are computed and written into a new generation, which is swapped in by one rename. The ledger is filled
again in a folder aside, by doing again what was decided and heard (`ledger_replay`), and its file is moved in. What was
there is set aside under `<data>/damaged/<time>/`. A rebuild that fails leaves everything as it was.

Servers may run while online rows are rebuilt. Contacts that they take while a ledger is rebuilt would be lost with the
old one: so the old ledger is taken away first, which they notice within 0.2 s, and what has a limit is not shown until
the new one is in its place.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from features.common.errors import Failure
from features.common.files import sync, write_whole
from features.common.moments import Micros
from features.common.timestamps import now as clock
from features.common.timestamps import rfc3339
from features.ledger.ledger import open_ledger
from features.ledger.lmdb_ledger import CHECK_SECONDS, LEDGER
from features.lmdb_store import environment
from features.lmdb_store.environment import DATA
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.materialize.damage import STORES, damage_of, is_embedded, note, servers_run
from pipelines.output import missing_libraries
from pipelines.shipping.journal_files import journal_folder

if TYPE_CHECKING:
    from pipelines.materialize.ledger_replay import Replayed

Tell = Callable[[str, float | None], None]
NOTICED_SECONDS = 5 * CHECK_SECONDS
"""So long after a ledger was taken away no server writes to it, and what it took last is in the journal."""
KEPT_MAX = 3
"""Times at which something was set aside whose files are kept; the oldest go."""


class CannotRebuild(Failure):
    """There is nothing to rebuild from, or servers are in the way."""


class Rebuilt(Struct):
    """What was rebuilt, why, and where the old is kept."""

    store: str
    why: str
    customers: int = 0
    replayed: Replayed | None = None
    aside: str = ""


def rebuild(
    workspace: Workspace, stores: Sequence[str] = STORES, *, force: bool = False, tell: Tell = lambda *_: None
) -> list[Rebuilt]:
    """Make embedded stores again, damaged or not. To be called while nobody else works on the workspace
    (`steps.alone`).

    Args:
        force: rebuild the ledger although servers run.

    Raises:
        CannotRebuild: there is nothing to rebuild from, a store is none of ours, or servers run.
    """
    why = "it was asked for"
    for store in stores:
        if not is_embedded(workspace, store):
            raise CannotRebuild(
                f"expected the {store} store to be embedded, got {workspace.online_url}: run `opportune materialize`"
            )
    if "ledger" in stores and not force and servers_run(workspace):
        raise CannotRebuild(
            f"servers run on {workspace.folder}: end them first, or take --force, and what has a limit is not shown"
            " until the ledger is there again"
        )
    return [
        rebuild_online(workspace, why, tell) if store == "online" else rebuild_ledger(workspace, why, tell)
        for store in stores
    ]


def told(one: Rebuilt) -> str:
    """Return what was rebuilt, in a line."""
    made = f"{one.replayed}" if one.replayed else f"{one.customers} customers read back, all equal"
    kept = f"; what was there is in {one.aside}" if one.aside else ""
    return f"rebuilt the {'online store' if one.store == 'online' else 'contact ledger'} ({one.why}): {made}{kept}"


def mend(workspace: Workspace, say: Callable[[str], object], tell: Tell = lambda *_: None) -> None:
    """Rebuild what is damaged, for starts and the background worker: a failure is said in a line and keeps nothing from
    running.

    Holds the workspace only where something has to be done.
    """
    try:
        if damage_of(workspace):
            with steps.alone(workspace):
                for one in rebuild_if_damaged(workspace, tell):
                    say(told(one))
    except (Failure, OSError) as failed:
        say(f"a damaged store stays as it is: {failed}")
    except ModuleNotFoundError as absent:
        say(f"a damaged store stays as it is: {missing_libraries.told(absent)}")


def rebuild_if_damaged(workspace: Workspace, tell: Tell = lambda *_: None) -> list[Rebuilt]:
    """Look at the embedded stores, and rebuild those that are damaged or lost; what is fine is not touched.

    To be called while nobody else works on the workspace (`steps.alone`).

    Raises:
        CannotRebuild: there is no lake; what is damaged stays.
    """
    wrong = damage_of(workspace)
    done = [
        (rebuild_online if store == "online" else rebuild_ledger)(workspace, why, tell) for store, why in wrong.items()
    ]
    if done:
        note(workspace)
    return done


def rebuild_online(workspace: Workspace, why: str, tell: Tell = lambda *_: None, now: Micros | None = None) -> Rebuilt:
    """Compute all windows and fill a new generation, then swap it in; servers go on reading the old one until then.

    Args:
        now: the moment of the rows where there is no event log, microseconds since 1970; that of the clock when absent.

    Raises:
        CannotRebuild: nothing was imported or recorded to compute from.
    """
    _require_lake(workspace)
    root = workspace.online
    before = environment.current(root)
    generation = environment.new_generation(root)
    try:
        tell("windows", None)
        steps.compute_features(workspace, clock() if now is None else now, generation)
        tell("online store", None)
        compared = steps.materialize(workspace, generation)
        environment.publish(root, generation)
    except BaseException:
        shutil.rmtree(root / generation, ignore_errors=True)
        raise
    aside = ""
    if before and (root / before).is_dir():
        aside = _set_aside(workspace, root / before, "online")
    return Rebuilt("online", why, compared, aside=aside)


def rebuild_ledger(workspace: Workspace, why: str, tell: Tell = lambda *_: None) -> Rebuilt:
    """Fill a new ledger from the lake and move it in.

    Raises:
        CannotRebuild: there is no catalogue or no lake.
    """
    _require_lake(workspace)
    place, new = workspace.data / "ledger", workspace.data / f"ledger.{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    live, aside = servers_run(workspace), ""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / LEDGER).exists():  # from here on nobody begins a new one in its place
        write_whole(place / LEDGER, b"The contact ledger of Opportune: do not delete while a server runs.\n")
    try:
        if live:
            aside = _set_aside(workspace, place / DATA, "ledger")
            time.sleep(NOTICED_SECONDS)
        since = steps.barrier(workspace, clock())
        replayed = _filled(workspace, new, tell)
        if not live:
            aside = _set_aside(workspace, place / DATA, "ledger")
        (place / "lock.mdb").unlink(missing_ok=True)  # it belongs to the file that went
        (new / DATA).rename(place / DATA)
        sync(place)
    except BaseException:
        if aside and not (place / DATA).exists():
            Path(aside).rename(place / DATA)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
    if live:
        _catch_up(workspace, since)
    return Rebuilt("ledger", why, replayed=replayed, aside=aside)


def _filled(workspace: Workspace, place: Path, tell: Tell) -> Replayed:
    """Return a ledger in a folder aside, made of imported history and of what was decided and heard since."""
    from pipelines.materialize import contact_import
    from pipelines.materialize.ledger_replay import replay

    contacting, catalogue = contact_import.contacting_of(workspace)
    moment = steps.state_of(workspace).computed_at
    if contact_import.needs_history(workspace):
        contact_import.bring(workspace, clock(), tell, place)
    ledger = open_ledger(None, place, contact_import.PATIENT_MS, workspace.project)
    try:
        replayed = asyncio.run(replay(workspace, ledger, contacting, catalogue, moment, tell=tell))
        ledger.sync()
    finally:
        ledger.close()
    return replayed


def _catch_up(workspace: Workspace, since: int) -> None:
    """Apply the logged events that the ledger missed while it was away. Idempotent."""
    from pipelines.materialize import contact_import
    from pipelines.materialize.ledger_replay import replay

    steps.barrier(workspace, clock())
    contacting, catalogue = contact_import.contacting_of(workspace)
    ledger = open_ledger(None, workspace.data / "ledger", contact_import.PATIENT_MS, workspace.project)
    try:
        asyncio.run(
            replay(
                workspace, ledger, contacting, catalogue, steps.state_of(workspace).computed_at, since, budgets=False
            )
        )
    finally:
        ledger.close()


def _require_lake(workspace: Workspace) -> None:
    if not any(workspace.lake.glob("*")) and not any(journal_folder(workspace.data).glob("*")):
        raise CannotRebuild(
            f"expected a lake to rebuild from in {workspace.data}, got none: run `opportune up`, or `opportune import`"
            " and `opportune materialize`; contact histories begin anew"
        )


def _set_aside(workspace: Workspace, path: Path, store: str) -> str:
    """Move what was there out of the way, to be looked at by people; where it is now, or nothing."""
    if not path.exists():
        return ""
    folder = workspace.data / "damaged" / rfc3339(clock()).replace(":", "") / store
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / path.name
    path.rename(target)
    for older in sorted(folder.parent.parent.iterdir())[:-KEPT_MAX]:
        shutil.rmtree(older, ignore_errors=True)
    return str(target)

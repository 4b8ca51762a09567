"""Rebuild the embedded stores from the lake: the online rows and the contact ledger are derived things.

The online rows are computed and written into a new generation, which is swapped in by one rename. The ledger is filled
again in a folder aside, by doing again what was decided and heard (`replaying`), and its file is moved in. What was
there is set aside under `<data>/damaged/<time>/`. A rebuild that fails leaves everything as it was.

Servers may run while online rows are rebuilt. Contacts that they take while a ledger is rebuilt would be lost with the
old one: so the old ledger is taken away first, which they notice within 0.2 s, and what has a limit is not shown until
the new one is in its place.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from features.columns.rows import StoreUnavailable
from features.common.errors import Failure
from features.common.files import sync, write_whole
from features.common.moments import Micros
from features.common.timestamps import now as clock
from features.common.timestamps import rfc3339
from features.ledger.ledger import open_ledger
from features.ledger.lmdb_ledger import CHECK_SECONDS, LEDGER
from features.lmdb_store import environment
from features.lmdb_store.environment import DATA
from features.lmdb_store.verify import Verdict, verify
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.output import missing_libraries
from pipelines.shipping.journal_files import journal_folder
from serving.decision.journal import OPEN

if TYPE_CHECKING:
    from pipelines.materialize.ledger_replay import Replayed

Tell = Callable[[str, float | None], None]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOTICED_SECONDS = 5 * CHECK_SECONDS
"""So long after a ledger was taken away no server writes to it, and what it took last is in the journal."""
STORES = ("online", "ledger")
KEPT_MAX = 3
"""Times at which something was set aside whose files are kept; the oldest go."""


class CannotRebuild(Failure):
    """There is nothing to rebuild from, or servers are in the way."""


class Noted(Struct):
    """What was whole at the last look: `stores.json` in the data folder."""

    boot: str = ""
    """Of the kernel: another one means that the machine went down since, and that pages may be torn."""
    stores: tuple[str, ...] = ()


class Rebuilt(Struct):
    """What was rebuilt, why, and where the old is kept."""

    store: str
    why: str
    customers: int = 0
    replayed: Replayed | None = None
    aside: str = ""


def servers_run(workspace: Workspace) -> bool:
    """Return whether some server process has the workspace open: each keeps its journal file locked as long as it
    lives.
    """
    for path in journal_folder(workspace.data).glob(f"*{OPEN}"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except BlockingIOError:
            return True
    return False


def is_embedded(workspace: Workspace, store: str) -> bool:
    """Return whether a store is a file of ours: the ledger is one beside every online store but a Redis."""
    url = workspace.online_url
    return url == "embedded" or (store == "ledger" and url.startswith("feast:"))


def look(workspace: Workspace) -> dict[str, Verdict]:
    """Return what a full look at the embedded stores finds; those that never were are left out."""
    noted = _noted(workspace)
    found = {}
    for store in STORES:
        place = workspace.data / store
        if is_embedded(workspace, store) and (store in noted.stores or was_there(workspace, store)):
            found[store] = verify(place, store)
    return found


def was_there(workspace: Workspace, store: str) -> bool:
    """Return whether an embedded store was ever made."""
    place = workspace.data / store
    if store == "ledger":
        return (place / LEDGER).exists() or (place / DATA).exists()
    return bool(steps.state_of(workspace).materialized) or (place / environment.CURRENT).exists()


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
    """For starts and the background worker: `rebuild_if_damaged`, whose failure is said in a line and keeps nothing
    from running.

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
        _note(workspace)
    return done


def damage_of(workspace: Workspace) -> dict[str, str]:
    """Why embedded stores cannot be used as they are; those that are whole are noted.

    After a power cut, which may tear pages anywhere, all records are read; else only whether the stores open and are as
    long as they were.
    """
    noted, boot, wrong = _noted(workspace), boot_id(), dict[str, str]()
    for store in STORES:
        if is_embedded(workspace, store) and (store in noted.stores or was_there(workspace, store)):
            why = _opens(workspace, store)
            if not why and boot != noted.boot:
                why = verify(workspace.data / store, store).why
            if why:
                wrong[store] = why
    if not wrong:
        _note(workspace)
    return wrong


def _note(workspace: Workspace) -> None:
    """Remember that all stores are whole, and in which run of the machine."""
    there = tuple(store for store in STORES if is_embedded(workspace, store) and was_there(workspace, store))
    after = Noted(boot_id(), there)
    if after != _noted(workspace):
        write_whole(_noted_file(workspace), msgspec.json.encode(after))


def _opens(workspace: Workspace, store: str) -> str:
    """Why a store cannot be used at all; a glance that costs nothing."""
    place = workspace.data / store
    try:
        if store == "online":
            environment.attach(place).release()
        else:
            with environment.failing("open the ledger"):
                if not (place / DATA).is_file() or not (place / DATA).stat().st_size:
                    return f"{store}/{DATA} is missing or empty"
                environment.attach_folder(place.resolve(), environment.MAP_BYTES, sync=False).release()
    except StoreUnavailable as error:
        return str(error)
    return ""


def boot_id() -> str:
    """Return which start of the machine this is; empty where the kernel does not say, which is then always the same."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


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


def _noted_file(workspace: Workspace) -> Path:
    return workspace.data / "stores.json"


def _noted(workspace: Workspace) -> Noted:
    try:
        return msgspec.json.decode(_noted_file(workspace).read_bytes(), type=Noted)
    except (FileNotFoundError, msgspec.MsgspecError):
        return Noted()

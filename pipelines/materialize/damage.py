"""Whether the embedded stores are whole: the online rows and the contact ledger, at a glance or record by record.

What was whole at the last look is noted with the run of the machine: a power cut may tear pages anywhere, so that all
records are read after it.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import msgspec
from msgspec import Struct

from features.columns.rows import StoreUnavailable
from features.common.files import write_whole
from features.ledger.lmdb_ledger import LEDGER
from features.lmdb_store import environment
from features.lmdb_store.environment import DATA
from features.lmdb_store.verify import Verdict, verify
from features.workspace.workspace import Workspace
from pipelines.materialize import steps
from pipelines.shipping.journal_files import journal_folder
from serving.decision.journal import OPEN

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
STORES = ("online", "ledger")


class Noted(Struct):
    """What was whole at the last look: `stores.json` in the data folder."""

    boot: str = ""
    """Of the kernel: another one means that the machine went down since, and that pages may be torn."""
    stores: tuple[str, ...] = ()


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


def damage_of(workspace: Workspace) -> dict[str, str]:
    """Return why embedded stores cannot be used as they are; note those that are whole.

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
        note(workspace)
    return wrong


def note(workspace: Workspace) -> None:
    """Remember that all stores are whole, and in which run of the machine."""
    there = tuple(store for store in STORES if is_embedded(workspace, store) and was_there(workspace, store))
    after = Noted(boot_id(), there)
    if after != _noted(workspace):
        write_whole(_noted_file(workspace), msgspec.json.encode(after))


def _opens(workspace: Workspace, store: str) -> str:
    """Return why a store cannot be opened; empty where it can. It reads no record."""
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


def _noted_file(workspace: Workspace) -> Path:
    return workspace.data / "stores.json"


def _noted(workspace: Workspace) -> Noted:
    try:
        return msgspec.json.decode(_noted_file(workspace).read_bytes(), type=Noted)
    except (FileNotFoundError, msgspec.MsgspecError):
        return Noted()

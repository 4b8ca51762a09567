"""Which anonymous units belong to a customer: told by the lake's links and by the events that are not in the lake
yet.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import msgspec

from features.common.types import ANONYMOUS, IDENTIFY, Event, unit_of
from features.events import log as event_log
from features.events.log import event_folder
from features.lake import lake
from features.lake.lake import literal
from features.lake.loop_tables import LINKS
from features.workspace.workspace import Workspace
from pipelines.erasure.lake import BadParquet
from pipelines.erasure.stores import linked_units

_decode = msgspec.msgpack.Decoder(Event).decode


def units_of(workspace: Workspace, unit: str) -> list[str]:
    """Return a unit, and where it is a customer, every anonymous unit that is linked to it, sorted.

    Raises:
        StoreUnavailable, LogUnavailable: ledger or event log do not answer.
        BadParquet: the links cannot be read.
    """
    if unit.startswith(ANONYMOUS):
        return [unit]
    candidates = sorted({*_in_lake(workspace, unit), *_in_log(event_folder(workspace.data), unit)})
    return [unit, *(linked_units(workspace, unit, candidates) if candidates else [])]


def _in_lake(workspace: Workspace, customer_id: str) -> list[str]:
    """Units whose first link is to the customer."""
    if not lake.files(workspace, LINKS):
        return []
    first = f"SELECT unit, arg_min(customer_id, received) AS owner FROM ({lake.select(workspace, LINKS)}) GROUP BY unit"
    con = duckdb.connect()  # not the lake's: its views look at every file of it
    try:
        return [
            unit
            for (unit,) in con.execute(f"SELECT unit FROM ({first}) WHERE owner = {literal(customer_id)}").fetchall()
        ]
    except duckdb.Error as error:
        said = (str(error).splitlines() or [""])[0]
        raise BadParquet(
            f"expected readable links in {workspace.lake / LINKS.folder}, got: {said}. Remove the file that is named"
            " there"
        ) from error
    finally:
        con.close()


def _in_log(folder: Path, customer_id: str) -> list[str]:
    if not event_log.exists(folder):
        return []
    found = []
    with event_log.reading(folder) as connection:
        for (body,) in connection.execute("SELECT body FROM events WHERE unit = ?", (customer_id,)):
            try:
                event = _decode(body)
            except msgspec.MsgspecError:
                continue
            if event.type == IDENTIFY and event.anonymous_id:
                found.append(unit_of(None, event.anonymous_id))
    return found

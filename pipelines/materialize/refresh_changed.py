"""Customers to whom something happened: their windows are computed again, and pushed into the online store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from features.common.moments import BEGINNING_US, Micros
from features.events import log as event_log
from features.events.log import event_folder
from features.ledger import ledger
from features.ledger.ledger import Ledger
from features.workspace.workspace import Workspace
from pipelines.materialize import refresh, steps

PATIENT_MS = 10_000.0
"""How long a call to the ledger may take: nobody waits for an answer."""


def refresh_changed(workspace: Workspace) -> int:
    """Refresh the rows of all customers with new events since the last run.

    It may be killed at any step and repeated: the place in the log is noted last.

    Returns:
        Customers refreshed.
    """
    folder, done = event_folder(workspace.data), steps.state_of(workspace).refreshed
    if not event_log.exists(folder) or not steps.state_of(workspace).computed:
        return 0
    with steps.quiet():
        moment = refresh.whole_second(steps.barrier(workspace, BEGINNING_US))
        units: dict[str, None] = {}
        last = done
        for row in event_log.read_all(folder, done, moment):
            units[row.unit], last = None, row.seq
        if not units:
            return 0
        customers = asyncio.run(_refreshed(workspace, units, moment))
    steps.note_refreshed(workspace, last)
    return customers


async def _refreshed(workspace: Workspace, units: Iterable[str], moment: Micros) -> int:
    told: Ledger = ledger.ledger_of(workspace, PATIENT_MS)
    try:
        # What an anonymous id did is its customer's, once it is known whose it is.
        customers = list(dict.fromkeys([(told.look_now(unit) or await told.look(unit)).unit for unit in units]))
        await refresh.refresh(workspace, told, customers, moment)
        return len(customers)
    finally:
        told.close()  # while the loop runs: a connection belongs to it

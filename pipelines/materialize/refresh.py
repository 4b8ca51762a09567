"""The refresh: windows of the customers to whom something happened, computed again and pushed, so that rows in the
online store stay young.

Decisions know of events at once either way: the ledger holds those that the rows do not contain yet. A refresh moves
them from there into the rows. Whatever kills it, at any step, nothing is lost and nothing counts twice: a row says of
which moment it is, and an event is left out of a decision exactly if the row contains it, whether or not it was trimmed
already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from features.aggregates import windows
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.feature_store import definitions
from features.ledger.ledger import Ledger
from features.workspace.workspace import Workspace

CUSTOMERS_MAX = 5_000
"""Customers whose windows are computed together: memory, and how long a part of a refresh takes."""


READERS_SECONDS = 2.5
"""Between push and trim: whoever has read a row from before the push, a near cache among them (2 seconds), has looked
at what is new by then. Trimmed sooner, an event would be in neither.
"""


def whole_second(barrier: Micros) -> Micros:
    """Return the moment of a refresh: the last whole second up to a barrier, since some of Feast's stores keep no more
    of a row's moment.
    """
    return Micros(barrier // MICROSECONDS * MICROSECONDS)


async def refresh(
    workspace: Workspace,
    ledger: Ledger,
    customers: Sequence[str],
    moment: Micros,
    readers_seconds: float = READERS_SECONDS,
) -> int:
    """Compute, push, trim.

    Args:
        customers: units to whom something happened, or whose ids were linked, since the last refresh; each once.
        moment: microseconds since 1970, a whole second, at most a barrier of the event log; all that was received
            before it is in the lake.
        readers_seconds: 0 where nobody decides meanwhile.

    Returns:
        Rows pushed.

    Raises:
        ValueError: when the moment is no whole second.
        StoreUnavailable: the ledger; what was pushed stays, and the refresh may be repeated.
    """
    if moment != whole_second(moment):
        raise ValueError(
            f"expected a whole second as the moment of a refresh, got {moment} microseconds; use whole_second()"
        )
    store, pushed = definitions.open_store(workspace), 0
    for start in range(0, len(customers), CUSTOMERS_MAX):
        part = customers[start : start + CUSTOMERS_MAX]
        tables = windows.compute_for(workspace, moment, part)
        for view in workspace.views:
            if view.name in tables:
                definitions.push(store, view, tables[view.name])
                pushed += tables[view.name].num_rows
        await asyncio.sleep(readers_seconds)
        for customer in part:
            await ledger.trim(customer, moment)
    return pushed

"""The row of everyone, and what it tells of the store: where even that is gone, a customer without a row is not a stranger."""

from __future__ import annotations

import logging
import time

from features.online import OnlineEngine, OnlineRow, Plan, StoreUnavailable
from features.workspace import Workspace
from serving.witnesses import Witnesses

logger = logging.getLogger("opportune.desk")

EVERYONE_SECONDS = 30.0
"""How often the row of everyone is read again: it changes with each materialization."""
STRANGERS_SECONDS = 4.0
"""The same when customers come of whom nothing is known: perhaps the store was emptied."""
DOUBT_SECONDS = 0.5
"""The same while it is missing."""


class Everyone:
    """Kept by one desk. `look` may run in another thread than the event loop's.

    Attributes:
        row: as it was last read; of the views of everyone.
        empty: whether the store answers, but has lost its rows.
    """

    def __init__(self, workspace: Workspace, engine: OnlineEngine) -> None:
        self._engine = engine
        self._plan = Plan.of(workspace.views, "everyone")
        self.row: OnlineRow = self._plan.nobody()
        self.empty = False
        self._read_at, self._away, self._strangers = -EVERYONE_SECONDS, "", 0
        self._witnesses = None if self._plan.views else Witnesses(STRANGERS_SECONDS)

    def met(self, customer_id: str, row: OnlineRow) -> OnlineRow | None:
        """A customer's row as it counts: None for one without, where the store is empty."""
        if not row.known:
            self._strangers += 1
            return None if self.empty else row
        if self._witnesses is not None:
            self._witnesses.saw(customer_id)
        return row

    @property
    def is_due(self) -> bool:
        """Whether it is time to read the row again, or a stranger came who may be one because the store is empty."""
        if not self._plan.views:
            return False
        in_doubt = self.empty or self._away or not self.row.known
        wait = DOUBT_SECONDS if in_doubt else STRANGERS_SECONDS if self._strangers else EVERYONE_SECONDS
        return time.monotonic() - self._read_at >= wait

    def look(self) -> None:
        """Read the row where that is due; blocking."""
        if not self.is_due:
            return
        self._strangers, self._read_at = 0, time.monotonic()
        try:
            found = self._engine.everyone()
        except StoreUnavailable as away:
            if str(away) != self._away:  # once, not with every look
                self._away = str(away)
                logger.warning("the row of everyone stays as it was: %s", away)
            return
        self._away = ""
        if found.known or not self.row.known:
            self.row = found
        self._told(not found.known)

    async def ask_witnesses(self, deadline_seconds: float) -> None:
        """Where there is no such row to be missed: whether customers are still known who were."""
        if self._witnesses is not None:
            empty = await self._witnesses.empty(self._engine, self._strangers + self.empty, deadline_seconds)
            if empty is not None:
                self._strangers = 0
                self._told(empty)

    def _told(self, empty: bool) -> None:
        if self.empty != empty:
            self.empty = empty
            if empty:
                logger.warning("the online store is empty: run `opportune materialize`")
            else:
                logger.info("the online store has rows again")

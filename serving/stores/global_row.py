"""The global row. If it is missing, the online store was emptied: then a customer without a row is "unavailable", not
"unknown".
"""

from __future__ import annotations

import logging
import math
import time

from features.columns.rows import OnlineEngine, OnlineRow, RowSchema, StoreUnavailable
from features.workspace.workspace import Workspace
from serving.stores.store_probe import Witnesses

logger = logging.getLogger("opportune.desk")

EVERYONE_SECONDS = 30.0
"""How often the row of everyone is read again: it changes with each materialization."""
STRANGERS_SECONDS = 4.0
"""The same when customers come of whom nothing is known: perhaps the store was emptied."""
DOUBT_SECONDS = 0.5
"""The same while it is missing, or a read has failed: what failed may come back without its rows."""


class GlobalRow:
    """The global row of one worker. `look` may run in another thread than the event loop's.

    Attributes:
        row: as it was last read; of the views of everyone.
        empty: whether the store answers, but has lost its rows.
    """

    def __init__(self, workspace: Workspace, engine: OnlineEngine) -> None:
        self._engine = engine
        self._plan = RowSchema.of(workspace.views, "everyone")
        self.row: OnlineRow = self._plan.nobody()
        self.empty = False
        self._read_at, self._away, self._strangers = -EVERYONE_SECONDS, "", 0
        self._doubted_at = self._sure_at = -math.inf
        self._witnesses = None if self._plan.views else Witnesses(STRANGERS_SECONDS, DOUBT_SECONDS)

    def met(self, customer_id: str, row: OnlineRow) -> OnlineRow | None:
        """Return the row, or None if the customer has none and the store may have been emptied."""
        if not row.known:
            self._strangers += 1
            return None if self.empty or self._in_doubt else row
        if self._witnesses is not None:
            self._witnesses.saw(customer_id)
        return row

    def doubt(self) -> None:
        """Mark the store as suspect: until it is checked again, a missing row does not mean an unknown customer."""
        self._doubted_at = time.monotonic()

    @property
    def _in_doubt(self) -> bool:
        """Return whether a read has failed since the store was last seen; never where there is nothing to see it by."""
        return self._doubted_at > self._sure_at and (self._witnesses is None or self._witnesses.any)

    @property
    def is_due(self) -> bool:
        """Return whether the row must be read again: in time, or because a customer came who may be unknown only since
        the store is empty.
        """
        if not self._plan.views:
            return False
        in_doubt = self.empty or self._away or not self.row.known or self._in_doubt
        wait = DOUBT_SECONDS if in_doubt else STRANGERS_SECONDS if self._strangers else EVERYONE_SECONDS
        return time.monotonic() - self._read_at >= wait

    def look(self) -> None:
        """Read the row where that is due; blocking."""
        if not self.is_due:
            return
        begun = time.monotonic()
        self._strangers, self._read_at = 0, begun
        try:
            found = self._engine.everyone()
        except StoreUnavailable as away:
            if str(away) != self._away:  # once, not with every look
                self._away = str(away)
                logger.warning("the row of everyone stays as it was: %s", away)
            return
        self._away, self._sure_at = "", begun
        if found.known or not self.row.known:
            self.row = found
        self._told(not found.known)

    async def ask_witnesses(self, deadline_seconds: float) -> None:
        """Check, where there is no global row, whether customers who were known still are."""
        if self._witnesses is not None:
            begun, doubtful = time.monotonic(), self.empty or self._in_doubt
            empty = await self._witnesses.empty(self._engine, self._strangers, doubtful, deadline_seconds)
            if empty is not None:
                self._strangers, self._sure_at = 0, begun
                self._told(empty)

    def _told(self, empty: bool) -> None:
        if self.empty != empty:
            self.empty = empty
            if empty:
                logger.warning("the online store is empty: run `opportune materialize`")
            else:
                logger.info("the online store has rows again")

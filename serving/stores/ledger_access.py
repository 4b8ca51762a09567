"""The contact ledger of one worker: opened when it is first needed, made durable between requests, and complained about
once.
"""

from __future__ import annotations

import logging
from functools import cached_property

from features.columns.rows import StoreUnavailable
from features.common.moments import Seconds
from features.ledger.ledger import Ledger, ledger_of
from features.workspace.workspace import Workspace
from serving.stores.deadline import Deadline

logger = logging.getLogger("opportune.desk")


class LedgerAccess:
    """The ledger and how it does.

    Attributes:
        used: whether something was written since the ledger was last made durable.
    """

    def __init__(self, workspace: Workspace, deadline: Deadline) -> None:
        self._workspace, self._deadline = workspace, deadline
        self.used = False
        self._complaint, self._failed = "", False
        """Why the ledger did not do what it was asked, until it does again; and whether that was since it was last
        tended.
        """

    @cached_property
    def ledger(self) -> Ledger:
        """Return contact histories and budgets; the first call opens them."""
        return ledger_of(self._workspace)

    def complain(self, error: Exception) -> None:
        """Log once why what is limited is not shown."""
        self._failed, why = True, str(error) or f"no answer within {self._deadline.seconds * 1_000:.0f} ms"
        if why != self._complaint:
            self._complaint = why
            logger.error("what has a limit is not shown, for the contact ledger fails: %s", why)

    def tend(self, horizon_seconds: float, now: Seconds) -> None:
        """Make durable what was written, and remove some histories that nothing looks at any more. Blocking: it waits
        for a disk.

        Args:
            horizon_seconds: how far back limits and pauses look.
        """
        self.used, failed, self._failed = False, self._failed, False
        try:
            self.ledger.sync()
            self.ledger.sweep(horizon_seconds, now)
        except StoreUnavailable as error:
            self.used = True  # what is not durable is tried again
            self.complain(error)
            return
        if self._complaint and not failed:
            self._complaint = ""
            logger.info("the contact ledger does what it is asked again")

    @property
    def is_open(self) -> bool:
        """Return whether the ledger was opened."""
        return "ledger" in self.__dict__

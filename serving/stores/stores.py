"""The stores of one worker, with those who ask them: the reader of customers, and the runner of effects."""

from __future__ import annotations

from collections.abc import Callable

from features.columns.rows import OnlineEngine
from features.common.moments import Micros
from features.ledger.ledger import Ledger
from features.online.engines import open_engine
from features.workspace.workspace import Workspace
from serving.stores.customer_reader import CustomerReader
from serving.stores.deadline import Deadline
from serving.stores.effect_runner import EffectRunner
from serving.stores.global_row import GlobalRow
from serving.stores.ledger_access import LedgerAccess


class Stores:
    """The online store, opened, and the contact ledger, opened by the first who needs it."""

    def __init__(self, workspace: Workspace, clock: Callable[[], Micros]) -> None:
        settings = workspace.settings
        self.engine: OnlineEngine = open_engine(
            workspace.online_url,
            workspace.online,
            workspace.views,
            settings.stores.online.timeout_ms,
            workspace.project,
            workspace.online_feast,
            settings.stores.online.near_cache_rows,
        )
        self.deadline = Deadline(settings.serving.deadline_ms / 1_000)
        self.access = LedgerAccess(workspace, self.deadline)
        self.global_row = GlobalRow(workspace, self.engine)
        self.customers = CustomerReader(self.engine, self.global_row, self.access, self.deadline, clock)
        self.effects = EffectRunner(self.access, self.deadline, clock)

    @property
    def ledger(self) -> Ledger:
        """Return contact histories and budgets; the first call opens them."""
        return self.access.ledger

    @ledger.setter
    def ledger(self, ledger: Ledger) -> None:
        self.access.ledger = ledger

    def close(self) -> None:
        """Close what is open."""
        self.engine.close()
        if self.access.is_open:
            self.access.ledger.close()

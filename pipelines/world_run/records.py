"""What a server leaves for the lake: the journal of its decisions and the log of its events, at moments of a simulated
run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from features.common.moments import Micros
from features.common.types import Event
from features.events.journal import Line, Lineup
from features.events.log import EventLog, event_folder
from features.events.rows import Item, event_item
from features.events.semantics import time_of
from features.workspace.workspace import Workspace
from pipelines.world.port import DeciderRefused
from serving.journal.journal import Journal

LOGGED_TOGETHER = 500
"""Events that are made durable in one step."""


class LoopRecords:
    """Journal and event log of a workspace, for one desk in this process.

    Args:
        clock: microseconds since 1970: when an event is received.
    """

    def __init__(self, workspace: Workspace, clock: Callable[[], Micros]) -> None:
        self._journal = Journal.open(workspace.data / "journal")
        self._log = EventLog(event_folder(workspace.data), clock=clock)
        self._waiting: list[Item] = []

    def keep(self, lineup: Lineup) -> None:
        """Keep the offers that lines refer to; before the first of these."""
        self._journal.keep(lineup)

    def record(self, line: Line) -> None:
        """Take a decision.

        Raises:
            DeciderRefused: the disk does not.
        """
        if not self._journal.append(line):
            raise DeciderRefused(f"expected a journal that takes decisions, got: {self._journal.complaint}")

    def log(self, events: Sequence[Event]) -> None:
        """Take events that fit the workspace.

        Raises:
            DeciderRefused: the log makes dead letters of them.
            LogUnavailable: the disk takes nothing.
        """
        self._waiting += [event_item(event, time_of(event)) for event in events]
        if len(self._waiting) >= LOGGED_TOGETHER:
            self._write()

    def _write(self) -> None:
        for item, result in zip(self._waiting, self._log.append(self._waiting), strict=True):
            if result.outcome == "dead":
                raise DeciderRefused(
                    f"expected an event log that takes the events of a run, got a dead letter: {item.reason or result}"
                )
        self._waiting.clear()

    def close(self) -> None:
        """Make durable what waits, and seal the journal."""
        self._write()
        self._log.close()
        self._journal.close()

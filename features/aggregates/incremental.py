"""What happened since a row was computed, added to it: the windows of `windows.py` for the few events that are newer
than the batch.

A row whose views have event time t0 holds exactly the events that the event log had taken before t0 and that happened
before t0. `Fold` adds the others, so that the result is what the batch would compute now from all of them: the same
filters, windows, keys and roundings, value by value. Two things it cannot know, for a row holds sums and not events:
that an event of before t0 has left its window since, which the next computation sees (a window that lies wholly after
t0 does not use what is stored at all); and, of a customer with more than `KEYS_MAX` keys, what the keys were worth that
the batch has dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

from features.aggregates.view_fold import ALWAYS, ViewFold
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.ledger.recent import RecentEvent


class Fold:
    """Adds recent events to rows of one plan. Not thread-safe: one for each worker.

    Args:
        words: gives the ids of texts in rows, those of the engine that reads them.

    Attributes:
        streams: the streams whose events change a row. Events of others are passed over.
    """

    def __init__(self, plan: RowSchema, words: Dictionary) -> None:
        self._parts = {
            view.stream: ViewFold(plan, position, view, words)
            for position, view in enumerate(plan.views)
            if view.stream is not None
        }
        self._views = [part.view for part in self._parts.values()]
        self.streams = frozenset(self._parts)

    def __call__(self, row: OnlineRow, events: Sequence[RecentEvent], now: Micros) -> OnlineRow:
        """Return the row with the events that it does not hold yet.

        Args:
            row: as it was read; it stays as it is. Of a customer without views of streams all are made, as of now.
            now: microseconds since 1970; an event of now or later does not count.

        Returns:
            The same object where there is nothing to add.
        """
        if not events:
            return row
        times = row.event_times.tolist()
        is_new = all(times[view] != times[view] for view in self._views)
        wanted: dict[str, list[RecentEvent]] = {stream: [] for stream in self._parts}
        moments = {stream: ALWAYS if is_new else _moment(times[part.view]) for stream, part in self._parts.items()}
        for event in events:
            if event.time < now and event.stream in wanted:
                moment = moments[event.stream]
                if moment is not None and not (event.received < moment and event.time < moment):
                    wanted[event.stream].append(event)
        changed: OnlineRow | None = None
        for stream, part in self._parts.items():
            moment = moments[stream]
            if moment is not None and (is_new or wanted[stream] or now - part.shortest >= moment):
                if changed is None:
                    changed = OnlineRow(row.numbers.copy(), list(row.families), row.event_times)
                part.add(changed, wanted[stream], moment, now, is_new)
        if changed is None:
            return row
        if is_new:
            changed.event_times = row.event_times.copy()
            changed.event_times[self._views] = now / MICROSECONDS
        return changed


def _moment(seconds: float) -> int | None:
    """Return the moment of a view in microseconds; None where the row lacks the view, and what it held is not known."""
    return None if seconds != seconds else round(seconds * MICROSECONDS)

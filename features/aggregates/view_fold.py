"""Adding events to one view of a row: what its columns take of events, compiled to the arrays that the kernels read."""

from __future__ import annotations

import numpy as np

from features.aggregate_kinds.kind import AddEvents
from features.aggregate_kinds.kinds import AGGREGATES
from features.aggregate_kinds.operations import Operation
from features.aggregates import incremental_kernels as kernels
from features.aggregates.event_arrays import EventArrays, EventReader, Integers, int_table
from features.aggregates.family_fold import FamilyFold
from features.columns.rows import Dictionary, OnlineRow, RowSchema
from features.columns.views import Scalar, View, companion
from features.common.moments import Micros
from features.ledger.recent import RecentEvent

ALWAYS = -(1 << 62)
"""The moment from which all time begins."""

OWN_FOLDS: dict[str, AddEvents] = {
    name: code for name, kind in AGGREGATES.items() if (code := kind.own_fold()) is not None
}
"""Machine code of kinds that bring their own, by name; compiled when this module is loaded, as the kernels are."""


class ViewFold:
    """Adds events to the scalars and families of a view.

    Args:
        position: of the view among those of the schema.

    Attributes:
        view: that position.
        shortest: the length of the shortest window, microseconds: once it lies after a row's moment, the row changes
            without events.
    """

    def __init__(self, schema: RowSchema, position: int, view: View, words: Dictionary) -> None:
        self.view = position
        self._words = words
        self._slots = {scalar.name: schema.scalars[f"{view.name}.{scalar.name}"] for scalar in view.scalars}
        self._reader = reader = EventReader(words)
        categories = {scalar.name for scalar in view.scalars if scalar.dtype == "category"}
        of_texts = {s.name for s in view.scalars if s.name in categories or s.beside in categories}
        added, quotients = [], []
        own: dict[str, list[list[int]]] = {}
        for scalar in view.scalars:
            kind = AGGREGATES[scalar.aggregate]
            if kind.quotient is not None:
                over, under = (
                    self._companion(scalar, prefix) for prefix in (kind.quotient.dividend, kind.quotient.divisor)
                )
                quotients.append([self._slots[scalar.name], over, under, int(scalar.zero)])
            elif kind.name in OWN_FOLDS:
                own.setdefault(kind.name, []).append(self._own(scalar))
            else:
                is_text = scalar.name in of_texts
                operation = kind.operation_of_texts if is_text else kind.operation
                if operation is not None:
                    added.append(self._added(scalar, operation, is_text))
        self._specs, self._quotients = int_table(added, 7), int_table(quotients, 4)
        self._own_specs = [(OWN_FOLDS[name], int_table(rows, len(rows[0]))) for name, rows in own.items()]
        self._last = [number for number, spec in enumerate(added) if spec[0] == Operation.LAST_TEXT]
        by_name = {scalar.name: scalar for scalar in view.scalars}
        self._families = []
        for family in view.families:
            counted = (by_name[family.beside], self._slots[family.beside]) if family.beside else None
            place = schema.families[f"{view.name}.{family.name}"]
            self._families.append(FamilyFold(reader, family, place, counted))
        reader.compile({*(s.of for s in view.scalars if s.name in of_texts), *(family.key for family in view.families)})
        self.shortest = min((span for span in reader.spans if span is not None), default=-ALWAYS)

    def _companion(self, scalar: Scalar, prefix: str) -> int:
        return self._slots[companion(scalar, prefix)]

    def _companions(self, scalar: Scalar) -> list[int]:
        kind = AGGREGATES[scalar.aggregate]
        return [self._companion(scalar, hidden.prefix) for hidden in kind.companions(scalar.of, scalar.zero)]

    def _added(self, scalar: Scalar, operation: Operation, is_text: bool) -> list[int]:
        """Return a row of the table that `kernels.add` reads."""
        reader = self._reader
        field = -1 if scalar.of is None else reader.text(scalar.of) if is_text else reader.number(scalar.of)
        where, window = reader.where(scalar.where), reader.window(scalar.window_seconds)
        beside = (*self._companions(scalar), -1)[0]
        return [operation, where, field, window, self._slots[scalar.name], beside, int(scalar.zero)]

    def _own(self, scalar: Scalar) -> list[int]:
        """Return a row of the table that `Aggregate.own_fold` reads."""
        reader = self._reader
        field = -1 if scalar.of is None else reader.number(scalar.of)
        where, window = reader.where(scalar.where), reader.window(scalar.window_seconds)
        return [where, field, window, self._slots[scalar.name], int(scalar.zero), *self._companions(scalar)]

    def add(self, row: OnlineRow, events: list[RecentEvent], moment: int, now: Micros, is_new: bool) -> None:
        """Add events to the view's values in a row, in place.

        Args:
            moment: of the view, microseconds since 1970.
            is_new: whether the row has nothing of the view.
        """
        read = self._reader.read(events)
        begins = [ALWAYS if span is None else now - span for span in self._reader.spans]
        since = np.array(begins, np.int64)
        fresh = np.array([is_new or begin >= moment for begin in begins], np.bool_)
        for add_events, specs in self._own_specs:
            add_events(read.times, read.numbers, read.truths, specs, since, fresh, row.numbers)
        texts = [row.numbers[self._specs[at, 4]] for at in self._last]
        moments = [row.numbers[self._specs[at, 5]] for at in self._last]
        chosen = np.empty(len(self._specs), np.int64)
        kernels.add(*read, self._specs, since, fresh, row.numbers, chosen)
        for at, text, latest in zip(self._last, texts, moments, strict=True):
            if chosen[at] == kernels.TIED:
                spec: list[int] = self._specs[at].tolist()
                row.numbers[spec[4]] = self._largest(read, spec, since, None if fresh[spec[3]] else (latest, text))
        kernels.divide(self._quotients, row.numbers)
        for family in self._families:
            family.add(row, read, since, fresh, is_new)

    def _largest(
        self, events: EventArrays, spec: list[int], since: Integers, stored: tuple[float, float] | None
    ) -> int:
        """Return the text of the latest moment; of several at that moment the largest.

        Args:
            stored: the moment, NaN for none, and the text that the row had; None where that does not count.
        """
        _, where, field, window, *_ = spec
        counts = events.truths[where] & (events.times >= since[window]) & (events.texts[field] >= 0)
        found = list(zip(events.times[counts].tolist(), events.texts[field][counts].tolist(), strict=True))
        if stored is not None and stored[0] == stored[0]:
            found.append((int(stored[0]), int(stored[1])))
        word: int = max(found, key=lambda pair: (pair[0], self._words.texts[pair[1]]))[1]
        return word

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

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.aggregates import incremental_kernels as kernels
from features.columns.aggregate_kinds import AGGREGATES
from features.columns.rows import Dictionary, Floats, Ids, KeyedRow, OnlineRow, RowSchema
from features.columns.views import KEYS_MAX, Family, Scalar, View, companion
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS
from features.config.schema import Range, Where
from features.ledger.recent import RecentEvent
from features.redis_store.feast_format import WORDS_MAX

Integers = NDArray[np.int64]

_ALWAYS = -(1 << 62)
_NO_KEYS: Ids = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True)
class _ByKey:
    """A family of a view: where it stands in a row, which field has its keys, its measures as `add_by_key` reads
    them.
    """

    position: int
    key: int
    specs: Integers
    windows: tuple[int, ...]
    distinct: tuple[int, int, float] | None
    """Of a hidden one: the slot of the column that tells its keys apart, its window, its value where there are none."""


class Fold:
    """Adds recent events to rows of one plan. Not thread-safe: one for each worker.

    Args:
        words: gives the ids of texts in rows, those of the engine that reads them.

    Attributes:
        streams: the streams whose events change a row. Events of others are passed over.
    """

    def __init__(self, plan: RowSchema, words: Dictionary) -> None:
        self._parts = {
            view.stream: _Part(plan, at, view, words) for at, view in enumerate(plan.views) if view.stream is not None
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
        stranger = all(times[view] != times[view] for view in self._views)
        wanted: dict[str, list[RecentEvent]] = {stream: [] for stream in self._parts}
        moments = {stream: _ALWAYS if stranger else _moment(times[part.view]) for stream, part in self._parts.items()}
        for event in events:
            if event.time < now and event.stream in wanted:
                moment = moments[event.stream]
                if moment is not None and not (event.received < moment and event.time < moment):
                    wanted[event.stream].append(event)
        changed: OnlineRow | None = None
        for stream, part in self._parts.items():
            moment = moments[stream]
            if moment is not None and (stranger or wanted[stream] or now - part.shortest >= moment):
                if changed is None:
                    changed = OnlineRow(row.numbers.copy(), list(row.families), row.event_times)
                part.add(changed, wanted[stream], moment, now, stranger)
        if changed is None:
            return row
        if stranger:
            changed.event_times = row.event_times.copy()
            changed.event_times[self._views] = now / MICROSECONDS
        return changed


def _moment(seconds: float) -> int | None:
    """Return the moment of a view in microseconds; None where the row lacks the view, and what it held is not known."""
    return None if seconds != seconds else round(seconds * MICROSECONDS)


class _Part:
    """What one view of a stream adds up, compiled to the arrays that the kernels read."""

    def __init__(self, plan: RowSchema, at: int, view: View, words: Dictionary) -> None:
        self.view, self._words = at, words
        self._numbers: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._wheres: list[Where] = []
        self._spans: list[int | None] = []
        self._stored = {s.of for s in view.scalars if s.dtype == "category"} | {family.key for family in view.families}
        self._stored |= {s.of for s in view.scalars if s.aggregate == "latest"}
        slots = {scalar.name: plan.scalars[f"{view.name}.{scalar.name}"] for scalar in view.scalars}
        categories = {s.name for s in view.scalars if s.dtype == "category"}
        added, quotients = [], []
        for scalar in view.scalars:
            quotient = AGGREGATES[scalar.aggregate].quotient
            if quotient is not None:
                of = [slots[companion(scalar, what)] for what in quotient]
                quotients.append([slots[scalar.name], *of, int(scalar.zero)])
            elif scalar.aggregate != "distinct":
                added.append(self._scalar(scalar, slots, scalar.name in categories or scalar.beside in categories))
        self._specs = _table(added, 7)
        self._quotients = _table(quotients, 4)
        told = {scalar.name: scalar for scalar in view.scalars if scalar.aggregate == "distinct"}
        self._families = [
            self._family(family, plan.families[f"{view.name}.{family.name}"], slots, told) for family in view.families
        ]
        self._last = [number for number, spec in enumerate(added) if spec[0] == kernels.LAST_TEXT]
        self._compile_wheres()
        self.shortest = min((span for span in self._spans if span is not None), default=-_ALWAYS)
        """The length of the shortest window, microseconds: once it lies after a row's moment, the row changes without
        events.
        """

    def _scalar(self, scalar: Scalar, slots: dict[str, int], text: bool) -> list[int]:
        operation = kernels.OPERATIONS[scalar.aggregate]
        beside = -1
        if scalar.aggregate in ("last", "latest"):
            operation += text
        if scalar.aggregate == "last":
            beside = slots[companion(scalar, "latest")]
        elif scalar.aggregate in ("min", "max") and scalar.zero:
            beside = slots[companion(scalar, "stated")]
        field = -1 if scalar.of is None else _number_of(self._texts if text else self._numbers, scalar.of)
        where, window = self._where(scalar.where), self._window(scalar.window_seconds)
        return [operation, where, field, window, slots[scalar.name], beside, int(scalar.zero)]

    def _family(self, family: Family, position: int, slots: dict[str, int], told: dict[str, Scalar]) -> _ByKey:
        specs = []
        for measure in family.measures:
            field = -1 if measure.of is None else _number_of(self._numbers, measure.of)
            where, window = self._where(measure.where), self._window(measure.window_seconds)
            specs.append([kernels.OPERATIONS[measure.aggregate], where, field, window])
        distinct = None
        if family.beside:
            distinct = slots[family.beside], specs[0][3], 0.0 if told[family.beside].zero else np.nan
        windows = tuple({spec[3] for spec in specs})
        return _ByKey(position, _number_of(self._texts, family.key), _table(specs, 4), windows, distinct)

    def _where(self, where: Where) -> int:
        if where not in self._wheres:
            self._wheres.append(where)
        return self._wheres.index(where)

    def _window(self, seconds: int | None) -> int:
        span = None if seconds is None else seconds * MICROSECONDS
        if span not in self._spans:
            self._spans.append(span)
        return self._spans.index(span)

    def _compile_wheres(self) -> None:
        conditions, bounds = [], []
        sets: list[int] = []
        for number, where in enumerate(self._wheres):
            for field, wanted in where.items():
                first = len(sets)
                if isinstance(wanted, Range):
                    conditions.append([number, 0, _number_of(self._numbers, field), 0, 0])
                    bounds.append([np.nan if limit is None else limit for limit in (wanted.minimum, wanted.below)])
                else:
                    sets += [self._words.id(text) for text in ([wanted] if isinstance(wanted, str) else wanted)]
                    conditions.append([number, 1, _number_of(self._texts, field), first, len(sets)])
                    bounds.append([np.nan, np.nan])
        self._conditions, self._sets = _table(conditions, 5), np.array(sets, np.int64)
        self._bounds = np.array(bounds, np.float64).reshape(len(bounds), 2)
        # A text that is only compared needs no id of its own.
        known: Callable[[str], int] = self._compared
        self._read = [(name, self._interned if name in self._stored else known) for name in self._texts]

    def _compared(self, text: str) -> int:
        return self._words.ids.get(text, -1)

    def _interned(self, text: str) -> int:
        found = self._words.ids.get(text)
        if found is None:
            found = -1 if len(self._words) >= WORDS_MAX else self._words.id(text)
        return found

    def add(self, row: OnlineRow, events: list[RecentEvent], moment: int, now: Micros, stranger: bool) -> None:
        """Add events to the view's values in a row, in place.

        Args:
            moment: of the view, microseconds since 1970. stranger: nothing is stored.
        """
        count = len(events)
        fields = [event.fields for event in events]
        times = np.array([event.time for event in events], np.int64)
        numbers = np.array([_numbers(fields, name) for name in self._numbers], np.float64).reshape(
            len(self._numbers), count
        )
        texts = np.array([_texts(fields, name, of) for name, of in self._read], np.int64).reshape(
            len(self._read), count
        )
        truths = np.empty((len(self._wheres), count), np.bool_)
        kernels.hold(numbers, texts, self._conditions, self._bounds, self._sets, truths)
        begins = [_ALWAYS if span is None else now - span for span in self._spans]
        fresh = [stranger or begin >= moment for begin in begins]
        since, afresh = np.array(begins, np.int64), np.array(fresh, np.bool_)
        before = (
            [row.numbers[self._specs[at, 4]] for at in self._last],
            [row.numbers[self._specs[at, 5]] for at in self._last],
        )
        chosen = np.empty(len(self._specs), np.int64)
        kernels.add(times, numbers, texts, truths, self._specs, since, afresh, row.numbers, chosen)
        for at, text, latest in zip(self._last, *before, strict=True):
            if chosen[at] == kernels.TIED:
                _, where, field, window, slot, *_ = self._specs[at].tolist()
                counts = truths[where] & (times >= since[window]) & (texts[field] >= 0)
                found = list(zip(times[counts].tolist(), texts[field][counts].tolist(), strict=True))
                if not fresh[window] and latest == latest:
                    found.append((int(latest), int(text)))
                row.numbers[slot] = max(found, key=lambda one: (one[0], self._words.texts[one[1]]))[1]
        kernels.divide(self._quotients, row.numbers)
        for family in self._families:
            self._add_by_key(row, family, times, numbers, texts[family.key], truths, since, afresh, stranger)

    def _add_by_key(
        self,
        row: OnlineRow,
        family: _ByKey,
        times: Integers,
        numbers: Floats,
        wanted: Integers,
        truths: NDArray[np.bool_],
        since: Integers,
        fresh: NDArray[np.bool_],
        stranger: bool,
    ) -> None:
        found = KeyedRow(_NO_KEYS, np.empty((len(family.specs), 0))) if stranger else row.families[family.position]
        if found is None:
            return  # not known, and so is what it would be with more
        at = np.empty(len(times), np.int64)
        missing = kernels.place(found.keys, wanted, at)
        renewed = any(fresh[window] for window in family.windows)
        made = self._widened(found, wanted, at) if missing else KeyedRow(found.keys, np.array(found.values))
        kernels.add_by_key(times, numbers, truths, family.specs, since, fresh, at, made.values)
        if missing or renewed:
            made, at = _present(made, at)
        row.families[family.position] = _bounded(made, at) if len(made.keys) > KEYS_MAX else made
        if family.distinct is not None:
            slot, window, nothing = family.distinct
            stored = float(row.numbers[slot])
            told = float(len(made.keys))
            if not fresh[window] and stored == stored:
                told += stored - len(found.keys)  # keys that the batch has dropped were told apart too
            row.numbers[slot] = told or nothing

    def _widened(self, found: KeyedRow, wanted: Integers, at: Integers) -> KeyedRow:
        """Return the family with the keys that it lacks, in the order of their texts."""
        texts = self._words.texts
        new = sorted(set(wanted[at == -1].tolist()), key=texts.__getitem__)
        stored = found.keys.tolist()
        before = [bisect_left(stored, texts[key], key=texts.__getitem__) for key in new]
        keys, values = (
            np.empty(len(stored) + len(new), np.uint32),
            np.empty((len(found.values), len(stored) + len(new))),
        )
        kernels.widen(
            found.keys, found.values, np.array(before, np.int64), np.array(new, np.int64), wanted, at, keys, values
        )
        return KeyedRow(keys, values)


def _present(made: KeyedRow, at: Integers) -> tuple[KeyedRow, Integers]:
    """Return the keys that have a value, be it zero; and where those of events stand now, below 0 nowhere."""
    kept = ~np.isnan(made.values).all(axis=0)
    if kept.all():
        return made, at
    stands = np.append(np.where(kept, np.cumsum(kept) - 1, -2), -2)
    return KeyedRow(made.keys[kept], np.ascontiguousarray(made.values[:, kept])), stands[np.maximum(at, -1)]


def _bounded(made: KeyedRow, at: Integers) -> KeyedRow:
    """Not more keys than the batch keeps: those of the latest events stay, as far as that is known."""
    kept = np.ones(len(made.keys), np.bool_)
    kept[at[at >= 0]] = False
    kept[np.flatnonzero(kept)[KEYS_MAX - len(made.keys) :]] = False
    kept[at[at >= 0]] = True
    return KeyedRow(made.keys[kept], np.ascontiguousarray(made.values[:, kept]))


def _number_of(known: dict[str, int], name: str) -> int:
    return known.setdefault(name, len(known))


def _table(rows: list[list[int]], width: int) -> Integers:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _numbers(fields: Iterable[dict[str, float | str]], name: str) -> list[float]:
    """Return a number of each event; NaN where it is absent, or is none."""
    return [value if type(value := one.get(name)) is float else _number(value) for one in fields]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else np.nan


def _texts(fields: Iterable[dict[str, float | str]], name: str, of: Callable[[str], int]) -> list[int]:
    """Return the word id of a text of each event; -1 where it is absent, or is none, or none of those that are looked
    for.
    """
    return [of(value) if type(value := one.get(name)) is str else -1 for one in fields]

"""Adding events to values by key: new keys, their bound, and the column that counts the keys."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from features.aggregate_kinds.kinds import AGGREGATES
from features.aggregates import incremental_kernels as kernels
from features.aggregates.event_arrays import Booleans, EventArrays, EventReader, Integers, int_table
from features.columns.rows import Ids, KeyedRow, OnlineRow
from features.columns.views import KEYS_MAX, Family, Measure, Scalar

_NO_KEYS: Ids = np.empty(0, np.uint32)


class FamilyFold:
    """Adds events to one family of a view.

    Args:
        position: of the family in a row.
        counted: the column that a hidden family is kept for, and its slot: the number of keys is its value. None for a
            family of pair columns.
    """

    def __init__(self, reader: EventReader, family: Family, position: int, counted: tuple[Scalar, int] | None) -> None:
        specs = [_spec(reader, measure) for measure in family.measures]
        self._position, self._words = position, reader.words
        self._key = reader.text(family.key)
        self._specs = int_table(specs, 4)
        self._windows = tuple({spec[3] for spec in specs})
        self._counted: tuple[int, int, float] | None = None
        if counted is not None:
            scalar, slot = counted
            self._counted = slot, specs[0][3], 0.0 if scalar.zero else np.nan

    def add(self, row: OnlineRow, events: EventArrays, since: Integers, fresh: Booleans, is_new: bool) -> None:
        """Add events to the family's values in a row, in place.

        Args:
            since: when each window begins, microseconds since 1970.
            fresh: whether that is after all that is stored, which then does not count.
            is_new: whether the row has nothing of the view.
        """
        stored = KeyedRow(_NO_KEYS, np.empty((len(self._specs), 0))) if is_new else row.families[self._position]
        if stored is None:
            return  # it is not known, and so is what it would be with more
        wanted = events.texts[self._key]
        places = np.empty(len(events.times), np.int64)
        missing = kernels.place(stored.keys, wanted, places)
        renewed = any(fresh[window] for window in self._windows)
        made = self._widened(stored, wanted, places) if missing else KeyedRow(stored.keys, np.array(stored.values))
        kernels.add_by_key(events.times, events.numbers, events.truths, self._specs, since, fresh, places, made.values)
        if missing or renewed:
            made, places = _present(made, places)
        row.families[self._position] = _bounded(made, places) if len(made.keys) > KEYS_MAX else made
        if self._counted is not None:
            slot, window, nothing = self._counted
            before = float(row.numbers[slot])
            count = float(len(made.keys))
            if not fresh[window] and before == before:
                count += before - len(stored.keys)  # keys that the batch has dropped were told apart too
            row.numbers[slot] = count or nothing

    def _widened(self, stored: KeyedRow, wanted: Integers, places: Integers) -> KeyedRow:
        """Return the family with the keys that it lacks, in the order of their texts."""
        texts = self._words.texts
        new = sorted(set(wanted[places == -1].tolist()), key=texts.__getitem__)
        old = stored.keys.tolist()
        before = [bisect_left(old, texts[key], key=texts.__getitem__) for key in new]
        keys = np.empty(len(old) + len(new), np.uint32)
        values = np.empty((len(stored.values), len(old) + len(new)))
        kernels.widen(
            stored.keys,
            stored.values,
            np.array(before, np.int64),
            np.array(new, np.int64),
            wanted,
            places,
            keys,
            values,
        )
        return KeyedRow(keys, values)


def _spec(reader: EventReader, measure: Measure) -> list[int]:
    operation = AGGREGATES[measure.aggregate].operation
    if operation is None:
        raise ValueError(f"expected an aggregate that events are added to by key, got {measure.aggregate!r}")
    field = -1 if measure.of is None else reader.number(measure.of)
    return [operation, reader.where(measure.where), field, reader.window(measure.window_seconds)]


def _present(made: KeyedRow, places: Integers) -> tuple[KeyedRow, Integers]:
    """Return the keys that have a value, be it zero; and where those of events stand now, below 0 nowhere."""
    has_value = ~np.isnan(made.values).all(axis=0)
    if has_value.all():
        return made, places
    moved = np.append(np.where(has_value, np.cumsum(has_value) - 1, -2), -2)
    return KeyedRow(made.keys[has_value], np.ascontiguousarray(made.values[:, has_value])), moved[
        np.maximum(places, -1)
    ]


def _bounded(made: KeyedRow, places: Integers) -> KeyedRow:
    """Return not more keys than the batch keeps: those of the latest events stay, as far as that is known."""
    stays = np.ones(len(made.keys), np.bool_)
    stays[places[places >= 0]] = False
    stays[np.flatnonzero(stays)[KEYS_MAX - len(made.keys) :]] = False
    stays[places[places >= 0]] = True
    return KeyedRow(made.keys[stays], np.ascontiguousarray(made.values[:, stays]))

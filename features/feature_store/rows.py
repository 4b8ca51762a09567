"""From what a Feast online store reads to a row: the same values, as plain numbers laid out by a plan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from feast import Entity, FeatureView, FileSource, ValueType
from feast.protos.feast.types.Value_pb2 import Value

from features.columns.rows import Dictionary, Floats, KeyedRow, OnlineRow, RowSchema
from features.columns.views import Family, View
from features.feature_store.store_config import feature_view
from features.feature_store.values import ATTRIBUTES, TIME_NONE
from features.lmdb_store.record import Kind
from features.redis_store.feast_format import WORDS_MAX, DamagedValue

Values = dict[str, Value]
Read = tuple[datetime | None, Values | None]
"""What `OnlineStore.online_read` gives of one entity: its event time and its values by field, or nothing twice."""

NAN = float("nan")


class ViewFields(NamedTuple):
    """One view as Feast knows it, and the fields to ask for."""

    view: View
    feast: FeatureView
    fields: list[str]


def tables_of(plan: RowSchema, join_key: str) -> tuple[ViewFields, ...]:
    """Feast's objects of the views of a plan. They are as `definitions` applies them in all that a read looks at."""
    entity = Entity(name=join_key.removesuffix("_id"), join_keys=[join_key], value_type=ValueType.STRING)
    source = FileSource(name="unread", path="unread", timestamp_field="event_timestamp")
    return tuple(
        ViewFields(view, feature_view(view, entity, source), [name for name, _ in view.fields]) for view in plan.views
    )


def row_of(plan: RowSchema, reads: list[Read], words: Dictionary) -> tuple[OnlineRow, int]:
    """Return the row of one entity from one read a view, in the plan's order; and how many values were damaged."""
    row, damaged = plan.nobody(), 0
    for index, (view, (time, values)) in enumerate(zip(plan.views, reads, strict=True)):
        if values is None:
            continue
        if time is None:  # nobody could say how old the values are
            damaged += 1
            continue
        row.event_times[index] = _seconds(time)
        for scalar in view.scalars:
            try:
                row.numbers[plan.scalars[f"{view.name}.{scalar.name}"]] = _scalar(
                    values.get(scalar.name), scalar.dtype, words
                )
            except DamagedValue:
                damaged += 1
        for family in view.families:
            found, lost = _family(values, family, words)
            row.families[plan.families[f"{view.name}.{family.name}"]] = found
            damaged += lost
    return row, damaged


def _seconds(time: datetime) -> float:
    """Seconds since 1970; a naive time is UTC, as everywhere in Feast."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _set(value: Value | None, kind: Kind) -> bool:
    """Return whether a value of this kind is there; a null is not.

    Raises:
        DamagedValue: when it is of another kind.
    """
    found = None if value is None else value.WhichOneof("val")
    if found in (None, "null_val"):
        return False
    if found != ATTRIBUTES[kind]:
        raise DamagedValue("a value is not of its field's type")
    return True


def _scalar(value: Value | None, kind: Kind, words: Dictionary) -> float:
    if value is None or not _set(value, kind):
        return NAN
    found = getattr(value, ATTRIBUTES[kind])
    if kind == "category":
        return float(_interned(found, words))
    return NAN if kind == "time" and found == TIME_NONE else float(found)


def _family(values: Values, family: Family, words: Dictionary) -> tuple[KeyedRow | None, int]:
    """Return a family, and how many of its lists were damaged."""
    try:
        keys = values.get(family.keys_field)
        if keys is None or not _set(keys, "texts"):
            return None, 0
        ids = np.array([_interned(text, words) for text in keys.string_list_val.val], dtype=np.uint32)
    except DamagedValue:
        return None, 1
    measures, damaged = np.full((len(family.measures), len(ids)), NAN), 0
    for index, measure in enumerate(family.measures):
        try:
            found = _numbers(values.get(family.field(measure)), len(ids))
        except DamagedValue:
            damaged += 1
            continue
        if found is not None:
            measures[index] = found
    return KeyedRow(ids, measures), damaged


def _numbers(value: Value | None, length: int) -> Floats | None:
    if value is None or not _set(value, "numbers"):
        return None
    found = np.array(value.double_list_val.val, dtype=np.float64)
    if len(found) != length:
        raise DamagedValue("a measure is not as long as its keys")
    return found


def _interned(text: str, words: Dictionary) -> int:
    if len(words) >= WORDS_MAX and text not in words.ids:
        raise DamagedValue(f"more than {WORDS_MAX} distinct categories and keys: is one of the fields an identifier?")
    return words.id(text)

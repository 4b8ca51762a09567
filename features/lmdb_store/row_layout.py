"""How the embedded engine lays out records: one plan for all records that are made of the same schemas."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from features.columns.rows import Floats, KeyedRow, RowSchema
from features.lmdb_store.record import FIXED_HEAD_BYTES, HEADER, Schema


class FamilyPlan(NamedTuple):
    """Where a family's lists are among its section's: -1 for a measure that the section lacks."""

    position: int
    keys: int
    measures: tuple[int, ...]


class SectionPlan(NamedTuple):
    """How to walk the variable part of a section."""

    lengths: struct.Struct
    texts: tuple[bool, ...]
    families: tuple[FamilyPlan, ...]
    runs: tuple[tuple[int, int, int], ...] | None
    """Families as (position, index of the keys, measures) where they are all lists of the section in order: the fast
    way.
    """


class Gather:
    """Picks values out of a record into slots, NaN where there is none."""

    def __init__(self, source_of: dict[int, int], size: int) -> None:
        self.source = np.array([source_of[slot] for slot in sorted(source_of)], dtype=np.intp)
        self.target = None if len(source_of) == size else np.array(sorted(source_of), dtype=np.intp)
        self.empty = np.full(size, np.nan)

    def __call__(self, doubles: Floats) -> Floats:
        if self.target is None:
            return doubles[self.source]
        values = self.empty.copy()
        values[self.target] = doubles[self.source]
        return values


class Shape:
    """How to read all records made of the same schemas: indices count doubles from the record's start."""

    def __init__(self, plan: RowSchema, ids: tuple[int, ...], schemas: dict[int, Schema]) -> None:
        at = HEADER.size // 8 + len(ids)
        views = [view.name for view in plan.views]
        kinds = {f"{view.name}.{name}": kind for view in plan.views for name, kind in view.fields}
        events, slots, categories, sections = {}, {}, [], []
        for schema_id in ids:
            schema = schemas[schema_id]
            if schema.view in views:
                events[views.index(schema.view)] = at
            for index, (name, kind) in enumerate(schema.scalars):
                slot = plan.scalars.get(f"{schema.view}.{name}")
                # A field that has changed its type since it was written is missing.
                if slot is not None and kinds[f"{schema.view}.{name}"] == kind:
                    slots[slot] = at + FIXED_HEAD_BYTES // 8 + index
                    if kind == "category":
                        categories.append(slot)
            sections.append(_section(plan, schema))
            at += schema.fixed.size // 8
        self.variable = 8 * at
        """First byte of the variable parts."""
        self.lengths = struct.Struct(f"<{len(ids)}I")
        self.lengths_at = HEADER.size + 4 * len(ids)
        self.sections = tuple(sections)
        self.numbers = Gather(slots, len(plan.scalars))
        self.events = Gather(events, len(plan.views))
        self.categories = np.array(sorted(categories), dtype=np.intp)
        self.families: list[KeyedRow | None] = [None] * len(plan.families)


def _section(plan: RowSchema, schema: Schema) -> SectionPlan:
    lists = {name: (index, kind) for index, (name, kind) in enumerate(schema.lists)}
    families = []
    for view in plan.views:
        for family in view.families if view.name == schema.view else ():
            keys, kind = lists.get(family.keys_field, (-1, "texts"))
            if keys < 0 or kind != "texts":
                continue
            found = [lists.get(family.field(measure), (-1, "numbers")) for measure in family.measures]
            measures = tuple(index if kind == "numbers" else -1 for index, kind in found)
            families.append(FamilyPlan(plan.families[f"{view.name}.{family.name}"], keys, measures))
    in_order = [index for family in families for index in (family.keys, *family.measures)] == list(range(len(lists)))
    return SectionPlan(
        schema.lengths,
        tuple(kind == "texts" for _, kind in schema.lists),
        tuple(families),
        tuple((family.position, family.keys, len(family.measures)) for family in families) if in_order else None,
    )

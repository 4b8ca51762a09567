"""Feast's values to sections of the embedded store and back: the two directions of one table, beside each other."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from feast import FeatureView
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList, Value
from feast.types import Array, Bool, Float64, Int64, String, UnixTimestamp

from features.common.timestamps import MICROSECONDS
from features.lmdb_store.record import (
    FIXED_HEAD_BYTES,
    INTEGER_EXACT_MAX,
    LIST_NONE,
    MISSING,
    MISSING_BITS,
    Kind,
    Schema,
    Section,
    list_ranges,
    pack_lists,
)

KINDS: dict[Any, Kind] = {
    Float64: "number",
    Int64: "integer",
    String: "category",
    Bool: "boolean",
    UnixTimestamp: "time",
    Array(String): "texts",
    Array(Float64): "numbers",
}

_KIND_BY_NAME = {str(dtype): kind for dtype, kind in KINDS.items()}

ATTRIBUTES: dict[Kind, str] = {
    "number": "double_val",
    "integer": "int64_val",
    "category": "string_val",
    "boolean": "bool_val",
    "time": "unix_timestamp_val",
    "texts": "string_list_val",
    "numbers": "double_list_val",
}

TIME_NONE = -(1 << 63)
"""How Feast writes a null time."""

_NULL = Value()


def schema_of(table: FeatureView) -> Schema:
    """Names and kinds of a Feast view's fields.

    Raises:
        ValueError: when a field has a type that the store cannot hold.
    """
    fields = []
    for feature in table.features:
        kind = _KIND_BY_NAME.get(str(feature.dtype))
        if kind is None:
            raise ValueError(
                f"{table.name}.{feature.name}: the embedded store cannot hold {feature.dtype}; it holds"
                f" {', '.join(_KIND_BY_NAME)}"
            )
        fields.append((feature.name, kind))
    return Schema(table.name, tuple(fields))


class RowValues(NamedTuple):
    """One row as Python values: None is missing. Texts are not interned yet."""

    scalars: list[Any]
    lists: list[Any]


class Packer:
    """Packs rows of one view. `take` all rows of a batch, intern `texts`, then `pack` them."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.texts: set[str] = set()
        self._scalars = [(name, kind, ATTRIBUTES[kind]) for name, kind in schema.scalars]
        self._lists = [(name, kind, ATTRIBUTES[kind]) for name, kind in schema.lists]
        self._categories = [index for index, (_, kind) in enumerate(schema.scalars) if kind == "category"]
        self._integers = [index for index, (_, kind) in enumerate(schema.scalars) if kind in ("integer", "time")]

    def take(self, values: dict[str, Value]) -> RowValues:
        """Reads the fields that the schema names; a field that is absent or null is None.

        Raises:
            ValueError: when a value is of another type than its field.
        """
        get = values.get
        scalars: list[Any] = []
        for name, kind, attribute in self._scalars:
            value: Any = get(name, _NULL)
            found = getattr(value, attribute)
            # Most values are not the type's default: only those need the slower question whether anything was set.
            if not found and not value.HasField(attribute):
                self._check(name, kind, value)
                found = None
            elif kind == "time" and found == TIME_NONE:
                found = None
            scalars.append(found)
        for index in self._categories:
            if scalars[index] is not None:
                self.texts.add(scalars[index])
        lists: list[Any] = []
        for name, kind, attribute in self._lists:
            value = get(name, _NULL)
            if not value.HasField(attribute):
                self._check(name, kind, value)
                lists.append(None)
                continue
            found = list(getattr(value, attribute).val)
            if kind == "texts":
                self.texts.update(found)
            lists.append(found)
        return RowValues(scalars, lists)

    def pack(self, taken: RowValues, event: int, created: int, ids: dict[str, int]) -> tuple[bytes, bytes]:
        """Fixed and variable part of a section. `event` and `created` in microseconds since 1970."""
        scalars: list[Any] = [MISSING if value is None else value for value in taken.scalars]
        for index in self._categories:
            if taken.scalars[index] is not None:
                scalars[index] = ids[scalars[index]]
        exact = [
            (index, value)
            for index in self._integers
            if (value := taken.scalars[index]) is not None and not -INTEGER_EXACT_MAX <= value <= INTEGER_EXACT_MAX
        ]
        lists: list[tuple[int, bytes]] = []
        for (_, kind, _), values in zip(self._lists, taken.lists, strict=True):
            if values is None:
                lists.append((LIST_NONE, b""))
            elif kind == "texts":
                lists.append((len(values), struct.pack(f"<{len(values)}I", *[ids[text] for text in values])))
            else:
                lists.append((len(values), struct.pack(f"<{len(values)}d", *values)))
        fixed = self.schema.fixed.pack(event / MICROSECONDS, event, created, *scalars)
        return fixed, pack_lists(self.schema, lists, exact)

    def _check(self, name: str, kind: Kind, value: Value) -> None:
        found = value.WhichOneof("val")
        if found not in (None, "null_val"):
            raise ValueError(f"{self.schema.view}.{name}: expected {ATTRIBUTES[kind]}, got {found}")


def values_of(
    schema: Schema, section: Section, wanted: list[str], kinds: dict[str, Kind], texts: list[str]
) -> dict[str, Value]:
    """Return the wanted fields of a section as Feast's values; null where the section lacks a field, or holds another
    type under its name.
    """
    count = len(schema.scalars)
    numbers = struct.unpack_from(f"<{count}d", section.fixed, FIXED_HEAD_BYTES)
    bits = struct.unpack_from(f"<{count}Q", section.fixed, FIXED_HEAD_BYTES)
    ranges, exact = list_ranges(schema, section.variable)
    found: dict[str, Value] = {}
    for index, (name, kind) in enumerate(schema.scalars):
        if kinds.get(name) != kind or bits[index] == MISSING_BITS:
            continue
        number = numbers[index]
        if kind == "number":
            found[name] = Value(double_val=number)
        elif kind == "category":
            found[name] = Value(string_val=texts[int(number)])
        elif kind == "boolean":
            found[name] = Value(bool_val=number != 0)
        else:
            integer = exact.get(index, int(number))
            found[name] = Value(int64_val=integer) if kind == "integer" else Value(unix_timestamp_val=integer)
    for (name, kind), (start, end, length) in zip(schema.lists, ranges, strict=True):
        if kinds.get(name) != kind or length < 0:
            continue
        data = section.variable[start:end]
        if kind == "texts":
            found[name] = Value(string_list_val=StringList(val=[texts[i] for i in struct.unpack(f"<{length}I", data)]))
        else:
            found[name] = Value(double_list_val=DoubleList(val=struct.unpack(f"<{length}d", data)))
    return {name: found[name] if name in found else Value() for name in wanted}

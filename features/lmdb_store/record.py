"""The record of one entity in the embedded store: sections of all its views in one value.

Little-endian, every part aligned to 8 bytes, so that a reader looks at the whole as one array of doubles:

    u8  format    1
    u8  n         sections
    u16           0
    u32 words     words that this record may name: ids are below it
    u32 [n]       schema ids, one a section
    u32 [n]       length of each section's variable part
    fixed part of each section
        f64       event time, seconds since 1970
        i64       event time, microseconds since 1970
        i64       created, microseconds since 1970, or CREATED_NONE
        f64 [s]   scalars
    variable part of each section
        u32 [l]   lengths of the lists (LIST_NONE: no value), padded
        lists     texts as u32 word ids, padded; numbers as f64
        exact     (i64 scalar's index, i64 value) for each integer that a double cannot hold
    u32           0
    u32 check     crc32 of all before it, so that the crc32 of the whole record is CHECKED

A scalar is stored as the row wants it: integers, booleans and times as doubles, categories as word ids. What was never
written, or written as null, is a NaN of its own bits (MISSING), so that a NaN that was written stays one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple
from zlib import crc32

import msgspec

Kind = Literal["number", "integer", "category", "boolean", "time", "texts", "numbers"]

FORMAT = 1
CREATED_NONE = -(1 << 63)
LIST_NONE = 0xFFFFFFFF
INTEGER_EXACT_MAX = 1 << 53
"""Integers up to here are doubles without loss."""
KEY_BYTES_MAX = 511
"""LMDB's bound on a key."""

MISSING_BITS = 0x7FF8_0000_0000_0001
MISSING: float = struct.unpack("<d", struct.pack("<Q", MISSING_BITS))[0]

CHECKED = 0x2144DF1C
"""The crc32 of anything that ends with its own crc32, little-endian: no slice to make before checking."""

HEADER = struct.Struct("<BBHI")
TAIL_BYTES = 8
_EXACT = struct.Struct("<qq")
FIXED_HEAD_BYTES = 24


class DamagedRecord(ValueError):
    """A record does not decode: torn by a power cut, or not ours."""


@dataclass(frozen=True)
class Schema:
    """Names and kinds of the fields of one view, as it was when a section was written."""

    view: str
    fields: tuple[tuple[str, Kind], ...]

    @cached_property
    def scalars(self) -> tuple[tuple[str, Kind], ...]:
        return tuple(field for field in self.fields if field[1] not in ("texts", "numbers"))

    @cached_property
    def lists(self) -> tuple[tuple[str, Kind], ...]:
        return tuple(field for field in self.fields if field[1] in ("texts", "numbers"))

    @cached_property
    def fixed(self) -> struct.Struct:
        """Packs event seconds, event and created microseconds, and the scalars."""
        return struct.Struct(f"<dqq{len(self.scalars)}d")

    @cached_property
    def lengths(self) -> struct.Struct:
        """Packs the lengths of the lists, padded to 8 bytes."""
        return struct.Struct(f"<{len(self.lists)}I{4 * (len(self.lists) % 2)}x")

    def encode(self) -> bytes:
        return msgspec.json.encode({"view": self.view, "fields": self.fields})

    @staticmethod
    def decode(data: bytes) -> Schema:
        """Raises DamagedRecord when the data is not a schema of ours."""
        try:
            stored = msgspec.json.decode(data, type=_StoredSchema)
        except msgspec.DecodeError as error:
            raise DamagedRecord(f"a schema of the online store does not decode: {error}") from None
        return Schema(stored.view, stored.fields)


class _StoredSchema(msgspec.Struct):
    view: str
    fields: tuple[tuple[str, Kind], ...]


class Section(NamedTuple):
    """One view of one entity, still packed. Order by `event`, then `created`, decides which of two is kept."""

    schema: int
    event: int
    created: int
    fixed: bytes
    variable: bytes


def entity_key(join_key: str, value: str) -> bytes | None:
    """Return the key of an entity's record; None when it is longer than a key can be."""
    key = f"r{join_key}\0{value}".encode("utf-8", "surrogatepass")
    return key if len(key) <= KEY_BYTES_MAX else None


def pack(sections: list[Section], words: int) -> bytes:
    """Return a record of these sections; `words` is the number of words interned so far."""
    n = len(sections)
    body = b"".join(
        (
            HEADER.pack(FORMAT, n, 0, words),
            struct.pack(f"<{2 * n}I", *(s.schema for s in sections), *(len(s.variable) for s in sections)),
            *(s.fixed for s in sections),
            *(s.variable for s in sections),
            b"\0\0\0\0",
        )
    )
    return body + crc32(body).to_bytes(4, "little")


def unpack(record: bytes, schemas: dict[int, Schema]) -> list[Section]:
    """Return the inverse of `pack`.

    Raises:
        DamagedRecord: when the checksum, a length or a schema id does not fit.
    """
    ids, lengths = directory(record)
    sections = []
    known = [schemas.get(schema) for schema in ids]
    fixed = HEADER.size + 8 * len(ids)
    variable = fixed + sum(schema.fixed.size for schema in known if schema is not None)
    for schema_id, schema, length in zip(ids, known, lengths, strict=True):
        if schema is None:
            raise DamagedRecord(f"a record names schema {schema_id}, which the store does not have")
        _, event, created = struct.unpack_from("<dqq", record, fixed)
        size = schema.fixed.size
        sections.append(
            Section(schema_id, event, created, record[fixed : fixed + size], record[variable : variable + length])
        )
        fixed += size
        variable += length
    if variable != len(record) - TAIL_BYTES:
        raise DamagedRecord("the sections of a record do not add up to its length")
    return sections


def directory(record: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Schema ids and variable lengths of the sections, after the record as a whole was checked."""
    if crc32(record) != CHECKED or len(record) < HEADER.size + TAIL_BYTES or record[0] != FORMAT:
        raise DamagedRecord("a record's format or checksum does not fit")
    n = record[1]
    if len(record) < HEADER.size + 8 * n + TAIL_BYTES:
        raise DamagedRecord("a record is shorter than its sections")
    numbers = struct.unpack_from(f"<{2 * n}I", record, HEADER.size)
    return numbers[:n], numbers[n:]


def pack_lists(schema: Schema, lists: list[tuple[int, bytes]], exact: list[tuple[int, int]]) -> bytes:
    """Return the variable part: (length, bytes) a list in the schema's order, and integers beyond a double by scalar's
    index.
    """
    parts = [schema.lengths.pack(*(length for length, _ in lists))]
    for _, data in lists:
        parts.append(data)
        if len(data) % 8:
            parts.append(b"\0\0\0\0")
    parts.extend(_EXACT.pack(index, value) for index, value in exact)
    return b"".join(parts)


def list_ranges(schema: Schema, variable: bytes) -> tuple[list[tuple[int, int, int]], dict[int, int]]:
    """Return where each list lies in a variable part as (start, end, length), length -1 where it is null; and the exact
    integers.
    """
    at = schema.lengths.size
    ranges = []
    for (_, kind), length in zip(schema.lists, schema.lengths.unpack_from(variable), strict=True):
        if length == LIST_NONE:
            ranges.append((at, at, -1))
            continue
        end = at + (4 if kind == "texts" else 8) * length
        ranges.append((at, end, length))
        at = end + end % 8
    if at > len(variable) or (len(variable) - at) % _EXACT.size:
        raise DamagedRecord("the lists of a section do not add up to its length")
    return ranges, dict(_EXACT.iter_unpack(variable[at:]))

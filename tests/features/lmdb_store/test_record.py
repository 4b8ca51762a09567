"""The record of the embedded store: what goes in comes out, and what is damaged is noticed."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.lmdb_store.record import (
    CREATED_NONE,
    LIST_NONE,
    MISSING,
    MISSING_BITS,
    DamagedRecord,
    Schema,
    Section,
    entity_key,
    list_ranges,
    pack,
    pack_lists,
    unpack,
)

SCHEMAS = {
    0: Schema("a", (("x", "number"), ("k", "texts"), ("v", "numbers"), ("n", "integer"))),
    1: Schema("b", (("y", "category"),)),
    2: Schema("c", (("k", "texts"), ("v", "numbers"), ("w", "texts"))),
}
micros = st.integers(-(1 << 62), 1 << 62)


@st.composite
def sections(draw: st.DrawFn) -> Section:
    number = draw(st.sampled_from(sorted(SCHEMAS)))
    schema = SCHEMAS[number]
    lists = []
    for _, kind in schema.lists:
        length = draw(st.none() | st.integers(0, 5))
        size = 4 if kind == "texts" else 8
        lists.append(
            (LIST_NONE, b"")
            if length is None
            else (length, draw(st.binary(min_size=length * size, max_size=length * size)))
        )
    exact = draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=2, unique_by=lambda e: e[0]
        )
    )
    event, created = draw(micros), draw(st.just(CREATED_NONE) | micros)
    values = [draw(st.floats()) for _ in schema.scalars]
    return Section(
        number,
        event,
        created,
        schema.fixed.pack(event / 1e6, event, created, *values),
        pack_lists(schema, lists, exact),
    )


@given(st.lists(sections(), max_size=4), st.integers(0, (1 << 32) - 1))
def test_round_trip(given_sections: list[Section], words: int) -> None:
    """Sections come out as they went in, and every part lies on 8 bytes."""
    record = pack(given_sections, words)
    assert len(record) % 8 == 0
    assert unpack(record, SCHEMAS) == given_sections
    for section in given_sections:
        ranges, _ = list_ranges(SCHEMAS[section.schema], section.variable)
        assert all(start % 8 == 0 for start, _, _ in ranges)


@given(st.lists(sections(), min_size=1, max_size=3), st.data())
def test_damage(given_sections: list[Section], data: st.DataObject) -> None:
    """A record that is cut short, or has any one bit changed, does not decode."""
    record = bytearray(pack(given_sections, 7))
    with pytest.raises(DamagedRecord):
        unpack(bytes(record[: data.draw(st.integers(0, len(record) - 1))]), SCHEMAS)
    record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedRecord):
        unpack(bytes(record), SCHEMAS)


def test_exact_integers() -> None:
    """Integers that a double cannot hold stand beside their slot."""
    schema = SCHEMAS[0]
    variable = pack_lists(schema, [(1, b"\1\0\0\0"), (LIST_NONE, b"")], [(1, (1 << 62) + 1)])
    ranges, exact = list_ranges(schema, variable)
    assert exact == {1: (1 << 62) + 1}
    assert [length for _, _, length in ranges] == [1, -1]


def test_missing_is_a_nan_of_its_own() -> None:
    """A NaN that was written is not taken for a missing value."""
    assert math.isnan(MISSING)
    assert struct.pack("<d", MISSING) == struct.pack("<Q", MISSING_BITS) != struct.pack("<d", math.nan)


def test_schemas_are_read_back() -> None:
    """Schemas are stored as text that anyone can read; anything else is damage."""
    for schema in SCHEMAS.values():
        assert Schema.decode(schema.encode()) == schema
    with pytest.raises(DamagedRecord):
        Schema.decode(b'{"view":1}')


def test_keys() -> None:
    """A key that LMDB could not hold is none."""
    assert entity_key("customer_id", "1") == b"rcustomer_id\x001"
    assert entity_key("customer_id", "x" * 498) is not None
    assert entity_key("customer_id", "x" * 499) is None

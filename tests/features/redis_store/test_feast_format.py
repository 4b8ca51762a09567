"""What is read of Feast's Redis format without Feast, against Feast's own functions."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from features.columns.rows import Dictionary
from features.redis_store import feast_format
from features.redis_store.feast_format import DamagedValue
from tests.features.store_cases import proto

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text, text)
def test_keys(entity: str, project: str) -> None:
    """Hash keys are Feast's, serialization version 3."""
    key = EntityKey(join_keys=["customer_id"], entity_values=[Value(string_val=entity)])
    assert feast_format.entity_key("customer_id", entity, project) == _redis_key(
        project, key, entity_key_serialization_version=3
    )


@given(text, text)
def test_field_names(view: str, feature: str) -> None:
    """Field names are Feast's hashes."""
    assert feast_format.field_name(view, feature) == _mmh3(f"{view}:{feature}")


@given(st.floats())
def test_numbers(value: float) -> None:
    """Doubles of any kind."""
    np.testing.assert_array_equal(feast_format.number(proto("number", value).SerializeToString()), value)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_integers(value: int) -> None:
    """Integers and times of any size, rounded to doubles."""
    assert feast_format.integer(proto("integer", value).SerializeToString()) == float(value)
    if value != feast_format.TIME_NONE:
        assert feast_format.time(proto("time", value).SerializeToString()) == float(value)


@given(st.lists(text), st.lists(st.floats()))
def test_lists(names: list[str], values: list[float]) -> None:
    """Texts and numbers of any count; a second reading of the same texts gives the same ids."""
    words, known = Dictionary(), dict[bytes, int]()
    for _ in range(2):
        ids = feast_format.texts(proto("texts", names).SerializeToString(), words, known)
        assert ids is not None
        assert [words.texts[i] for i in ids] == names
    np.testing.assert_array_equal(
        feast_format.numbers(proto("numbers", values).SerializeToString()), np.array(values, dtype=float)
    )


@given(text)
def test_categories(value: str) -> None:
    """Texts of any length."""
    words = Dictionary()
    assert words.texts[int(feast_format.category(proto("category", value).SerializeToString(), words))] == value


@given(st.integers(-2_000_000_000_000_000, 8_000_000_000_000_000))
def test_timestamps(moment: int) -> None:
    """Event times to the microsecond; also before 1970."""
    message = Timestamp()
    message.FromMicroseconds(moment)
    assert feast_format.timestamp(message.SerializeToString()) == moment / 1_000_000


READERS: dict[str, Any] = {
    "number": feast_format.number,
    "integer": feast_format.integer,
    "boolean": feast_format.boolean,
    "time": feast_format.time,
    "category": lambda data: feast_format.category(data, Dictionary()),
    "texts": lambda data: feast_format.texts(data, Dictionary(), {}),
    "numbers": feast_format.numbers,
}
EXAMPLES: dict[str, Any] = {
    "number": 1.5,
    "integer": 300,
    "boolean": True,
    "time": 1_700_000_000,
    "category": "tea",
    "texts": ["tea", "bread" * 40],
    "numbers": [1.0, 2.0],
}


@pytest.mark.parametrize("kind", READERS)
def test_null(kind: str) -> None:
    """Null, absent and Feast's null value are missing."""
    for data in (b"", Value(null_val=0).SerializeToString()):
        found = READERS[kind](data)
        assert found is None or np.isnan(found)


@pytest.mark.parametrize("kind", READERS)
def test_other_types(kind: str) -> None:
    """A value of another type is damage, not a number."""
    for other, example in EXAMPLES.items():
        if other != kind:
            with pytest.raises(DamagedValue):
                READERS[kind](proto(other, example).SerializeToString())


@given(st.sampled_from(sorted(READERS)), st.binary(max_size=40), st.data())
def test_damage(kind: str, noise: bytes, data: st.DataObject) -> None:
    """Values that are cut, changed or made up raise DamagedValue, or are read; nothing else happens."""
    whole = bytearray(proto(kind, EXAMPLES[kind]).SerializeToString())
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    for damaged in (cut, bytes(whole), noise, bytes(whole[:1]) + noise):
        with suppress(DamagedValue):
            READERS[kind](damaged)

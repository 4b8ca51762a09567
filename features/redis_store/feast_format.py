"""Feast's online record format for Redis, read without Feast: keys, field names and values.

Source: Feast's `docs/specs/online_store_format.md` and `feast.infra.key_encoding_utils` (entity key serialization
version 3), Feast 0.67; a test compares each function with Feast's own. One hash an entity holds the fields of all its
views:

    key     serialized entity key + project
    field   murmur3_32 of "view:feature", little-endian; value: a serialized `feast.types.Value`
    field   "_ts:view"; value: a serialized protobuf Timestamp, the event time of the view's row
"""

from __future__ import annotations

import struct
from typing import Any

import mmh3
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from features.columns.rows import Dictionary, Floats

_STRING = 2
"""ValueType.STRING."""
NAN = float("nan")
_DOUBLE = struct.Struct("<d")
_F8 = np.dtype("<f8")

WORDS_MAX = 2_000_000
"""Bound on distinct categories and keys: each costs every process some 150 bytes."""

TIME_NONE = -(1 << 63)
"""How Feast writes a null time."""

# Tags: field number of the value's type in `feast.types.Value` << 3 | wire type.
TAG_TEXT, TAG_INTEGER, TAG_DOUBLE, TAG_BOOLEAN, TAG_TIME = 0x12, 0x20, 0x29, 0x38, 0x40
TAG_TEXTS, TAG_DOUBLES = 0x62, 0x7A
TAG_NULL = b"\x98\x01"


_TAGGED = np.dtype([("tag", "u1"), ("value", "<f8")])
_NULL_DOUBLE = struct.pack("<Bd", TAG_DOUBLE, float("nan"))


class DamagedValue(ValueError):
    """A stored value is not of the type that its field has, or is cut short."""


def _list_message() -> Any:
    """Return the one part of `feast.types.Value` that is quicker read by protobuf's own parser than byte by byte; texts
    as bytes.
    """
    file = descriptor_pb2.FileDescriptorProto(name="opportune_texts.proto", package="opportune", syntax="proto3")
    optional, repeated = (
        descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED,
    )
    texts, value = file.message_type.add(name="StringList"), file.message_type.add(name="Value")
    texts.field.add(name="val", number=1, label=repeated, type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES)
    message = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    value.field.add(name="string_list_val", number=12, label=optional, type=message, type_name=".opportune.StringList")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("opportune.Value"))


_Value = _list_message()


def entity_key(join_key: str, value: str, project: str) -> bytes:
    """Return the hash that holds an entity with one join key of type string."""
    name, text = join_key.encode(), value.encode("utf-8", "surrogatepass")
    return b"".join(
        (
            struct.pack("<III", 1, _STRING, len(name)),
            name,
            struct.pack("<II", _STRING, len(text)),
            text,
            project.encode(),
        )
    )


def field_name(view: str, feature: str) -> bytes:
    """Return the hash field of one feature."""
    return int(mmh3.hash(f"{view}:{feature}", signed=False)).to_bytes(4, "little")


def timestamp_name(view: str) -> bytes:
    """Return the hash field of a view's event time."""
    return f"_ts:{view}".encode()


def timestamp(data: bytes) -> float:
    """Return a protobuf Timestamp as seconds since 1970.

    Raises:
        DamagedValue: when it is not one.
    """
    seconds = nanos = at = 0
    while at < len(data):
        tag = data[at]
        number, at = _varint(data, at + 1)
        if tag == 0x08:
            seconds = number
        elif tag == 0x10:
            nanos = number
        else:
            raise DamagedValue("expected a timestamp")
    return (seconds * 1_000_000 + nanos // 1_000) / 1_000_000


def number(data: bytes) -> float:
    """Return a double; NaN for null."""
    if len(data) == 9 and data[0] == TAG_DOUBLE:
        return float(_DOUBLE.unpack_from(data, 1)[0])
    return _null(data)


def all_numbers(data: list[bytes | None]) -> Floats | None:
    """Many doubles at once, None or empty for null; None where one of them needs a closer look."""
    packed = b"".join([value or _NULL_DOUBLE for value in data])
    if len(packed) != 9 * len(data):
        return None
    fields = np.frombuffer(packed, _TAGGED)
    return fields["value"] if (fields["tag"] == TAG_DOUBLE).all() else None


def integer(data: bytes) -> float:
    """Return a 64-bit integer, rounded to a double where it is beyond 2**53; NaN for null."""
    found = _integer(data, TAG_INTEGER)
    return NAN if found is None else float(found)


def time(data: bytes) -> float:
    """Seconds since 1970; NaN for null."""
    found = _integer(data, TAG_TIME)
    return NAN if found is None or found == TIME_NONE else float(found)


def boolean(data: bytes) -> float:
    """0 or 1; NaN for null."""
    if len(data) == 2 and data[0] == TAG_BOOLEAN:
        return float(data[1] != 0)
    return _null(data)


def category(data: bytes, words: Dictionary) -> float:
    """Return the id of a text; NaN for null."""
    if not data or data[0] != TAG_TEXT:
        return _null(data)
    return float(_interned(_text(data, 1), words))


def texts(
    data: bytes, words: Dictionary, known: dict[bytes, int]
) -> np.ndarray[tuple[int], np.dtype[np.uint32]] | None:
    """Return the ids of a list of texts; None for null. `known` saves the decoding of texts met before."""
    if not data or data[0] != TAG_TEXTS:
        _null(data)
        return None
    try:
        listed = _Value.FromString(data).string_list_val.val
    except DecodeError:
        raise DamagedValue("expected a list of texts") from None
    try:
        ids = [known[raw] for raw in listed]
    except KeyError:
        for raw in listed:
            if raw not in known:
                known[raw] = _interned(_decoded(raw), words)
        ids = [known[raw] for raw in listed]
    return np.array(ids, dtype=np.uint32)


def numbers(data: bytes) -> Floats | None:
    """Return a list of doubles; None for null."""
    if not data or data[0] != TAG_DOUBLES:
        _null(data)
        return None
    length, at = _varint(data, 1)
    if at + length != len(data):
        raise DamagedValue("a list of numbers is cut short")
    if not length:
        return np.empty(0)
    if data[at] != 0x0A:  # packed, as every encoder writes proto3
        raise DamagedValue("expected a packed list of numbers")
    length, at = _varint(data, at + 1)
    if at + length != len(data) or length % 8:
        raise DamagedValue("a list of numbers is cut short")
    return np.frombuffer(data, _F8, length // 8, at)


def _null(data: bytes) -> float:
    if not data or data.startswith(TAG_NULL):
        return NAN
    raise DamagedValue("a value is not of its field's type")


def _integer(data: bytes, tag: int) -> int | None:
    if not data or data[0] != tag:
        _null(data)
        return None
    found, at = _varint(data, 1)
    if at != len(data):
        raise DamagedValue("an integer is followed by something else")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a signed 64-bit number of variable length, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise DamagedValue("a number is cut short")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    value &= (1 << 64) - 1
    return (value - (1 << 64) if value >> 63 else value), at


def _text(data: bytes, at: int) -> str:
    length, at = _varint(data, at)
    if at + length != len(data):
        raise DamagedValue("a text is cut short")
    return _decoded(data[at:])


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DamagedValue("a text is not UTF-8") from None


def _interned(text: str, words: Dictionary) -> int:
    if len(words) >= WORDS_MAX and text not in words.ids:
        raise DamagedValue(f"more than {WORDS_MAX} distinct categories and keys: is one of the fields an identifier?")
    return words.id(text)

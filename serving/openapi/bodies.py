"""JSON Schemas of the bodies of the contract, made from the structs that bodies are decoded as and written from.

What a struct says is brought into the form in which a program on the other side needs it: a request names what it may
leave out (no field with a default is required), an answer names what it always has. Generators read a `default` as
"always there", so that no schema carries one; texts name the characters that are refused everywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import msgspec
from msgspec import UNSET, inspect

from features.common.types import END_OF_TEXT
from serving.http.strict_json import REFUSED_CATEGORIES, types_within

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"

_LOOKED_AT = (range(0x20000), range(0xE0000, 0xE1000))
"""The planes of Unicode that have control and format characters; looking at all takes a tenth of a second."""


def body_schemas(requests: Sequence[type], responses: Sequence[type]) -> tuple[dict[type, Schema], dict[str, Schema]]:
    """Return the schema of each type, and the components that they refer to, by name.

    Raises:
        ValueError: a struct is part of a request and of a response, which have different rules.
    """
    asked, told = _structs(requests), _structs(responses)
    if both := asked & told:
        raise ValueError(
            f"expected structs of requests or of responses, got both: {sorted(kind.__name__ for kind in both)}"
        )
    kinds = [*requests, *responses]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    by_name = {kind.__name__: kind for kind in asked | told}
    for name, schema in components.items():
        kind = by_name[name]
        for part in _parts(schema):
            _tidy(part, free_text=kind in asked)
        schema["required"] = _required(kind) if kind in asked else _always_written(kind)
        if not schema["required"]:
            del schema["required"]
    return dict(zip(kinds, schemas, strict=True)), components


def reference(kind: type) -> Schema:
    """Return the schema that refers to the component of a struct."""
    return {"$ref": REFERENCE.format(name=kind.__name__)}


def pattern_of(pattern: str) -> str:
    """Return a pattern of ours as JSON Schema means it: there `$` is the end of the text, and nothing else (ECMA
    262).
    """
    return pattern.removesuffix(END_OF_TEXT)


def or_null(schema: Schema) -> Schema:
    """Return the schema of what may also be null, in the form that generated types read best."""
    enumerated = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return schema | {"type": [schema["type"], "null"]} | enumerated


def _structs(kinds: Sequence[type]) -> set[type]:
    return {part.cls for kind in kinds for part in types_within(kind) if isinstance(part, inspect.StructType)}


def _parts(schema: Any) -> Iterator[Schema]:
    """Yield a schema and every schema within it."""
    if isinstance(schema, dict):
        yield schema
        for name, member in schema.items():
            if name == "properties":
                for one in member.values():
                    yield from _parts(one)
            elif name not in ("enum", "const", "default"):
                yield from _parts(member)
    elif isinstance(schema, list):
        for member in schema:
            yield from _parts(member)


def _tidy(schema: Schema, *, free_text: bool) -> None:
    schema.pop("default", None)
    match schema.get("anyOf"):
        case [{"type": str()} as kind, {"type": "null"}]:
            del schema["anyOf"]
            schema |= or_null(kind)
    if "pattern" in schema:
        schema["pattern"] = pattern_of(schema["pattern"])
    elif (
        free_text
        and schema.get("type") in ("string", ["string", "null"])
        and "enum" not in schema
        and "format" not in schema
    ):
        schema["pattern"] = text_pattern()


def _required(kind: type) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind) if field.required]


def _always_written(kind: type) -> list[str]:
    """Return the names of what msgspec writes whatever the value is."""
    omits = kind.__struct_config__.omit_defaults  # type: ignore[attr-defined]
    return [
        field.encode_name
        for field in msgspec.structs.fields(kind)
        if field.required or not (omits or field.default is UNSET)
    ]


@cache
def text_pattern() -> str:
    """Return a pattern of texts without the characters that `strict_json` refuses.

    Surrogates are left out: JSON in UTF-8 cannot hold one, and not every regex engine can name one.
    """
    ranges: list[list[int]] = []
    for code in chain(*_LOOKED_AT):
        if 0xD800 <= code <= 0xDFFF or unicodedata.category(chr(code)) not in REFUSED_CATEGORIES:
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return (
        "^[^"
        + "".join(_escaped(first) + ("" if first == last else "-" + _escaped(last)) for first, last in ranges)
        + "]*$"
    )


def _escaped(code: int) -> str:
    """Return a character as ECMA 262, Python and Rust read it; beyond the first plane only the character itself is read
    alike.
    """
    return f"\\u{code:04x}" if code <= 0xFFFF else chr(code)

"""Bytes to a typed request, and nothing that two readers could understand differently.

Parse first (400), then hold what was parsed against the type (422). A parser in C drops duplicate keys silently and
takes any text, so every body is screened: the screens are exact where they pass, cost nanoseconds, and where they do
not pass a slower reading of the whole body decides.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct, inspect

from features.common.types import CONTEXT_INTEGER_MAX
from serving.http import problems

T = TypeVar("T")

DEPTH_MAX = 16
NAMES_QUOTED_MAX = 20
MEMBERS_TRIED_MAX = 64

# Controls, formats (bidirectional overrides, zero widths), surrogates, line and paragraph separators.
REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_PLAIN_TEXT = "text without control or format characters"

_parse = msgspec.json.Decoder().decode
_convert = msgspec.convert

_AT = re.compile(r" - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")
_BOUND = re.compile(r"Expected `(?P<kind>\w+)`(?P<length> of length)? (?P<bound>[<>]=? \S+)$")
_EXPECTED = re.compile(r"Expected `(?P<kinds>[^`]+)`, got `[^`]+`$")
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`$", re.DOTALL)


class StrictDecoder(Generic[T]):
    """Decodes a body as `kind`, a msgspec struct; raises a `Problem` that says where and what was expected.

    `names` closes the keys of dict fields: `{"context": {"channel", "device"}}` refuses any other context key. A
    pointer names a member only when the contract knows its name, so that no answer repeats what a client made up.
    """

    def __init__(self, kind: type[T], names: Mapping[str, frozenset[str]] | None = None) -> None:
        self._kind = kind
        self._names = tuple((field, known) for field, known in (names or {}).items())
        shape = list(types_within(kind))
        self._open = any(isinstance(part, inspect.AnyType) for part in shape)
        fields = [field for part in shape if isinstance(part, inspect.StructType) for field in part.fields]
        self._known = frozenset(field.encode_name for field in fields).union(*(known for _, known in self._names))
        self._objects = tuple(
            field.encode_name
            for field in inspect.type_info(kind).fields  # type: ignore[attr-defined]
            if isinstance(field.type, inspect.DictType | inspect.StructType)
        )

    def __call__(self, body: bytes) -> T:
        try:
            parsed = _parse(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refusal:
            unreadable(body, refusal)
        if type(parsed) is not dict:
            self._read_slowly(body, parsed)
            raise problems.invalid("not-an-object", "", "object")
        # Each key of the text has a colon. As many colons as keys kept: none was dropped, no text contains one.
        keys = len(parsed)
        for field in self._objects:
            if type(member := parsed.get(field)) is dict:
                keys += len(member)
        if body.count(b":") != keys or self._open or b"\\" in body or b"\x7f" in body or not body.isascii():
            self._read_slowly(body, parsed)
        try:
            value = _convert(parsed, self._kind)
        except msgspec.ValidationError as refusal:
            self._read_slowly(body, parsed)
            value = self._second_reading(parsed, str(refusal))
        for field, known in self._names:
            if not known.issuperset(getattr(value, field)):
                raise problems.invalid("field-unknown", f"/{field}", "one of: " + _quoted(known))
        return value

    def _second_reading(self, parsed: Any, message: str) -> T:
        """Return the value where an integer was written as `3.0`, which is the same number to JSON Schema; refuse what
        it does not mend.
        """
        if not whole_numbers(parsed):
            self._refuse(parsed, message)
        try:
            return _convert(parsed, self._kind)
        except msgspec.ValidationError as refusal:
            self._refuse(parsed, str(refusal))

    def _read_slowly(self, body: bytes, parsed: Any) -> None:
        """Depth, duplicate keys and characters, exactly, for a body that a screen could not clear."""
        if body.count(b"{") + body.count(b"[") > DEPTH_MAX and deeper_than(parsed, DEPTH_MAX):
            raise problems.JsonTooDeep()
        # Without escapes a colon of the text is a key's or stands within a text that was kept; a key too many shows.
        if b"\\" in body or body.count(b":") != _colons_explained(parsed):
            json.loads(body, object_pairs_hook=once_each)
        if b"\\" in body or not body.decode().isprintable():
            for path in refused_texts(parsed, ()):
                raise problems.invalid("field-format", self._pointer(path), _PLAIN_TEXT)

    def _pointer(self, path: tuple[str | int, ...]) -> str:
        """As much of the path as the contract knows."""
        parts = []
        for part in path:
            if isinstance(part, str) and part not in self._known:
                break
            parts.append(f"/{part}")
        return "".join(parts)

    def _refuse(self, parsed: Any, message: str) -> NoReturn:
        at = _AT.search(message)
        path = self._path(parsed, at["path"], message) if at else ()
        pointer = self._pointer(path)
        reason = message[: at.start()] if at else message
        if field := _FIELD.match(reason):
            if reason.startswith("Object missing"):
                raise problems.invalid("field-missing", f"{pointer}/{field['name']}", "a value")
            known = self._kind.__struct_fields__ if not path and issubclass(self._kind, Struct) else ()
            expected = "one of: " + _quoted(known) if known else "a field that /openapi.json documents"
            raise problems.invalid("field-unknown", pointer, expected)
        if kinds := _EXPECTED.match(reason):
            raise problems.invalid("field-type", pointer, kinds["kinds"].replace(" | ", " or "))
        if bound := _BOUND.match(reason):
            counts = "at most" if bound["bound"].startswith("<") else "at least"
            if not bound["length"]:
                raise problems.invalid("out-of-range", pointer, f"a number {bound['bound']}")
            limit = bound["bound"].split(" ")[1]
            if bound["kind"] == "str":
                raise problems.invalid("field-length", pointer, f"{counts} {limit} characters")
            code = "too-many-items" if counts == "at most" else "too-few-items"
            raise problems.invalid(code, pointer, f"{counts} {limit} items")
        if reason.startswith("Expected `str` matching regex"):
            raise problems.invalid("field-format", pointer, "text matching " + reason.partition("regex ")[2].strip("'"))
        if reason.startswith(("Invalid enum value", "Invalid value")):
            raise problems.invalid("field-value", pointer, "a value that /openapi.json documents")
        raise problems.invalid("field-format", pointer, "what /openapi.json documents")

    def _path(self, parsed: Any, steps: str, message: str) -> tuple[str | int, ...]:
        """msgspec's path as parts; `[...]` (some member of an object) is found by trying the members that we know."""
        path: tuple[str | int, ...] = ()
        for step in _STEP.finditer(steps):
            if step["any"]:
                member = self._failing_member(parsed, path, message)
                if member is None:
                    return path
                path += (member,)
            else:
                path += (int(step["index"]) if step["index"] else step["name"],)
        return path

    def _failing_member(self, parsed: Any, path: tuple[str | int, ...], message: str) -> str | None:
        container = parsed
        for part in path:
            container = container[part]
        members = dict(container)
        if len(members) > MEMBERS_TRIED_MAX:
            return None
        try:
            for name in self._known.intersection(members):
                container.clear()
                container[name] = members[name]
                try:
                    _convert(parsed, self._kind)
                except msgspec.ValidationError as refusal:
                    if str(refusal) == message:
                        return name
        finally:
            container.clear()
            container.update(members)
        return None


def read_openly(body: bytes) -> dict[str, Any]:
    """Return an object of which only some members concern us: any JSON, but not nested too deeply, and no key twice in
    its object.

    Raises:
        Problem: it is no such object.
    """
    try:
        parsed = _parse(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as refusal:
        unreadable(body, refusal)
    if body.count(b"{") + body.count(b"[") > DEPTH_MAX and deeper_than(parsed, DEPTH_MAX):
        raise problems.JsonTooDeep()
    if b"\\" in body or body.count(b":") != _colons_explained(parsed):
        json.loads(body, object_pairs_hook=once_each)
    if type(parsed) is not dict:
        raise problems.invalid("not-an-object", "", "object")
    return parsed


def unreadable(body: bytes, refusal: Exception) -> NoReturn:
    """Raises the `Problem` that says why a parser could not read a body."""
    if not body.strip(b" \t\r\n"):
        raise problems.BodyEmpty() from None
    if isinstance(refusal, RecursionError):
        raise problems.JsonTooDeep() from None
    text = str(refusal)
    if text.startswith("Number out of range"):
        raise problems.invalid("number-not-finite", "", "numbers that fit into 64 bits (IEEE 754)") from None
    if isinstance(refusal, UnicodeDecodeError):
        raise problems.JsonInvalid("Expected text in UTF-8, came bytes that are not.") from None
    if text.startswith("Integer value out of range"):
        raise problems.JsonInvalid("Expected numbers of a sane length, came one with thousands of digits.") from None
    if text.startswith("Input data was truncated"):
        raise problems.JsonInvalid("Expected a whole JSON document, came one that ends too early.") from None
    reason = text.partition("JSON is malformed: ")[2]  # msgspec's own words and a byte offset, nothing of the body
    raise problems.JsonInvalid(f"Expected JSON (RFC 8259), came malformed text: {reason}.") from None


def once_each(pairs: list[tuple[str, Any]]) -> None:
    """Return a hook for `json.loads` that refuses an object with a key twice."""
    if len(dict(pairs)) != len(pairs):
        raise problems.JsonDuplicateKey()


def _colons_explained(parsed: Any) -> int:
    """Keys kept, and colons within keys and texts kept."""
    total, pending = 0, [parsed]
    while pending:
        value = pending.pop()
        if type(value) is str:
            total += value.count(":")
        elif type(value) is dict:
            total += len(value)
            pending.extend(value)
            pending.extend(value.values())
        elif type(value) is list:
            pending.extend(value)
    return total


def whole_numbers(value: Any) -> bool:
    """Make integers of the floats within arrays and objects that are whole, up to 2^53 either way; return whether there
    were any.
    """
    found, pending = False, [value]
    while pending:
        holder = pending.pop()
        for place, member in list(holder.items() if type(holder) is dict else enumerate(holder)):
            if type(member) in (dict, list):
                pending.append(member)
            elif (
                type(member) is float and member.is_integer() and -CONTEXT_INTEGER_MAX <= member <= CONTEXT_INTEGER_MAX
            ):
                holder[place], found = int(member), True
    return found


def deeper_than(value: Any, levels: int) -> bool:
    """Return whether arrays and objects are nested in more levels."""
    depth, layer = 0, [value] if type(value) in (dict, list) else []
    while layer:
        depth += 1
        if depth > levels:
            return True
        layer = [
            member
            for parent in layer
            for member in (parent.values() if type(parent) is dict else parent)
            if type(member) in (dict, list)
        ]
    return False


def refused_texts(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Return where control and format characters are: the paths of texts, and of objects for their keys."""
    if isinstance(value, str):
        # isprintable is quick and refuses more than we do (unusual blanks, unassigned): only its refusals are looked
        # at.
        if not value.isprintable() and any(
            unicodedata.category(character) in REFUSED_CATEGORIES for character in value
        ):
            yield path
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from refused_texts(key, path)
            yield from refused_texts(member, (*path, key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from refused_texts(member, (*path, index))


def types_within(kind: Any) -> Iterator[inspect.Type]:
    """Return the type, and every type that a value of it can hold."""
    pending, seen = [inspect.type_info(kind)], set()
    while pending:
        part = pending.pop()
        if isinstance(part, inspect.StructType):
            if part.cls in seen:
                continue
            seen.add(part.cls)
            pending.extend(field.type for field in part.fields)
        yield part
        for name in ("types", "item_types"):
            pending.extend(getattr(part, name, ()))
        for name in ("item_type", "value_type", "key_type", "type"):
            if isinstance(inner := getattr(part, name, None), inspect.Type):
                pending.append(inner)


def _quoted(names: Any) -> str:
    listed = sorted(names)[:NAMES_QUOTED_MAX]
    return ", ".join(listed) + (" …" if len(names) > NAMES_QUOTED_MAX else "")

"""Workspace files as typed structs, with the file, the line and the path of every fault."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path as File
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from features.common.files import NotPlain, read_plain
from features.common.timestamps import DURATION_OR_END_PATTERN, DURATION_PATTERN, MOMENT_PATTERN, WINDOW_PATTERN
from features.common.types import ID_PATTERN, NAME_PATTERN
from features.config.faults import FAULTS_MAX, Path, shown
from features.config.faults import BadWorkspace as BadWorkspace
from features.config.faults import Fault as Fault
from features.config.model_file import MODEL_NAME_PATTERN
from features.config.workspace_file import CURRENCY_PATTERN, WORKSPACE_NAME_PATTERN
from features.config.yaml import FILE_BYTES_MAX, Tree

T = TypeVar("T")

IN_WORDS = {
    DURATION_PATTERN: "a duration like 30m, 12h, 7d or 4w",
    DURATION_OR_END_PATTERN: "a duration like 30d, or offer_end",
    WINDOW_PATTERN: "a window like 12h, 30d or 4w, or all",
    MOMENT_PATTERN: "a date like 2026-11-22, or a time with its offset like 2026-11-22T09:30:00Z",
    NAME_PATTERN: "a name of lower case letters, digits and underscores that starts with a letter",
    ID_PATTERN: "an id of letters, digits and . _ : @ + = | ~ -",
    WORKSPACE_NAME_PATTERN: "a name of lower case letters, digits and - that starts with a letter",
    CURRENCY_PATTERN: "a currency of three capital letters, like EUR",
    MODEL_NAME_PATTERN: "a name of letters, digits and . _ -",
}
"""What a pattern asks for, said to a person."""

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}
"""msgspec's words for types, as a person knows them from YAML."""

_PATH = re.compile(r"^(?P<message>.*?)(?: - at (?P<key>`key` in )?`(?P<path>\$[^`]*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_EXPECTED_GOT = re.compile(r"^Expected (?P<expected>.*?)(?:, got `(?P<got>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]*)`")


def content_of(file: File, shown: str) -> bytes:
    """Read a file of a workspace.

    Raises:
        BadWorkspace: it cannot be read, is no plain file of its folder, or is too large; then nothing of it is told.
    """
    try:
        return read_plain(file, FILE_BYTES_MAX, file.parent)
    except NotPlain as refusal:
        raise BadWorkspace([Fault(shown, "$", refusal.expected, refusal.got, remedy=refusal.remedy)]) from None
    except OSError as error:
        why = (error.strerror or "an error").lower()
        raise BadWorkspace(
            [Fault(shown, "$", "a readable file", why, remedy="See `opportune init --help`.")]
        ) from error


class Document:
    """A parsed file that still knows the line of each of its parts."""

    def __init__(self, file: File, shown: str, text: str | None = None) -> None:
        self.shown = shown
        tree = Tree(shown, content_of(file, shown) if text is None else text.encode())
        self.lines, self.value = tree.lines, tree.value

    def line(self, path: Path) -> int | None:
        """Line of a part, or of its nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def fault(self, path: Path, expected: str, got: str, remedy: str = "") -> Fault:
        """Return a fault at a part of this file."""
        return Fault(self.shown, shown(path), expected, got, self.line(path), remedy)

    def unknown(self, path: Path, expected: str, name: str, known: Iterable[str]) -> Fault:
        """Return the fault of a name that nothing has, with the nearest one that exists, or all of them."""
        names = sorted(known)
        near = difflib.get_close_matches(name, names, 1)
        remedy = f"Did you mean `{near[0]}`?" if near else f"Declared: {', '.join(names) or 'none'}."
        return self.fault(path, expected, f"`{name}`", remedy)

    def convert(self, kind: type[T]) -> T:
        """Return the file as a struct.

        msgspec stops at the first error: what is wrong is left out and the rest is tried again, so that all are told at
        once.

        Raises:
            BadWorkspace: with file, line, path, what was expected and what came.
        """
        value, faults, left_out = self.value, list[Fault](), set[Path]()
        while len(faults) < FAULTS_MAX:
            try:
                converted = msgspec.convert(value, kind)
            except msgspec.ValidationError as error:
                path, fault = self._explained(str(error), kind, value)
                if path not in left_out:
                    faults.append(fault)
                missing = _MISSING.search(str(error))
                path = _removable(value, path[:-1] if missing else path)
                if not path:
                    break
                left_out.add(path)
                value = _without(value, path)
            else:
                if faults:
                    break
                return converted
        raise BadWorkspace(faults)

    def _explained(self, message: str, kind: Any, value: Any) -> tuple[Path, Fault]:
        """Return the part that is wrong, or missing, and what to say of it."""
        parts = _PATH.match(message)
        assert parts is not None
        path = self._resolved(parts["path"] or "$", message, kind, value)
        text = parts["message"]
        if parts["key"]:
            key = next((key for key in _at(value, path) if _error(_with_only(value, path, key), kind) == message), None)
            expected = _EXPECTED_GOT.match(text)
            return (*path, str(key)), self.fault(
                (*path, str(key)), _in_words(expected["expected"] if expected else text), f"`{key}`"
            )
        if unknown := _UNKNOWN.search(text):
            name = unknown["name"]
            return (*path, name), self.fault(
                (*path, name), "a known key", f"`{name}`", _suggestion(name, _field_names(kind, path))
            )
        if missing := _MISSING.search(text):
            return (*path, missing["name"]), self.fault(path, f"the key `{missing['name']}`", "a mapping without it")
        got = _value_at(value, path)
        if choices := _choices(kind, path):
            return path, self.fault(
                path, f"one of {', '.join(choices)}", got, _suggestion(str(_at(value, path)), choices, only_near=True)
            )
        if expected := _EXPECTED_GOT.match(text):
            quoted = expected["got"] in ("int", "float", "bool") and "str" in expected["expected"]
            got = _KINDS.get(expected["got"], got) if expected["got"] in ("object", "array", "null") else got
            return path, self.fault(path, _in_words(expected["expected"]), got, "Put it in quotes." if quoted else "")
        return path, self.fault(path, text[0].lower() + text[1:], got)

    def _resolved(self, shown: str, message: str, kind: Any, value: Any) -> Path:
        """Return the exact place of an error. msgspec writes `[...]` for any key of a mapping: leave one key at a time
        and see which fails.
        """
        steps: list[str | int] = []
        for step in _STEP.finditer(shown):
            if step[0] != "[...]":
                steps.append(step[1] if step[1] is not None else int(step[2]))
                continue
            key = next(
                (key for key in _at(value, steps) if _error(_with_only(value, steps, key), kind) == message), None
            )
            if key is None:
                break
            steps.append(key)
        return tuple(steps)


def _error(value: Any, kind: Any) -> str:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _value_at(value: Any, path: Path) -> str:
    try:
        text = repr(_at(value, path))
    except (KeyError, IndexError, TypeError):
        return "nothing"
    return text if len(text) <= 80 else text[:77] + "..."


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _with_only(value: Any, path: Sequence[str | int], key: Any) -> Any:
    """Return a copy of a tree in which the mapping at `path` has this one key."""
    if not path:
        return {key: value[key]}
    return _replaced(value, path[0], _with_only(value[path[0]], path[1:], key))


def _without(value: Any, path: Path) -> Any:
    """Return a copy of a tree without the key at `path`."""
    if len(path) == 1:
        return {key: part for key, part in value.items() if str(key) != path[0]}
    return _replaced(value, path[0], _without(value[path[0]], path[1:]))


def _replaced(value: Any, step: Any, part: Any) -> Any:
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[step] = part
    return copy


def _removable(value: Any, path: Path) -> Path:
    """Return the part itself if it is under a key; an item of a list only goes with its list, so that positions stay
    what they are.
    """
    while path and not isinstance(_at(value, path[:-1]), dict):
        path = path[:-1]
    return path


def _suggestion(name: str, known: Sequence[str], only_near: bool = False) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"Did you mean `{near[0]}`?"
    return "" if only_near or not known else f"Known keys here: {', '.join(sorted(known))}."


def _in_words(expected: str) -> str:
    kinds, _, pattern = expected.partition(" matching regex ")
    if pattern:
        regex = ast.literal_eval(pattern)
        return IN_WORDS.get(regex, f"a text that matches {regex}")
    return re.sub(
        r"`([^`]*)`", lambda found: " or ".join(_KINDS.get(kind, kind) for kind in found[1].split(" | ")), kinds
    )


def _type_at(kind: Any, path: Path) -> Any:
    node: Any = inspect.type_info(kind)
    for step in path:
        node = _container(node)
        if isinstance(node, inspect.StructType):
            node = next((field.type for field in node.fields if field.encode_name == step), None)
        elif isinstance(node, inspect.DictType):
            node = node.value_type
        elif isinstance(node, (inspect.ListType, inspect.VarTupleType)):
            node = node.item_type
    return node


def _container(node: Any) -> Any:
    """Return the container inside a union: workspace files have at most one that holds structs."""
    if not isinstance(node, inspect.UnionType):
        return node
    containers = (inspect.StructType, inspect.DictType, inspect.ListType, inspect.VarTupleType)
    return next((kind for kind in node.types if isinstance(kind, containers)), None)


def _field_names(kind: Any, path: Path) -> list[str]:
    """Names that the struct at `path` knows, so that a typing error can be answered with the right word."""
    node = _container(_type_at(kind, path))
    return [field.encode_name for field in node.fields] if isinstance(node, inspect.StructType) else []


def _choices(kind: Any, path: Path) -> list[str]:
    """Return the values of a closed set, if `path` is one."""
    node = _type_at(kind, path)
    kinds = node.types if isinstance(node, inspect.UnionType) else (node,)
    return next(
        ([str(value) for value in found.values] for found in kinds if isinstance(found, inspect.LiteralType)), []
    )

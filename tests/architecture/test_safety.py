"""No data becomes code: what the packages may neither import nor call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.house import imports, modules, refuse, tree

UNSAFE_MODULES = frozenset({"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
UNSAFE_BUILTINS = frozenset({"eval", "exec", "__import__"})
UNSAFE_ATTRIBUTES = frozenset(
    {"read_pickle", "to_pickle", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}
)
UNSAFE_KEYWORDS = {"allow_pickle": True, "shell": True, "verify": False}


def _unsafe(file: Path) -> Iterator[str]:
    for line, name in imports(file):
        if UNSAFE_MODULES & set(name.split(".")):
            yield f"{file}:{line}: imports `{name}`, which can run code from data"
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Name) and node.id in UNSAFE_BUILTINS and isinstance(node.ctx, ast.Load):
            yield (
                f"{file}:{node.lineno}: uses `{node.id}`; compile a checked syntax tree and wrap it in"
                " types.FunctionType if you must"
            )
        elif isinstance(node, ast.Attribute) and node.attr in UNSAFE_ATTRIBUTES:
            yield f"{file}:{node.lineno}: uses `.{node.attr}`, which can run code from data"
        elif (
            isinstance(node, ast.Attribute)
            and node.attr in UNSAFE_BUILTINS
            and getattr(node.value, "id", "") == "builtins"
        ):
            yield f"{file}:{node.lineno}: uses `builtins.{node.attr}`"
        elif isinstance(node, ast.Call):
            yield from _unsafe_call(file, node)


def _unsafe_call(file: Path, node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    if called in {"yaml.load", "yaml.load_all"}:
        loader = next((ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"), "")
        if not loader.lstrip("_").endswith(("SafeLoader", "Loader")) or loader in {
            "yaml.Loader",
            "yaml.UnsafeLoader",
            "yaml.FullLoader",
        }:
            yield f"{file}:{node.lineno}: `{called}` without a safe loader"
    for keyword in node.keywords:
        if keyword.arg in UNSAFE_KEYWORDS and not (
            isinstance(keyword.value, ast.Constant) and keyword.value.value is (not UNSAFE_KEYWORDS[keyword.arg])
        ):
            yield f"{file}:{node.lineno}: passes `{keyword.arg}={ast.unparse(keyword.value)}`"


def test_no_data_becomes_code() -> None:
    """The packages neither evaluate nor unpickle nor open a shell."""
    looked_at = modules()
    faults = [fault for file in looked_at for fault in _unsafe(file)]
    refuse(faults)
    assert len(looked_at) >= 20, f"expected the packages, looked at {len(looked_at)} files"

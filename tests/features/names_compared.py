"""Finds code that knows kinds by their names: what only the file of a kind may do."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("features", "training", "serving", "pipelines")


def names_compared(tree: ast.AST, names: frozenset[str]) -> list[int]:
    """Return the lines that compare something with one of the names, or choose by them in a table."""
    lines = []
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif (
            isinstance(node, ast.Dict)
            and sum(isinstance(key, ast.Constant) and key.value in names for key in node.keys) > 3
        ):
            parts = [key for key in node.keys if key is not None]
        elements = [part.elts if isinstance(part, (ast.Tuple, ast.List, ast.Set)) else [part] for part in parts]
        if any(isinstance(one, ast.Constant) and one.value in names for group in elements for one in group):
            lines.append(node.lineno if hasattr(node, "lineno") else 0)
    return lines


def places_of_names(names: frozenset[str], own: str) -> list[str]:
    """Return `file:line` of the packages' code that compares one of the names, but for files whose path begins with
    `own`.
    """
    seen, found = 0, []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            place = file.relative_to(ROOT).as_posix()
            seen += 1
            if not place.startswith(own):
                found += [f"{place}:{line}" for line in names_compared(ast.parse(file.read_text()), names)]
    assert seen > 300, f"expected the files of {', '.join(PACKAGES)}, found {seen}"
    return found

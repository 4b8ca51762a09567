"""The tables of the guide to expressions: the columns that its examples name, and expressions parsed in their scope."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from features.expressions.nodes import Term
from features.expressions.parse import Expression, parse
from features.expressions.scope import ExpressionProblem

GUIDE = (Path(__file__).parents[3] / "docs/expressions.md").read_text()


def table(heading: str) -> list[list[str]]:
    """The rows below a heading row of the guide, as cells without outer backticks."""
    lines = GUIDE.split(f"| {heading} |\n", 1)[1].splitlines()[1:]
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.append([cell[1:-1] if re.fullmatch("`[^`]*`", cell) else cell for cell in cells])
    return rows


def declared(cells: list[str]) -> Term:
    """A row of the table of columns as a term."""
    name, dtype, unit, values = cells
    bounds = re.fullmatch(r"(\d+) to (\d+)", values)
    low, high = (float(bounds[1]), float(bounds[2])) if bounds else (None, None)
    texts = tuple(values.split(", ")) if values and not bounds else None
    return Term(name.split(".")[0], dtype, unit or None, texts, low, high)  # type: ignore[arg-type]


SCOPE = {cells[0]: declared(cells) for cells in table("column | type | unit | declared")}


def parsed(text: str, wants: Any = "boolean", scope: Any = None) -> Expression:
    found = parse(text, scope or SCOPE, wants)
    assert isinstance(found, Expression), "\n".join(map(str, found))
    return found


def problems(text: str, wants: Any = "boolean") -> list[ExpressionProblem]:
    found = parse(text, SCOPE, wants)
    assert isinstance(found, list), f"expected problems, got {found.root.text}"
    assert found
    return found

"""Python's syntax tree of an expression, with positions in characters of the text as it was written."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from features.expressions.scope import ExpressionProblem
from features.expressions.tokens import TextPosition, tokens_of

EXPRESSION_DEPTH_MAX = 40


@dataclass(frozen=True, slots=True)
class Syntax:
    """What Python's parser makes of a text that its surface allows."""

    body: ast.expr
    text: str

    def at(self, node: ast.expr) -> int:
        """Return where a node begins, in characters from 0; Python counts bytes, of the text within the brackets put
        around it.
        """
        return len(self.text.encode()[: node.col_offset - 1].decode(errors="replace"))


def syntax_of(text: str, place: TextPosition) -> Syntax | ExpressionProblem:
    """Return the syntax tree, or why there is none.

    Args:
        text: one that `surface_problems` finds nothing wrong with: its brackets are in balance.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            body = ast.parse("(" + re.sub(r"[\t\r\n]", " ", text) + "\n)", mode="eval").body
    except SyntaxError as error:
        return _unparsed(text, place, (error.offset or 2) - 2)
    except (ValueError, MemoryError, RecursionError):
        return _too_deep(place)
    depth, level = 0, [body]
    while level:
        depth += 1
        if depth > EXPRESSION_DEPTH_MAX:
            return _too_deep(place)
        level = [part for node in level for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    return Syntax(body, text)


def _unparsed(text: str, place: TextPosition, at: int) -> ExpressionProblem:
    token = next((token for token in tokens_of(text) if token.end > at), None)
    if token is None:
        return place.problem(len(text.rstrip()), "a value after the last word or sign", "the end")
    remedy = "See the operators and functions in docs/expressions.md."
    return place.problem(
        token.at, "an expression like customer.tenure_days >= 90", f"`{token.text}`, which does not fit here", remedy
    )


def _too_deep(place: TextPosition) -> ExpressionProblem:
    remedy = "Give a part of it a name, as a segment."
    return place.problem(0, f"at most {EXPRESSION_DEPTH_MAX} parts within each other", "more", remedy)

"""The expression language of rules, segments and formulas: from text to a checked tree.

It is a small part of Python's expression syntax, for example `customer.tenure_days >= 90 and context.channel in ["web",
"app"]`. Text is never evaluated: Python's own parser makes a syntax tree, every node of which is on a list here or
refused.

What is unknown: a value may be missing, and logic has three values (Kleene's).

* A comparison, a membership, or arithmetic with an unknown operand is unknown. So are a division by zero, the logarithm
  of what is not above zero, and whatever has no number (infinity minus itself).
* `not` unknown is unknown. `and` is false if one side is false, else unknown if one side is; `or` is true if one side
  is true, else unknown if one side is. `a if c else b` is unknown where `c` is.
* `known(x)` and `unknown(x)` are never unknown. `default(x, 0)` is x, or 0 where x is unknown.
* A condition passes where it is true: unknown is not true.

All problems of a text are told at once where possible, each with line, column, what was expected, what came, and the
way out. A comparison that can only have one result is a problem too: a rule that says nothing is a mistake.
`docs/expressions.md` is for users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from features.expressions.nodes import Node, Term
from features.expressions.scope import ExpressionProblem, Scope, nearest
from features.expressions.syntax import syntax_of
from features.expressions.tokens import TextPosition, surface_problems, tokens_of
from features.expressions.typecheck import Checker

TREE_DEPTH_MAX = 80
"""With the segments that it uses, and theirs."""
SEGMENTS_MAX = 500


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression."""

    text: str
    root: Node

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the columns and terms that it uses, segments taken apart; sorted."""
        return tuple(sorted({str(node.value) for node in nodes_of(self.root) if node.op == "column"}))


def nodes_of(root: Node) -> Iterator[Node]:
    """Yield each different node of a tree once."""
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop()
        yield node
        new = [part for part in dict.fromkeys(node.parts) if part not in seen]
        seen.update(new)
        waiting += new


def parse(
    text: str, scope: Scope, wants: Literal["boolean", "number"] = "boolean"
) -> Expression | list[ExpressionProblem]:
    """Return a text as a checked expression, or everything that is wrong with it.

    The list of problems is empty where the only one is a segment that has problems of its own.

    Args:
        wants: `boolean` for conditions, `number` for formulas.
    """
    problems = surface_problems(text)
    if problems:
        return problems
    place = TextPosition(text)
    syntax = syntax_of(text, place)
    if isinstance(syntax, ExpressionProblem):
        return [syntax]
    checker = Checker(scope, syntax, place)
    root = checker.condition(syntax.body) if wants == "boolean" else checker.number(syntax.body)
    if root is not None and root.depth > TREE_DEPTH_MAX:
        remedy = "Use fewer segments within each other."
        checker.problems.append(
            place.problem(0, f"at most {TREE_DEPTH_MAX} parts within each other, segments included", "more", remedy)
        )
    if checker.problems or root is None:
        return sorted(checker.problems, key=lambda problem: (problem.line, problem.column))
    return Expression(text, root)


def parse_segments(
    texts: Mapping[str, str], scope: Scope
) -> tuple[dict[str, Term], dict[str, list[ExpressionProblem]]]:
    """Named conditions, which may use each other but not themselves, as terms `segment.<name>` to be added to the
    scope.

    Segments may use whatever conditions may. One with problems is among the terms too, without a body, so that what
    uses it is not told a second time.

    Returns:
        the terms, and the problems by name.
    """
    problems: dict[str, list[ExpressionProblem]] = {}
    for name in list(texts)[SEGMENTS_MAX:]:
        problems[name] = [
            ExpressionProblem(1, 1, f"at most {SEGMENTS_MAX} segments", str(len(texts)), "Leave some out.")
        ]
    uses = {name: _segments_in(texts[name]) & set(texts) - {name} for name in texts if name not in problems}
    for name in uses:
        if name in _segments_in(texts[name]):
            problems[name] = [_cycle(texts[name], name, [name, name])]
    order: list[str] = []
    while not order and uses:
        try:
            order = list(TopologicalSorter({name: used & uses.keys() for name, used in uses.items()}).static_order())
        except CycleError as error:
            cycle: list[str] = error.args[1]
            for at, name in enumerate(cycle[1:]):
                problems.setdefault(name, [_cycle(texts[name], cycle[at], list(reversed(cycle)))])
                uses.pop(name, None)
    terms = {f"segment.{name}": Term("segment", "boolean") for name in texts}
    for name in order:
        if name in problems:
            continue
        found = parse(texts[name], {**scope, **terms})
        if isinstance(found, Expression):
            terms[f"segment.{name}"] = Term("segment", "boolean", body=found.root)
        elif found:
            problems[name] = found
    return terms, problems


def _segments_in(text: str) -> set[str]:
    """Names of the segments that a text speaks of, whether or not it is well-formed."""
    if surface_problems(text):
        return set()
    words = [token.text for token in tokens_of(text)]
    return {words[at + 2] for at in range(len(words) - 2) if words[at : at + 2] == ["segment", "."]}


def _cycle(text: str, used: str, cycle: list[str]) -> ExpressionProblem:
    at = max(text.find(f"segment.{used}"), 0)
    return TextPosition(text).problem(
        at, "segments that do not use themselves", " -> ".join(cycle), "Take one of these uses away."
    )


__all__ = ["Expression", "ExpressionProblem", "Scope", "Term", "nearest", "nodes_of", "parse", "parse_segments"]

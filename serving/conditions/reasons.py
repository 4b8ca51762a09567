"""Why a condition is not true for one customer and one offer: what each leaf is, and what it would need to be.

For people who may see a customer's data. Works on one offer at a time, in microseconds a leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

from features.expressions.evaluate import Lookup, Meaning, Value
from features.expressions.nodes import FLIPPED, Node, negated, shown_value
from features.expressions.parse import Expression


@dataclass(frozen=True, slots=True)
class LeafResult:
    """One leaf of a condition: a comparison, a membership, a truth.

    Attributes:
        condition: the leaf as it would have to be true, in canonical text.
        subject: what it looks at; `actual` is the value of that, None where unknown.
        needs: what the subject would need to be: `>= 90`, `in ["web", "app"]`, `known`.
        holds: whether the leaf is true; None where unknown.
    """

    condition: str
    subject: str
    actual: Value
    needs: str
    holds: bool | None

    def __str__(self) -> str:
        return f"{self.subject} is {_shown(self.actual)}" + ("" if self.holds else f" (needs {self.needs})")


def explain(expression: Expression, lookup: Lookup) -> list[LeafResult]:
    """Return every leaf of a condition once, in the order in which it is written, as asked for: under a `not`, its
    opposite.

    Args:
        lookup: values of columns for this customer and offer, from `Bound.lookup`.
    """
    meaning = Meaning(lookup)
    found: dict[str, LeafResult] = {}
    seen: set[tuple[Node, bool]] = set()

    def visit(node: Node, wanted: bool) -> None:
        if (node, wanted) in seen:
            return
        seen.add((node, wanted))
        branches = _branches(node, wanted)
        if branches is None:
            finding = _finding(node, wanted, meaning)
            found.setdefault(finding.condition, finding)
        for branch in branches or []:
            for part, asked in branch:
                visit(part, asked)

    visit(expression.root, True)
    return list(found.values())


def needed(expression: Expression, lookup: Lookup) -> list[LeafResult]:
    """Return the fewest leaves that would have to change to make a condition true, each with what it is and needs; none
    if it is true.

    Each leaf is taken alone: where two of them look at the same column, one value may not serve both.
    """
    meaning = Meaning(lookup)
    known: dict[tuple[Node, bool], list[LeafResult]] = {}

    def missing(node: Node, wanted: bool) -> list[LeafResult]:
        if meaning.of(node) is wanted:
            return []
        found = known.get((node, wanted))
        if found is None:
            branches = _branches(node, wanted)
            if branches is None:
                found = [_finding(node, wanted, meaning)]
            else:
                ways = ([finding for part, asked in branch for finding in missing(part, asked)] for branch in branches)
                found = min((list({way.condition: way for way in ways}.values()) for ways in ways), key=len)
            known[node, wanted] = found
        return found

    return missing(expression.root, True)


def _branches(node: Node, wanted: bool) -> list[list[tuple[Node, bool]]] | None:
    """Return the ways to make a condition what is wanted, each of parts that must all be so; None for a leaf."""
    if node.op in ("not", "segment"):
        return [[(node.parts[0], wanted == (node.op == "segment"))]]
    if node.op in ("and", "or"):
        parts = [(part, wanted) for part in node.parts]
        return [parts] if (node.op == "and") == wanted else [[part] for part in parts]
    if node.op == "if":
        condition, left, right = node.parts
        return [[(condition, True), (left, wanted)], [(condition, False), (right, wanted)]]
    return None


def _finding(node: Node, wanted: bool, meaning: Meaning) -> LeafResult:
    leaf = node if wanted or node.op == "column" else negated(node)
    holds = meaning.of(node)
    told = None if holds is None else holds is wanted
    if node.op == "column":
        condition = node.text if wanted else f"not {node.text}"
        return LeafResult(condition, node.text, meaning.of(node), str(wanted), told)
    subject = leaf.parts[0]
    if leaf.op in ("known", "unknown"):
        needs = leaf.op
    elif leaf.op in FLIPPED:
        needs = f"{leaf.op} {_told(leaf.parts[1], meaning)}"
    elif len(leaf.parts) == 2:
        subject = leaf.parts[1]
        needs = f"{'with' if leaf.op == 'in' else 'without'} {_told(leaf.parts[0], meaning)}"
    else:
        needs = f"{leaf.op} [{', '.join(map(shown_value, leaf.values))}]"
    return LeafResult(leaf.text, subject.text, meaning.of(subject), needs, told)


def _told(node: Node, meaning: Meaning) -> str:
    return node.text if node.is_constant else f"{node.text}, which is {_shown(meaning.of(node))}"


def _shown(value: Value) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, (bool, float, int, str)):
        return f"{value:g}" if isinstance(value, float) else shown_value(value)
    return "[" + ", ".join(map(shown_value, value)) + "]"

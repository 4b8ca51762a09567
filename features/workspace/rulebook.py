"""The policies of a workspace with their expressions read: what serving compiles, and what `opportune check` complains
of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from features.config.faults import Path
from features.config.features_file import FeaturesFile
from features.config.policies import STAGES, PoliciesFile, Rule, Weight
from features.expressions.nodes import Term
from features.expressions.parse import Expression, parse, parse_segments
from features.expressions.scope import ExpressionProblem, Scope, scope_of
from features.workspace.situations import with_situations

FORMULA_TERMS = ("propensity", "context_weight", "value", "lever")
"""Numbers of an offer that arbitration knows, beside columns."""


@dataclass(frozen=True, slots=True)
class ReadRule:
    """A rule and its condition."""

    name: str
    rule: Rule
    condition: Expression
    keeps: bool
    """Whether offers pass where the condition is true (`when`), or fall where it is (`unless`)."""


@dataclass(frozen=True, slots=True)
class ReadWeight:
    """A context weight and its condition."""

    name: str
    weight: Weight
    condition: Expression


@dataclass(slots=True)
class Rulebook:
    """Rules in the order in which they are asked: by stage, then as the file has them.

    `problems` says what could not be read, by its place in policies.yaml; what has problems is left out of the rest.
    """

    policies: PoliciesFile
    scope: dict[str, Term]
    rules: list[ReadRule] = field(default_factory=list)
    weights: list[ReadWeight] = field(default_factory=list)
    formula: Expression | None = None
    problems: list[tuple[Path, ExpressionProblem]] = field(default_factory=list)


def read_rules(policies: PoliciesFile, features: FeaturesFile, currency: str) -> Rulebook:
    """Read all expressions of a workspace's policies."""
    scope: dict[str, Term] = scope_of(features, currency)
    segments, wrong = parse_segments(policies.segments, scope)
    book = Rulebook(policies, scope | segments)
    book.problems += [(("segments", name), problem) for name, problems in wrong.items() for problem in problems]
    rules, weights = with_situations(policies, book.scope)
    order = sorted(rules, key=lambda name: STAGES.index(rules[name].stage))
    for name in order:
        rule, keeps = rules[name], rules[name].when is not None
        place = _place(name in policies.rules, "rules", name)
        if keeps == (rule.unless is not None):
            got = "both" if keeps else "neither"
            remedy = "`when: CONDITION` lets pass where it is true, `unless: CONDITION` where it is not."
            book.problems.append((place, ExpressionProblem(1, 1, "one of `when` and `unless`", got, remedy)))
            continue
        path = (*place, "when" if keeps else "unless")
        condition = _read(book, path, str(rule.when if keeps else rule.unless), book.scope, "boolean")
        if condition is not None:
            book.rules.append(ReadRule(name, rule, condition, keeps))
    for name, weight in weights.items():
        place = _place(name in policies.arbitration.weights, "arbitration", "weights", name)
        condition = _read(book, (*place, "when"), weight.when, book.scope, "boolean")
        if condition is not None:
            book.weights.append(ReadWeight(name, weight, condition))
    terms = {term: Term("term", "number") for term in FORMULA_TERMS}
    book.formula = _read(
        book, ("arbitration", "formula"), policies.arbitration.formula, {**book.scope, **terms}, "number"
    )
    return book


def _place(own: bool, *path: str) -> Path:
    """Return where a reader finds it: what the pack brings stands where the pack was taken in."""
    return path if own else ("situation_first",)


def _read(
    book: Rulebook, path: Path, text: str, scope: Scope, wants: Literal["boolean", "number"]
) -> Expression | None:
    found = parse(text, scope, wants)
    if isinstance(found, Expression):
        return found
    book.problems += [(path, problem) for problem in found]
    return None

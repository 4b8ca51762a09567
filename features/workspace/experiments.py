"""Experiments as they are read from their file: splits cut, conditions parsed, moments as numbers. What serving assigns
by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.bucketing import hashing, splits
from features.bucketing.splits import Range, Split
from features.bucketing.tools import TOOLS, WORDS, Cut, Words
from features.common.timestamps import parse_moment
from features.config.experiments import CONTROL_GROUPS, ControlGroups, Experiment, ExperimentsFile, Holdout
from features.config.faults import Path
from features.expressions.nodes import Term
from features.expressions.parse import Expression, parse
from features.expressions.scope import ExpressionProblem, Scope
from features.workspace.ramps import NOT_STARTED, RampState, control_of
from features.workspace.rulebook import FORMULA_TERMS, Rulebook

TARGETING_KINDS = ("customer", "context")
"""What a condition may speak of before any offer is looked at."""
NAMESPACE_BUCKETS = hashing.GROWTHBOOK_V1_BUCKETS
GROUP_BUCKETS = hashing.GROWTHBOOK_V2_BUCKETS


@dataclass(frozen=True, slots=True)
class ReadExperiment:
    """An experiment, ready to be asked.

    Attributes:
        arms: names, in the order of the split.
        control: the arm that others are compared with.
        targeting: None for everybody.
        start, end: microseconds since 1970, the end exclusive; None is without bound.
        namespace: takes a unit and says whether it is within the experiment's range; None where there is none.
        namespace_share: the part of all units that is within it.
        standing: where its ramp is; None where it has none.
    """

    key: str
    entry: Experiment
    arms: tuple[str, ...]
    control: str
    split: Split
    targeting: Expression | None
    formulas: dict[str, Expression]
    """By arm, those that change it."""
    start: int | None
    end: int | None
    namespace: Callable[[str], bool] | None
    namespace_share: float
    standing: RampState | None = None


@dataclass(frozen=True, slots=True)
class Experiments:
    """All experiments of a workspace, in the order of the file."""

    file: ExperimentsFile
    experiments: tuple[ReadExperiment, ...]


def read_experiments(
    file: ExperimentsFile, book: Rulebook, standings: Mapping[str, RampState] | None = None
) -> Experiments:
    """Read all expressions and cut all splits of a file in which `features/validation/experiments.py` found no fault.

    Args:
        book: of the workspace's policies, whose segments may be used.
        standings: where ramps are, by experiment; one that is not there was not started.
    """
    known = standings or {}
    read = [
        _read(key, entry, known.get(key, NOT_STARTED), *_expressions(key, entry, book)[:2])
        for key, entry in file.experiments.items()
    ]
    return Experiments(file, tuple(read))


def expression_problems(file: ExperimentsFile, book: Rulebook) -> list[tuple[Path, ExpressionProblem]]:
    """Return what is wrong in the expressions of a file, each with its place in it."""
    return [problem for key, entry in file.experiments.items() for problem in _expressions(key, entry, book)[2]]


def split_of(key: str, entry: Experiment, share: float = 0.0) -> Split:
    """Return the split of an experiment, as its tool would cut it.

    Args:
        share: of the ramped arm, where the experiment has a ramp.
    """
    if entry.ramp is not None:
        return _ramped(key, entry, entry.ramp.arm, share)
    return TOOLS[entry.hash].split(words_of(key, entry), cut_of(entry))


def _ramped(key: str, entry: Experiment, ramped: str, share: float) -> Split:
    raised, rest = splits.ramp_ranges(share)
    ranges = [raised if name == ramped else rest for name in entry.arms]
    return TOOLS[entry.hash].ramped(words_of(key, entry), ranges)


def words_of(key: str, entry: Experiment) -> Words:
    """Return what an experiment's tool hashes."""
    return Words(key, *(getattr(entry, word) for word in WORDS))


def cut_of(entry: Experiment) -> Cut:
    """Return how an experiment divides its units, by weights or by ranges."""
    arms = tuple(entry.arms.values())
    ranges = tuple(arm.ranges or () for arm in arms) if any(arm.ranges is not None for arm in arms) else None
    return Cut(tuple(arm.weight for arm in arms), ranges, entry.coverage)


def holdout_of(holdout: Holdout) -> Split:
    """Return the split of a holdout, whose arm 0 is held out."""
    return _groups(holdout.salt, (holdout.share,))


def control_groups_of(groups: ControlGroups) -> Split:
    """Return the arms of the control groups: those of `CONTROL_GROUPS`."""
    assert len(groups.shares) == len(CONTROL_GROUPS)
    return _groups(groups.salt, groups.shares)


def _groups(salt: str, shares: Sequence[float]) -> Split:
    return splits.by_ends(hashing.growthbook_v2(salt), GROUP_BUCKETS, [[one] for one in splits.side_by_side(shares)])


def _read(
    key: str, entry: Experiment, standing: RampState, targeting: Expression | None, formulas: dict[str, Expression]
) -> ReadExperiment:
    arms, control = tuple(entry.arms), control_of(entry)
    start, end = (None if text is None else parse_moment(text) for text in (entry.start, entry.end))
    within, share = _namespace(entry)
    split = split_of(key, entry, standing.share)
    ramp = None if entry.ramp is None else standing
    return ReadExperiment(key, entry, arms, control, split, targeting, formulas, start, end, within, share, ramp)


def _namespace(entry: Experiment) -> tuple[Callable[[str], bool] | None, float]:
    """Return whether a unit is in the namespace, and the part of units that is.

    It is GrowthBook's rule, whatever the experiment itself hashes by: `start <= v1("__" + name, unit) < end`.
    """
    if entry.namespace is None:
        return None, 1.0
    hash_ = hashing.growthbook_v1(f"__{entry.namespace.name}", entry.encoding)
    split = splits.by_ranges(hash_, NAMESPACE_BUCKETS, [[entry.namespace.range]])
    return (lambda unit: split(unit)[0] == 0), split.covered


def _expressions(
    key: str, entry: Experiment, book: Rulebook
) -> tuple[Expression | None, dict[str, Expression], list[tuple[Path, ExpressionProblem]]]:
    """Return the condition, the formulas by arm, and what is wrong with them."""
    problems: list[tuple[Path, ExpressionProblem]] = []
    targeting = None if entry.targeting is None else _targeting(entry.targeting, book.scope)
    if isinstance(targeting, list):
        problems += [(("experiments", key, "targeting"), problem) for problem in targeting]
        targeting = None
    formulas: dict[str, Expression] = {}
    scope = {**book.scope, **{term: Term("term", "number") for term in FORMULA_TERMS}}
    for name, arm in entry.arms.items():
        change = arm.changes.arbitration
        if change is None or change.formula is None:
            continue
        formula = parse(change.formula, scope, "number")
        if isinstance(formula, Expression):
            formulas[name] = formula
        else:
            path = ("experiments", key, "arms", name, "changes", "arbitration", "formula")
            problems += [(path, problem) for problem in formula]
    return targeting, formulas, problems


def _targeting(text: str, scope: Scope) -> Expression | list[ExpressionProblem]:
    found = parse(text, scope)
    if isinstance(found, Expression):
        foreign = [name for name in found.names if name.partition(".")[0] not in TARGETING_KINDS]
        if foreign:
            remedy = "Who takes part is known before any offer is looked at."
            return [
                ExpressionProblem(
                    1, 1, "columns of customer and context, and segments of them", f"`{foreign[0]}`", remedy
                )
            ]
    return found


def overlapping(ranges: Iterable[tuple[Range, str]]) -> list[tuple[str, str]]:
    """Return the names of ranges that share more than an end, each with one that begins before it."""
    found, reached = [], None
    for (start, end), name in sorted(one for one in ranges if one[0][0] < one[0][1]):
        if reached is not None and start < reached[0]:
            found.append((name, reached[1]))
        if reached is None or end > reached[0]:
            reached = (end, name)
    return found

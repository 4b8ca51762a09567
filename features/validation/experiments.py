"""Checks of experiments.yaml: every name exists, splits are whole, namespaces do not overlap, an arm changes only what
it may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from features.bucketing.splits import Range
from features.bucketing.tools import ROUNDING
from features.common.timestamps import parse_moment
from features.config.documents import Document
from features.config.experiments import Experiment, ExperimentsFile, Goals
from features.config.faults import Fault, Path
from features.validation.arm_changes import changes
from features.validation.arms import algorithms, arms, ramps
from features.workspace.experiments import expression_problems, overlapping
from features.workspace.rulebook import read_rules
from features.workspace.variants import VARIANTS_MAX, count
from features.workspace.workspace import Workspace

Check = Callable[[Workspace, Document, ExperimentsFile], Iterable[Fault]]


def faults_of_experiments(workspace: Workspace, document: Document, file: ExperimentsFile) -> list[Fault]:
    """Return all faults of a well-formed experiments.yaml, beside the other files of its workspace."""
    return [fault for check in EXPERIMENT_CHECKS for fault in check(workspace, document, file)]


def moments(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Start and end are moments that the calendar has, in this order."""
    for key, entry in file.experiments.items():
        found: list[int] = []
        for name, text in (("start", entry.start), ("end", entry.end)):
            if text is None:
                continue
            try:
                found.append(parse_moment(text))
            except (ValueError, OverflowError):
                remedy = "For example 2026-11-22 or 2026-11-22T09:30:00Z."
                yield document.fault(("experiments", key, name), "a moment that the calendar has", f"`{text}`", remedy)
        if len(found) == 2 and found[0] >= found[1]:
            yield document.fault(
                ("experiments", key, "end"), "a moment after start", f"`{entry.end}`", "The end is not part of it."
            )


def units(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """The account's column is a category of customer or context; it is there where an experiment wants it."""
    features = workspace.features
    known = [f"customer.{name}" for name, one in features.customer.attributes.items() if one.dtype == "category"]
    known += [f"context.{name}" for name, column in features.context.items() if column.dtype == "category"]
    if file.account is not None and file.account not in known:
        yield document.unknown(("account",), "a category of customer or context", file.account, known)
    for key, entry in file.experiments.items():
        if entry.unit == "account" and file.account is None:
            remedy = "For example `account: customer.household` at the top of the file."
            yield document.fault(
                ("experiments", key, "unit"), "a unit that the file knows", "`account`, without its column", remedy
            )
    if file.holdout is not None and file.control_groups is not None and file.holdout.salt == file.control_groups.salt:
        remedy = "Another salt for one of them: drawn alike, the holdout takes the units of the first groups away."
        yield document.fault(
            ("control_groups",), "another salt than that of `holdout`", f"`{file.holdout.salt}`", remedy
        )
    shares = 0.0 if file.control_groups is None else sum(file.control_groups.shares)
    if shares > 1 + ROUNDING:
        yield document.fault(
            ("control_groups",), "shares that add up to at most 1", f"{shares:g}", "A customer is in one group at most."
        )


def namespaces(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Experiments of a namespace have ranges apart and one unit; those that were stopped count no more."""
    members: dict[str, list[tuple[str, Experiment, Range]]] = {}
    for key, entry in file.experiments.items():
        if entry.namespace is None:
            continue
        start, end = entry.namespace.range
        if start >= end:
            path: Path = ("experiments", key, "namespace", "range")
            yield document.fault(
                path, "a range that begins before it ends", f"[{start:g}, {end:g}]", "For example [0, 0.5]."
            )
        elif entry.status != "stopped":
            members.setdefault(entry.namespace.name, []).append((key, entry, (start, end)))
    for name, listed in members.items():
        for one, other in overlapping((where, key) for key, _, where in listed):
            remedy = "Experiments of one namespace exclude each other; give each a range of its own."
            expected = f"a range of `{name}` apart from that of `{other}`"
            yield document.fault(("experiments", one, "namespace", "range"), expected, "an overlap", remedy)
        for (_, before, _), (key, entry, _) in pairwise(listed):
            for what in ("unit", "encoding"):
                if getattr(before, what) != getattr(entry, what):
                    remedy = "Otherwise they would not exclude each other."
                    got = f"`{getattr(entry, what)}` and `{getattr(before, what)}`"
                    yield document.fault(
                        ("experiments", key, what), f"one {what} in the namespace `{name}`", got, remedy
                    )


def expressions(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Targeting and formulas read, and speak of what is declared."""
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    for path, problem in expression_problems(file, book):
        place = (
            f", at line {problem.line}, column {problem.column} of the expression"
            if problem.column > 1 or problem.line > 1
            else ""
        )
        yield document.fault(path, problem.expected, problem.got + place, problem.remedy)


def variants(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """Arms of different experiments meet in one request; each combination that changes something is made ready by every
    server.
    """
    found = count(file)
    if found > VARIANTS_MAX:
        remedy = (
            "Put experiments that change decisions into one namespace, without `sticky`, so that they exclude each"
            " other; or stop some."
        )
        yield document.fault(
            ("experiments",), f"at most {VARIANTS_MAX} combinations of arms that change something", f"{found}", remedy
        )


def goals(workspace: Workspace, document: Document, file: ExperimentsFile) -> Iterable[Fault]:
    """A number has one bound."""
    places: list[tuple[Path, Goals]] = [(("goals",), file.goals)]
    places += [
        (("experiments", key, "goals"), entry.goals)
        for key, entry in file.experiments.items()
        if entry.goals is not None
    ]
    for path, one in places:
        for name in one.__struct_fields__:
            option = getattr(one, name)
            if option is not None and (option.cap is None) == (option.winsorize is None):
                got = "neither" if option.cap is None else "both"
                yield document.fault((*path, name), "`cap` or `winsorize`", got, "For example {winsorize: 0.99}.")


EXPERIMENT_CHECKS: tuple[Check, ...] = (
    algorithms,
    arms,
    ramps,
    moments,
    units,
    namespaces,
    expressions,
    changes,
    variants,
    goals,
)

"""What every part of the decision is worth: everybody who is decided as usual, against the holdout and against each
control group.

A group follows one known logic all the time, so that what is decided as usual is the treated arm and each group the
control of its own comparison: the lift over `random_propensity` is what the model is worth, that over `no_levers` what
the levers are, and so on. A unit counts from its first decision in the period on, in the group as among all others, and
for a window of the same length.

Groups last: what a unit did before its first decision was under its group too. So nothing is narrowed by the past here
(CUPED).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import duckdb
from msgspec import Struct
from msgspec.structs import replace

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import duration_seconds, rfc3339
from features.config.experiments import CONTROL_GROUPS
from features.lake import lake
from features.lake.lake import literal
from features.lake.loop_tables import GROUPS, USUAL
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import OFFER_END_WINDOW, ReportQuery, experiments_in
from pipelines.experiments.cohort import VIEW, NoExposures, Question, show_units
from pipelines.experiments.data import Read, read
from pipelines.experiments.outliers import HeldValues, Outlier
from pipelines.experiments.report import (
    ArmReport,
    CourseReport,
    ExperimentReport,
    GoalReport,
    GuardrailReport,
    ReportSettings,
    Subject,
)
from pipelines.experiments.split import SplitReport, split_report
from pipelines.experiments.verdicts import report_of, with_verdicts
from serving.decision.assignment import HOLDOUT, Assigner

WORTH = {
    HOLDOUT: "personalization",
    "random_eligible": "ranking at all",
    "propensity_only": "values, weights and levers",
    "no_levers": "levers",
    "eligibility_only": "rules of applicability and suitability",
    "random_propensity": "the model",
}
"""What everybody else has, and a group has not: the lift over the group is what that is worth."""
assert set(WORTH) == {HOLDOUT, *CONTROL_GROUPS}
TITLE = "decided as usual"
EACH = "each group"


class NoGroups(Failure):
    """There is neither a holdout nor a control group to report on."""


class PartReport(Struct, frozen=True):
    """Everybody who is decided as usual against one group. In goals and guardrails `control` is what the group has,
    `arm` is `usual`.

    Attributes:
        worth: what the lift is the worth of.
    """

    group: str
    worth: str
    goals: tuple[GoalReport, ...]
    guardrails: tuple[GuardrailReport, ...]
    courses: tuple[CourseReport, ...]


class GroupsReport(Struct, frozen=True, kw_only=True):
    """All of it; see `ExperimentReport`. `groups` begins with `usual`, and so do the tuples of `split` and
    `cumulative`.
    """

    at: str
    outcome: str
    window: str
    open_windows: bool
    decided_by: str
    correction: str
    detect: float
    split: SplitReport
    groups: tuple[ArmReport, ...]
    parts: tuple[PartReport, ...]
    not_recorded: tuple[str, ...]
    bounds: tuple[HeldValues, ...]
    outliers: tuple[Outlier, ...]
    days: tuple[str, ...]
    cumulative: tuple[tuple[int, ...], ...]


class DrawnGroups(NamedTuple):
    """The groups to report on, `usual` first, with the part of the units that today's file draws for each."""

    names: tuple[str, ...]
    shares: tuple[float, ...]


def groups_on(workspace: Workspace, asked: ReportQuery, settings: ReportSettings, now: Micros) -> GroupsReport:
    """Return the report of a workspace's groups, as the lake knows them.

    Args:
        now: microseconds since 1970.

    Raises:
        NoGroups: the file declares none, and the lake has none in this period.
    """
    con = lake.connect(workspace)
    try:
        # Whoever logs in may change groups: a unit is what a group was drawn from, be it an anonymous id that was
        # linked since.
        show_units(con, workspace, "anonymous")
        _in_period(con, asked)
        drawn = _drawn(con, workspace)
        question = _question(workspace, asked, drawn.names, now)
        try:
            found = read(con, question)
        except NoExposures as error:
            raise NoGroups(
                "expected decisions of the holdout and the control groups in the lake, got none"
                + (" between --since and --until" if asked.since is not None or asked.until is not None else "")
                + ": they are recorded from the first decision on that a server makes with `holdout` or"
                " `control_groups` in experiments.yaml"
            ) from error
    finally:
        con.close()
    return groups_report(found, question, drawn.shares, settings)


def _in_period(con: duckdb.DuckDBPyConnection, asked: ReportQuery) -> None:
    """Let the view of exposures begin with the period: of units that were there before, the first decision in it
    counts.
    """
    since = "" if asked.since is None else f" AND time >= make_timestamptz({asked.since}::BIGINT)"
    con.execute(f"CREATE TEMP TABLE of_period AS SELECT * FROM {VIEW} WHERE experiment = {literal(GROUPS)}{since}")
    con.execute(f"CREATE OR REPLACE VIEW {VIEW} AS SELECT * FROM of_period")


def _drawn(con: duckdb.DuckDBPyConnection, workspace: Workspace) -> DrawnGroups:
    """Return the groups of the file, and those that the lake still knows."""
    shares = {group.name or USUAL: group.probability for group in Assigner.of(experiments_in(workspace)).groups}
    seen = {str(name) for (name,) in con.execute(f"SELECT DISTINCT arm FROM {VIEW}").fetchall()}
    names = tuple(name for name, share in shares.items() if name == USUAL or share > 0 or name in seen)
    if len(names) == 1:
        raise NoGroups(
            "expected `holdout` or `control_groups` in experiments.yaml, got neither: with one of them, every part is"
            " measured"
        )
    return DrawnGroups(names, tuple(shares[name] for name in names))


def _question(workspace: Workspace, asked: ReportQuery, names: tuple[str, ...], now: Micros) -> Question:
    label = workspace.model.label
    return Question(
        experiment=GROUPS,
        arms=names,
        control=USUAL,
        outcome=asked.outcome or label.outcome,
        window_seconds=duration_seconds(
            asked.window or (OFFER_END_WINDOW if label.within == "offer_end" else label.within)
        ),
        now=now,
        until=asked.until,
        open_windows=asked.open_windows,
        goals=workspace.experiments.goals,
    )


def groups_report(found: Read, question: Question, shares: Sequence[float], settings: ReportSettings) -> GroupsReport:
    """Judge what was read.

    Args:
        question: its first arm is `usual`, and the others are groups.
        shares: of the arms, as the file says today.
    """
    settings = replace(settings, cuped=False)
    told = [
        report_of(*_pair(found, question, at), Subject(status="", shares=(shares[at], shares[0])), settings)
        for at in range(1, len(shares))
    ]
    judged = iter(with_verdicts([goal for one in told for goal in one.goals], settings))
    parts = [
        PartReport(name, WORTH[name], tuple(next(judged) for _ in one.goals), one.guardrails, one.courses)
        for name, one in zip(question.arms[1:], told, strict=True)
    ]
    arms = (told[0].arms[1], *(one.arms[0] for one in told))
    counts = [
        [of_pair[1] for of_pair in told[0].cumulative],
        *([of_pair[0] for of_pair in one.cumulative] for one in told),
    ]
    return GroupsReport(
        at=rfc3339(question.now),
        outcome=question.outcome,
        window=told[0].window,
        open_windows=question.open_windows,
        decided_by=told[0].decided_by,
        correction=settings.correction,
        detect=settings.detect,
        split=split_report(found, question, shares),
        groups=tuple(replace(arm, is_control=False) for arm in arms),
        parts=tuple(parts),
        not_recorded=told[0].not_recorded,
        bounds=found.bounds,
        outliers=found.outliers,
        days=told[0].days,
        cumulative=tuple(zip(*counts, strict=True)),
    )


def _pair(found: Read, question: Question, at: int) -> tuple[Read, Question]:
    """One group, as the control, and everybody else."""

    def two(of_all: Sequence[int]) -> tuple[int, ...]:
        return of_all[at], of_all[0]

    drawn = [
        day._replace(units=two(day.units), probabilities=(day.probabilities[at], day.probabilities[0]))
        for day in found.drawn
        if day.units[at] + day.units[0]
    ]
    one = found._replace(
        exposures=two(found.exposures),
        units=two(found.units),
        open=two(found.open),
        heard=two(found.heard),
        daily=tuple((day[at], day[0]) for day in found.daily),
        drawn=tuple(drawn),
        tallies=(),
    )
    return one, replace(question, arms=(question.arms[at], USUAL), control=question.arms[at])


def as_experiment(found: GroupsReport) -> ExperimentReport:
    """Return the same in the form of an experiment's report, for what draws and keeps those: in goals and courses, the
    arm is the group.
    """

    def named(part: PartReport) -> Iterator[GoalReport]:
        return (replace(goal, arm=part.group) for goal in part.goals)

    return ExperimentReport(
        experiment=TITLE,
        at=found.at,
        status="always",
        outcome=found.outcome,
        window=found.window,
        open_windows=found.open_windows,
        decided_by=found.decided_by,
        correction=found.correction,
        detect=found.detect,
        control=EACH,
        split=found.split,
        arms=found.groups,
        goals=tuple(goal for part in found.parts for goal in named(part)),
        guardrails=tuple(replace(one, arm=part.group) for part in found.parts for one in part.guardrails),
        not_recorded=found.not_recorded,
        bounds=found.bounds,
        outliers=found.outliers,
        days=found.days,
        cumulative=found.cumulative,
        courses=tuple(replace(course, arm=part.group) for part in found.parts for course in part.courses),
    )

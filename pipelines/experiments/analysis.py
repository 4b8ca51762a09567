"""An experiment of a workspace, from its files and its lake to the report; and the list of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import duration_seconds, rfc3339
from features.lake import lake
from features.workspace.experiments import Experiments, ReadExperiment, read_experiments
from features.workspace.ramps import RampState, standings_of
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from pipelines.experiments.cohort import Question, show_units, so_far
from pipelines.experiments.data import read
from pipelines.experiments.report import ExperimentReport, ReportSettings, Subject
from pipelines.experiments.verdicts import report_of
from pipelines.statistics.inference import ALPHA

FILE = "experiments.yaml"
OFFER_END_WINDOW = "14d"
"""Where the label lasts until the end of the offer, which is another for each offer."""


class UnknownExperiment(Failure):
    """No experiment has this key."""


class ListedExperiment(Struct, frozen=True):
    """One experiment of the list; `split` are the shares of the arms, in their order, `since` is None where the file
    names no start.

    `ramp` is the share of the ramped arm and what its ramp does, None where there is none.
    """

    experiment: str
    status: str
    unit: str
    arms: tuple[str, ...]
    split: tuple[float, ...]
    coverage: float
    since: str | None
    until: str | None
    exposures: int
    units: int
    ramp: str | None = None


class ReportQuery(Struct, frozen=True, kw_only=True):
    """What the caller wants otherwise than files say; see `Question`."""

    window: str | None = None
    outcome: str | None = None
    since: int | None = None
    until: int | None = None
    open_windows: bool = False


def experiments_in(workspace: Workspace) -> Experiments:
    """Return what `experiments.yaml` declared when the workspace was loaded, with its ramps as they are now."""
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    return read_experiments(workspace.experiments, book, standings_of(workspace.experiments, workspace.data))


def find(experiments: Experiments, key: str) -> ReadExperiment:
    """Return the experiment of this key.

    Raises:
        UnknownExperiment: there is none.
    """
    found = next((one for one in experiments.experiments if one.key == key), None)
    if found is None:
        known = ", ".join(one.key for one in experiments.experiments) or "none"
        raise UnknownExperiment(f"expected the key of an experiment of {FILE}, got {key!r}; there are: {known}")
    return found


def status_at(experiment: ReadExperiment, now: Micros) -> str:
    """Return what it does at a moment, in the words of assignments: `running`, or why not."""
    if experiment.entry.status != "running":
        return experiment.entry.status
    if experiment.start is not None and now < experiment.start:
        return "not started"
    return "ended" if experiment.end is not None and now >= experiment.end else "running"


def question_of(workspace: Workspace, experiment: ReadExperiment, asked: ReportQuery, now: Micros) -> Question:
    """Return what to ask the lake; the window and the outcome are those of the label unless others are asked for."""
    label = workspace.model.label
    window = asked.window or (OFFER_END_WINDOW if label.within == "offer_end" else label.within)
    return Question(
        experiment=experiment.key,
        arms=experiment.arms,
        control=experiment.control,
        outcome=asked.outcome or label.outcome,
        window_seconds=duration_seconds(window),
        now=now,
        since=asked.since,
        until=asked.until,
        open_windows=asked.open_windows,
        goals=experiment.entry.goals or workspace.experiments.goals,
    )


def report_on(
    workspace: Workspace, experiment: ReadExperiment, asked: ReportQuery, settings: ReportSettings, now: Micros
) -> ExperimentReport:
    """Return the report of an experiment, as the lake knows it.

    Args:
        now: microseconds since 1970.

    Raises:
        NoExposures: there is nothing to report on.
    """
    question = question_of(workspace, experiment, asked, now)
    con = lake.connect(workspace)
    try:
        show_units(con, workspace, experiment.entry.unit)
        found = read(con, question)
    finally:
        con.close()
    shares = (
        experiment.split.shares if any(experiment.split.shares) else (1 / len(experiment.arms),) * len(experiment.arms)
    )
    return report_of(found, question, Subject(status=status_at(experiment, now), shares=shares), settings)


def listed(workspace: Workspace, experiments: Sequence[ReadExperiment], now: Micros) -> list[ListedExperiment]:
    """Return all experiments in the order of the file, with what was exposed so far."""
    counts: dict[str, tuple[int, int]] = {}
    con = lake.connect(workspace)
    try:
        for kind in dict.fromkeys(one.entry.unit for one in experiments):
            show_units(con, workspace, kind)  # as the report counts them
            found = so_far(con)
            counts |= {one.key: found[one.key] for one in experiments if one.entry.unit == kind and one.key in found}
    finally:
        con.close()
    return [
        ListedExperiment(
            one.key,
            status_at(one, now),
            one.entry.unit,
            one.arms,
            tuple(round(share, 6) for share in one.split.shares),
            one.namespace_share * one.split.covered,
            None if one.start is None else rfc3339(one.start),
            None if one.end is None else rfc3339(one.end),
            *counts.get(one.key, (0, 0)),
            None if one.standing is None else said_of(one.standing),
        )
        for one in experiments
    ]


def said_of(standing: RampState) -> str:
    """Return where a ramp is, in a few words: `25% rising`."""
    state = standing.state.replace("_", " ")
    return state if standing.share <= 0 else f"{100 * standing.share:g}% {state}"


def metrics_of(found: ExperimentReport) -> dict[str, float]:
    """Return what MLflow keeps as numbers: P of the split, lifts and their P."""
    numbers: dict[str, float | None] = {
        "split_p": found.split.p,
        "split_alarm": float(found.split.alarm),
        "alpha": ALPHA,
    }
    for arm in found.arms:
        numbers[f"units/{arm.arm}"] = float(arm.units)
    for goal in found.goals:
        name = f"{goal.metric.replace(' ', '_')}/{goal.arm}"
        low, high = goal.sequential if found.decided_by == "sequential" else goal.fixed
        numbers |= {
            f"difference/{name}": goal.difference,
            f"lift/{name}": goal.lift,
            f"lift_low/{name}": low,
            f"lift_high/{name}": high,
            f"p/{name}": goal.p_corrected,
        }
    return {name: value for name, value in numbers.items() if value is not None}

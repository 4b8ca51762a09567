"""Experiments held against a simulated world: a run under them, through journal, event log and lake, and reports beside
the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from features.common.timestamps import now
from features.config.documents import BadWorkspace, Fault
from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import ReportQuery, experiments_in, find, report_on
from pipelines.experiments.cohort import so_far
from pipelines.experiments.report import ExperimentReport, GoalReport, ReportSettings
from pipelines.materialize import steps
from pipelines.output import console
from pipelines.shipping.ship import ship
from pipelines.world.experiments import EFFECT, FILE, KEYS, Clients, write_experiments
from pipelines.world.port import Port, Told
from pipelines.world.settings import DAY, NOW, WINDOW_DAYS, WorldSettings
from pipelines.world.visits import Visits
from pipelines.world.world import World
from pipelines.world_run.driver import Driven, drive, live_visits
from pipelines.world_run.in_process import DeskPort
from pipelines.world_run.over_http import HttpPort
from pipelines.world_run.steps import prepared, shift
from pipelines.world_run.truth import Expected, driven_in, everybody_in, expected_of

METRICS = ("conversion", "value per unit")
"""Goals of which the world knows the truth."""


class Judged(Struct, frozen=True):
    """A goal of a report beside the truth.

    Attributes:
        control, treated: the truth of all units, were all of them in that arm: P(converted), or euros.
        truth, lift: the true lift, and the report's; None where it says nothing yet.
        interval: of the report, as it decides: for any number of looks. `one_look`: for one.
        inside, inside_one_look: whether they hold the truth; None where there is no interval.
    """

    metric: str
    arm: str
    control: float
    treated: float
    truth: float
    lift: float | None
    interval: tuple[float | None, float | None]
    one_look: tuple[float | None, float | None]
    inside: bool | None
    inside_one_look: bool | None


class Rehearsed(Struct, frozen=True):
    """An experiment's report, and its goals beside the truth."""

    report: ExperimentReport
    judged: list[Judged]


class Rehearsal(Struct, frozen=True):
    """A run under experiments.

    Attributes:
        lost: exposures that happened, and that nobody was told of.
        shipped: rows that the run brought into the lake.
    """

    settings: WorldSettings
    decider: str
    decisions: int
    events: dict[str, int]
    told: Told | None
    conserved: bool | None
    degraded: dict[str, int]
    lost: int
    shipped: int
    experiments: list[Rehearsed]


def rehearse(
    world: World,
    folder: Path,
    decisions: int,
    url: str | None = None,
    key: str | None = None,
    tell: console.Told = lambda *_: None,
) -> Rehearsal:
    """Make what is missing, drive, ship, report, judge.

    Args:
        url: of a service that serves the folder; None decides in this process, at moments of the past.

    Raises:
        BadWorkspace: the folder has other experiments, was rehearsed in before, or its history ends too late.
        Refused: the decider does not answer, or decides about other offers.
    """
    write_experiments(world.settings, folder)
    ago = world.settings.live_days * DAY + WINDOW_DAYS * DAY
    workspace = prepared(folder, tell, ago) if url is None else load(folder, sources=False)
    moved, since = shift(workspace), now()
    _fresh(workspace, None if url is not None else NOW + moved + ago)
    visits, run = (
        live_visits(world, decisions),
        f"e{world.settings.seed}" if url is None else f"e{world.settings.seed}-{since:x}",
    )
    port: Port = DeskPort(workspace, NOW, moved, kept=True) if url is None else HttpPort(url, key)
    clients = Clients(port, run)
    try:
        driven = drive(world, visits, clients, run, moved, _named(tell, "decide"))
        clients.flush()
    finally:
        clients.close()
    tell("ship", None)
    with steps.quiet_warnings():
        shipped = ship(workspace).rows
    truths = _truths(world, workspace, visits, driven, moved, url is not None, tell)
    tell("report", None)
    asked = ReportQuery(open_windows=url is not None)
    found = experiments_in(workspace)
    reports = [report_on(workspace, find(found, one), asked, ReportSettings(), now()) for one in KEYS]
    return Rehearsal(
        world.settings,
        port.name,
        decisions,
        driven.events,
        port.told,
        None if port.told is None else port.told.conserved,
        driven.degraded,
        clients.lost,
        shipped,
        [Rehearsed(one, judged(one, *truths[one.experiment])) for one in reports],
    )


def _fresh(workspace: Workspace, closes: int | None) -> None:
    """Refuse a lake that has heard of these experiments, and a run whose last window closes in the future."""
    with lake.connect(workspace) as con:
        before = [key for key in so_far(con) if key in KEYS]
    remedy = "Name another folder: a second run of the same customers would count for the first."
    if before:
        raise BadWorkspace(
            [Fault(str(workspace.lake), "$", f"no exposures of {', '.join(KEYS)} yet", "some", remedy=remedy)]
        )
    if closes is not None and closes > now():
        expected, remedy = (
            "a history that ended long enough ago for the run to be over",
            "Name another folder, or drive a service: --url.",
        )
        raise BadWorkspace(
            [
                Fault(
                    str(workspace.folder / FILE),
                    "$",
                    expected,
                    "one that was imported for a run from now on",
                    remedy=remedy,
                )
            ]
        )


def _named(tell: console.Told, prefix: str) -> Callable[[str, float], None]:
    return lambda _, part: tell(prefix, part)


def _truths(
    world: World, workspace: Workspace, visits: Visits, driven: Driven, moved: int, is_service: bool, tell: console.Told
) -> dict[str, tuple[Expected, Expected]]:
    """By experiment, what is expected of all units in the control, and in the other arm. Of arms that do the same, of
    what was shown.
    """
    arms = workspace.experiments.experiments[EFFECT].arms
    both = [
        expected_of(
            world,
            driven_in(
                world,
                visits,
                everybody_in(workspace, EFFECT, arm),
                moved,
                is_service,
                _named(tell, f"everybody in {arm}"),
            ),
            is_service,
        )
        for arm in arms
    ]
    same = expected_of(world, driven, is_service)
    return {key: (both[0], both[1]) if key == EFFECT else (same, same) for key in KEYS}


def judged(found: ExperimentReport, control: Expected, treated: Expected) -> list[Judged]:
    """Return the goals of a report with two arms beside the truth, of those that the world knows."""
    goals = {goal.metric: goal for goal in found.goals}
    means = {
        metric: tuple(float(part.mean()) for part in of_arms)
        for metric, of_arms in zip(
            METRICS, ((control.converted, treated.converted), (control.value, treated.value)), strict=True
        )
    }
    return [_judged(goals[metric], *means[metric]) for metric in METRICS if metric in goals]


def _judged(goal: GoalReport, control: float, treated: float) -> Judged:
    truth = treated / control - 1 if control else 0.0
    holds = [_holds(ends, truth) for ends in (goal.sequential, goal.fixed)]
    return Judged(goal.metric, goal.arm, control, treated, truth, goal.lift, goal.sequential, goal.fixed, *holds)


def _holds(ends: tuple[float | None, float | None], truth: float) -> bool | None:
    low, high = ends
    return None if low is None or high is None else low <= truth <= high

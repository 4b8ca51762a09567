"""What the lake knows of a ramp: units of both arms, the split, and guardrails tested for harm.

Both tests hold at all looks together, however often somebody looks, and harm is tested at `ALPHA` over all guardrails
and steps of a plan: an arm that does no harm is rolled back for one of them in at most 5 of 100 ramps.
"""

from __future__ import annotations

from functools import reduce

import duckdb

from features.common.moments import Micros
from features.common.timestamps import duration_seconds
from features.config.experiments import Guardrails, Ramp
from features.lake import lake
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import (
    HALF,
    Evidence,
    RampState,
    Watched,
)
from features.workspace.workspace import Workspace
from pipelines.experiments.cohort import VIEW, NoExposures, Question, show_units
from pipelines.experiments.data import NUMBERS, Read, read
from pipelines.experiments.metrics import GOALS, GUARDRAILS, Metric
from pipelines.ramps.steps import plan_of
from pipelines.statistics.inference import ALPHA, ENOUGH_CONVERSIONS, ENOUGH_UNITS, compare, harm, harm_p_sequential
from pipelines.statistics.sample_ratio import mismatch_p_sequential
from pipelines.statistics.summaries import Summary, merged, nothing

MEASURED = {"conversion": "converted", "value": "value"}
"""Which number a guardrail is of, where it has another name."""
LAKE = "memory.main"
"""Where a connection to the lake has its views; a temporary view of the same name comes before them."""


def evidence_of(
    con: duckdb.DuckDBPyConnection, question: Question, standing: RampState, ramped: str, plan: Ramp
) -> Evidence:
    """Return what the lake knows of a ramp.

    Up to a share of one half both arms are equally large and nobody changes arms: all exposures since the ramp began
    count. Beyond, units of the control come to the arm with every step, and only what was exposed since then is
    compared.

    Args:
        con: a connection that has the lake's views; from then on it sees exposures since the ramp began only.
        question: with the window of the plan; its bounds are not used.
    """
    assert standing.begun is not None
    assert standing.since is not None
    con.execute(
        f"CREATE OR REPLACE TEMP VIEW {VIEW} AS SELECT * FROM {LAKE}.{VIEW} "
        f"WHERE experiment = {lake.literal(question.experiment)} AND time >= make_timestamptz({standing.begun}::BIGINT)"
    )
    places = question.arms.index(question.control), question.arms.index(ramped)
    shares = (standing.share, standing.share) if standing.share <= HALF else (1 - standing.share, standing.share)
    if min(shares) <= 0:
        return Evidence(lacks="there is no control left to compare with")
    try:
        found = read(con, question)
    except NoExposures as error:
        return Evidence(lacks=str(error))
    exposed = tuple(found.units[at] for at in places)
    totals = [reduce(merged, (day[at] for day in found.daily), nothing(len(NUMBERS))) for at in places]
    return Evidence(
        exposed=(exposed[0], exposed[1]),
        fresh=_fresh(con, question, places, standing.since),
        mismatch_p=float(mismatch_p_sequential(exposed, shares)),
        guardrails=_guardrails(plan, found, totals[0], totals[1]),
    )


def _fresh(con: duckdb.DuckDBPyConnection, question: Question, places: tuple[int, int], since: int) -> tuple[int, int]:
    """Return the units of both arms that were first exposed since a moment, and whose window is over."""
    counted = con.execute(
        f"SELECT count(*) FILTER (place = {places[0]}), count(*) FILTER (place = {places[1]}) FROM single "
        f"WHERE NOT is_open AND first >= make_timestamptz({since}::BIGINT)"
    ).fetchall()[0]
    return int(counted[0]), int(counted[1])


def _guardrails(plan: Ramp, found: Read, control: Summary, treated: Summary) -> tuple[Watched, ...]:
    tolerated = watched_of(plan.guardrails)
    return tuple(_watched(name, most, alpha_of(plan), found, control, treated) for name, most in tolerated.items())


def watched_of(guardrails: Guardrails) -> dict[str, float]:
    """Return the guardrails that are watched, with the harm that is tolerated."""
    return {name: most for name in guardrails.__struct_fields__ if (most := getattr(guardrails, name)) is not None}


def alpha_of(plan: Ramp) -> float:
    """At which one guardrail is tested, so that all tests of a plan together are wrong in at most `ALPHA`; steps by
    hand are not foreseen.

    Up to one half all looks are at the same units, and one test. Each step beyond, but for the last to all, is compared
    anew: another test.
    """
    anew = sum(HALF < step < 1 for step in plan.steps) + (plan.steps[0] <= HALF)
    return ALPHA / (max(anew, 1) * max(len(watched_of(plan.guardrails)), 1))


def _watched(name: str, tolerated: float, alpha: float, found: Read, control: Summary, treated: Summary) -> Watched:
    """Test one guardrail for more harm than is tolerated. The past narrows nothing here: after a restart it would be
    the arm's own.
    """
    metric = _metric(name)
    measure = metric.measure(found.recorded, use_before=False)
    if measure is None:
        return Watched(guardrail=name, tolerated=tolerated, verdict="not recorded")
    seen = compare(treated, control, measure)
    worse, error = harm(treated, control, measure, -1 if metric.role == "goal" else 1, tolerated)
    p, values = float(harm_p_sequential(worse, error, seen.units)), (float(seen.control), float(seen.treated))
    events = sum(float(one.means[NUMBERS.index(metric.events)] * one.units) for one in (treated, control))
    if not (
        min(float(treated.units), float(control.units)) >= ENOUGH_UNITS and events >= ENOUGH_CONVERSIONS and p == p
    ):
        return Watched(guardrail=name, tolerated=tolerated, verdict="too few yet")
    verdict = "harm" if p < alpha else "no harm shown"
    return Watched(guardrail=name, tolerated=tolerated, control=values[0], treated=values[1], p=p, verdict=verdict)  # type: ignore[arg-type]


def _metric(name: str) -> Metric:
    number = MEASURED.get(name, name)
    return next(metric for metric in (*GOALS, *GUARDRAILS) if metric.numerator == number)


def evidence_for(workspace: Workspace, experiment: ReadExperiment, now: Micros) -> Evidence:
    """Return what is known of an experiment's ramp; that nothing is known where it was not started."""
    plan, standing = plan_of(experiment)
    if standing.begun is None or standing.share <= 0:
        return Evidence(lacks="the ramp is not running")
    question = Question(
        experiment=experiment.key,
        arms=experiment.arms,
        control=experiment.control,
        outcome=workspace.model.label.outcome,
        window_seconds=duration_seconds(plan.window),
        now=now,
        goals=experiment.entry.goals or workspace.experiments.goals,
    )
    con = lake.connect(workspace)
    try:
        show_units(con, workspace, experiment.entry.unit)
        return evidence_of(con, question, standing, plan.arm, plan)
    finally:
        con.close()

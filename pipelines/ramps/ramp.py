"""One step of a ramp: what is known of its arms, whether the arm may have more units, and why.

`next_step` decides, from values alone. An arm rises by one step of its plan when the step has lasted, enough units were
watched, and no guardrail speaks of harm; it is rolled back as soon as one does, or when the split is broken, since harm
cannot be seen then. Both tests hold at all looks together, however often somebody looks, and harm is tested at `ALPHA`
over all guardrails and steps of a plan: an arm that does no harm is rolled back for one of them in at most 5 of 100
ramps.
"""

from __future__ import annotations

import logging
from functools import reduce
from typing import NamedTuple

import duckdb

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, duration_seconds, rfc3339
from features.config.experiments import Guardrails, Ramp
from features.config.faults import BadWorkspace
from features.lake import lake
from features.validation.load import load
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import (
    HALF,
    RECORD,
    Code,
    Evidence,
    RampLine,
    RampState,
    Verdict,
    Watched,
    Who,
    append,
    compared_of,
    plan_digest,
)
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import experiments_in, status_at
from pipelines.experiments.data import NUMBERS, VIEW, NoExposures, Question, Read, read, show_units
from pipelines.experiments.metrics import GOALS, GUARDRAILS, Metric
from pipelines.statistics.inference import ALPHA, ENOUGH_CONVERSIONS, ENOUGH_UNITS, compare, harm, harm_p_sequential
from pipelines.statistics.sample_ratio import MISMATCH_P, mismatch_p_sequential
from pipelines.statistics.summaries import Summary, merged, nothing

logger = logging.getLogger("opportune.ramping")

MEASURED = {"conversion": "converted", "value": "value"}
"""Which number a guardrail is of, where it has another name."""
RAMP_WAITS = ("units", "no_evidence")
"""Codes of steps that wait for data, rather than for time or for a person."""
LAKE = "memory.main"
"""Where a connection to the lake has its views; a temporary view of the same name comes before them."""


class Step(NamedTuple):
    """What is to become of a ramp."""

    verdict: Verdict
    share: float
    code: Code
    reason: str


class Looked(NamedTuple):
    """A look at a ramp; `line` is what was written down, None where nothing was."""

    standing: RampState
    evidence: Evidence
    step: Step
    line: RampLine | None


class NotRamped(Failure):
    """The experiment has no ramp, or one that cannot do what is asked now."""


def next_step(plan: Ramp, standing: RampState, evidence: Evidence, now: Micros) -> Step:
    """Return what is to become of a ramp, given all that is known.

    Args:
        now: microseconds since 1970.
    """
    share = standing.share
    if standing.since is None or standing.state in ("not_started", "rolled_back"):
        rolled = standing.state == "rolled_back"
        said = "it was rolled back" if rolled else "it was not started"
        return Step("hold", share, "rolled_back" if rolled else "not_started", f"{said}: --start begins")
    harm = _harm(evidence)
    if harm is not None:
        return Step("roll_back", 0.0, *harm)
    larger = next((step for step in plan.steps if step > share), None)
    if larger is None:
        return Step("hold", share, "finished", f"the last step of {_percent(share)} is reached")
    waits = _waits(plan, standing, evidence, now)
    if waits is None:
        is_last = larger == plan.steps[-1]
        reason = (
            f"{_percent(share)} lasted {_lasted(now - standing.since)}, with {min(evidence.fresh):,} new units an arm"
            " and no harm shown"
        )
        return Step("finish" if is_last else "proceed", larger, "last_step" if is_last else "next_step", reason)
    if plan.patience is not None and now - standing.since >= duration_seconds(plan.patience) * MICROSECONDS:
        return Step("roll_back", 0.0, "patience", f"after {plan.patience} it still cannot go on: {waits[1]}")
    return Step("hold", share, *waits)


def _harm(evidence: Evidence) -> tuple[Code, str] | None:
    if evidence.mismatch_p is not None and evidence.mismatch_p < MISMATCH_P:
        control, ramped = evidence.exposed
        return (
            "split",
            (
                f"the split is broken ({control:,} : {ramped:,} units, p = {evidence.mismatch_p:.2g}), so that harm"
                " cannot be seen"
            ),
        )
    harmed = [one for one in evidence.guardrails if one.verdict == "harm"]
    if harmed:
        said = "; ".join(
            f"{one.guardrail} {_number(one.treated)} against {_number(one.control)}, p = {one.p:.2g}" for one in harmed
        )
        return "guardrail", f"harm is shown: {said}"
    return None


def _waits(plan: Ramp, standing: RampState, evidence: Evidence, now: Micros) -> tuple[Code, str] | None:
    """Why the next step must wait; None when it need not."""
    assert standing.since is not None
    due = standing.since + duration_seconds(plan.hold) * MICROSECONDS
    if standing.is_damaged:
        return (
            "damaged",
            "a line of the record after the last step cannot be read: say by --to or --roll-back what holds",
        )
    if now < due:
        return "hold_time", f"the step lasts {plan.hold}, until {rfc3339(due)}"
    if evidence.lacks:
        return "no_evidence", evidence.lacks
    if min(evidence.fresh) < plan.units:
        return (
            "units",
            (
                f"{min(evidence.fresh):,} of {plan.units:,} units an arm were first exposed since the step began and"
                f" watched for {plan.window}"
            ),
        )
    if not any(one.verdict == "no harm shown" for one in evidence.guardrails):
        return "no_evidence", "no guardrail has data enough to speak of harm or none"
    return None


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
    """Units of both arms that were first exposed since a moment, and whose window is over."""
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
    """One guardrail, tested for more harm than is tolerated. The past narrows nothing here: after a restart it would be
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
    plan, standing = _plan(experiment)
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


def _plan(experiment: ReadExperiment) -> tuple[Ramp, RampState]:
    if experiment.entry.ramp is None or experiment.standing is None:
        raise NotRamped(
            f"expected an experiment with `ramp` in experiments.yaml, got {experiment.key}, which has none: add `ramp:"
            " {arm: …}`"
        )
    return experiment.entry.ramp, experiment.standing


def look(workspace: Workspace, experiment: ReadExperiment, now: Micros, who: Who, *, dry_run: bool = False) -> Looked:
    """Look at a ramp, and take the step that there is. A reason to wait is written down once a step.

    Raises:
        NotRamped: it has none, or is not running.
        BadRecord, OSError: the step could not be written down, and does not hold.
    """
    plan, standing = _plan(experiment)
    _require_running(experiment, now)
    evidence = evidence_for(workspace, experiment, now)
    step = next_step(plan, standing, evidence, now)
    is_news = step.verdict != "hold" or (
        standing.share > 0 and step.code not in standing.told and step.code != "finished"
    )
    line = write(workspace, experiment, step, now, who, evidence) if is_news and not dry_run else None
    return Looked(standing, evidence, step, line)


def write(
    workspace: Workspace,
    experiment: ReadExperiment,
    step: Step,
    now: Micros,
    who: Who,
    evidence: Evidence | None = None,
) -> RampLine:
    """Write a step down; from then on it holds.

    Raises:
        BadRecord, OSError: it could not be written, and does not hold.
    """
    plan, standing = _plan(experiment)
    line = RampLine(
        experiment=experiment.key,
        moment=rfc3339(now),
        arm=plan.arm,
        before=standing.share,
        share=step.share,
        verdict=step.verdict,
        code=step.code,
        reason=step.reason,
        who=who,
        compared=compared_of(experiment.entry),
        plan=plan_digest(plan),
        evidence=evidence,
    )
    append(workspace.data, line, standing.lines)
    return line


def start(experiment: ReadExperiment, reason: str, now: Micros) -> Step:
    """Return the step that begins a ramp, also after it was rolled back.

    Raises:
        NotRamped: it has begun already, or is not running.
    """
    plan, standing = _plan(experiment)
    _require_running(experiment, now)
    if standing.share > 0:
        raise NotRamped(
            f"expected a ramp that is not running, got {experiment.key} at {_percent(standing.share)}: --to moves it,"
            " --roll-back ends it"
        )
    return Step("start", plan.steps[0], "started", reason or "started by hand")


def by_hand(experiment: ReadExperiment, share: float, reason: str, now: Micros) -> Step:
    """Return the step to a share that a person wants; 0 rolls back.

    Raises:
        NotRamped: the ramp does not run, so that there is nothing to move.
    """
    _, standing = _plan(experiment)
    if standing.share <= 0:
        raise NotRamped(
            f"expected a ramp that runs, got {experiment.key}, which is {standing.state.replace('_', ' ')}: --start"
            " begins it"
        )
    if share <= 0:
        return Step("roll_back", 0.0, "by_hand", reason)
    _require_running(experiment, now)
    return Step("by_hand", share, "by_hand", reason)


def _require_running(experiment: ReadExperiment, now: Micros) -> None:
    status = status_at(experiment, now)
    if status != "running":
        raise NotRamped(
            f"expected a running experiment, got {experiment.key}, which is {status}: set `status: running` in"
            " experiments.yaml"
        )


def tend(workspace: Workspace, now: Micros) -> None:
    """Look at every ramp that runs, by what the files say now; for the background worker.

    Files with faults are what somebody is editing: servers go on by what they said before, and ramps by `workspace`, so
    that harm is rolled back.
    """
    if not (workspace.data / RECORD).exists():
        return  # nothing was ever started
    try:
        found = load(workspace.folder, sources=False)
    except BadWorkspace as bad:
        logger.warning("ramps go on by what the files said at the start: %s", bad)
        found = workspace
    for experiment in experiments_in(found).experiments:
        standing = experiment.standing
        if standing is None or standing.share <= 0 or status_at(experiment, now) != "running":
            continue
        try:
            line = look(found, experiment, now, "worker").line
        except (
            Failure,
            OSError,
            duckdb.Error,
        ) as error:  # a ramp that cannot be looked at must not keep others from it
            logger.warning("the ramp of %s waits for the next look: %s", experiment.key, error)
            continue
        if line is not None:
            told = logger.warning if line.verdict == "roll_back" else logger.info
            told("%s: %s at %s: %s", line.experiment, line.verdict.replace("_", " "), _percent(line.share), line.reason)


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _lasted(microseconds: int) -> str:
    seconds = microseconds / MICROSECONDS
    return f"{seconds / DAY_SECONDS:.1f} days" if seconds >= DAY_SECONDS else f"{seconds / 3_600:.1f} hours"

"""Look at a ramp, take its step, and write it down; or move it by hand."""

from __future__ import annotations

import logging
from typing import NamedTuple

import duckdb

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import rfc3339
from features.config.faults import BadWorkspace
from features.validation.load import load
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import (
    RECORD,
    Evidence,
    RampLine,
    RampState,
    Who,
    append,
    compared_of,
    plan_digest,
)
from features.workspace.workspace import Workspace
from pipelines.experiments.analysis import experiments_in, status_at
from pipelines.ramps.evidence import evidence_for
from pipelines.ramps.steps import NotRamped, Step, next_step, percent, plan_of

logger = logging.getLogger("opportune.ramping")


class Looked(NamedTuple):
    """A look at a ramp; `line` is what was written down, None where nothing was."""

    standing: RampState
    evidence: Evidence
    step: Step
    line: RampLine | None


def look(workspace: Workspace, experiment: ReadExperiment, now: Micros, who: Who, *, dry_run: bool = False) -> Looked:
    """Look at a ramp, and take the step that there is. A reason to wait is written down once a step.

    Raises:
        NotRamped: it has none, or is not running.
        BadRecord, OSError: the step could not be written down, and does not hold.
    """
    plan, standing = plan_of(experiment)
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
    plan, standing = plan_of(experiment)
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
    plan, standing = plan_of(experiment)
    _require_running(experiment, now)
    if standing.share > 0:
        raise NotRamped(
            f"expected a ramp that is not running, got {experiment.key} at {percent(standing.share)}: --to moves it,"
            " --roll-back ends it"
        )
    return Step("start", plan.steps[0], "started", reason or "started by hand")


def by_hand(experiment: ReadExperiment, share: float, reason: str, now: Micros) -> Step:
    """Return the step to a share that a person wants; 0 rolls back.

    Raises:
        NotRamped: the ramp does not run, so that there is nothing to move.
    """
    _, standing = plan_of(experiment)
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
            told("%s: %s at %s: %s", line.experiment, line.verdict.replace("_", " "), percent(line.share), line.reason)

"""The next step of a ramp, from values alone: whether the arm may have more units, and why.

An arm rises by one step of its plan when the step has lasted, enough units were watched, and no guardrail speaks of
harm; it is rolled back as soon as one does, or when the split is broken, since harm cannot be seen then.
"""

from __future__ import annotations

from typing import NamedTuple

from features.common.errors import Failure
from features.common.moments import Micros
from features.common.timestamps import DAY_SECONDS, MICROSECONDS, duration_seconds, rfc3339
from features.config.experiments import Ramp
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import (
    Code,
    Evidence,
    RampState,
    Verdict,
)
from pipelines.statistics.sample_ratio import MISMATCH_P

RAMP_WAITS = ("units", "no_evidence")
"""Codes of steps that wait for data, rather than for time or for a person."""


class Step(NamedTuple):
    """What is to become of a ramp."""

    verdict: Verdict
    share: float
    code: Code
    reason: str


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
        return Step("hold", share, "finished", f"the last step of {percent(share)} is reached")
    waits = _waits(plan, standing, evidence, now)
    if waits is None:
        is_last = larger == plan.steps[-1]
        reason = (
            f"{percent(share)} lasted {_lasted(now - standing.since)}, with {min(evidence.fresh):,} new units an arm"
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
    """Return why the next step must wait; None when it need not."""
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


def plan_of(experiment: ReadExperiment) -> tuple[Ramp, RampState]:
    """Return the plan of an experiment's ramp, and where it stands.

    Raises:
        NotRamped: it has none.
    """
    if experiment.entry.ramp is None or experiment.standing is None:
        raise NotRamped(
            f"expected an experiment with `ramp` in experiments.yaml, got {experiment.key}, which has none: add `ramp:"
            " {arm: …}`"
        )
    return experiment.entry.ramp, experiment.standing


def percent(share: float) -> str:
    """Return a share, 0 to 1, as people read it."""
    return f"{100 * share:g} %"


def _number(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def _lasted(microseconds: int) -> str:
    seconds = microseconds / MICROSECONDS
    return f"{seconds / DAY_SECONDS:.1f} days" if seconds >= DAY_SECONDS else f"{seconds / 3_600:.1f} hours"

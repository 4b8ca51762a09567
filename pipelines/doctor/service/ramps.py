"""Checks of ramps: those that wait, for what, and those that should have stepped and have not."""

from __future__ import annotations

from features.common.timestamps import MICROSECONDS, duration_seconds, rfc3339
from features.workspace.experiments import ReadExperiment
from features.workspace.ramps import RECORD, RampLine, read_record
from pipelines.doctor.facts.check import CannotSay, Finding, Seen
from pipelines.doctor.facts.gather import Facts
from pipelines.ramps.ramp import look
from pipelines.ramps.steps import RAMP_WAITS

OVERDUE_SECONDS = 600.0
"""The background worker looks every minute, or when a look takes long, less often."""


def ramps_wait(facts: Facts) -> Seen:
    """Ramps of running experiments wait for somebody: they were not started, were rolled back, lack data, or a step is
    overdue.
    """
    ramped = [one for one in facts.running if one.standing is not None]
    if not ramped:
        raise CannotSay("no running experiment has a ramp")
    found = [finding for one in ramped if (finding := _waits(facts, one)) is not None]
    return Seen(f"{len(ramped)} ramps, with what is known of their arms", found)


def _waits(facts: Facts, one: ReadExperiment) -> Finding | None:
    standing, plan = one.standing, one.entry.ramp
    assert standing is not None
    assert plan is not None
    key, last = one.key, _last(facts, one.key)
    evidence: dict[str, float | str] = {
        "experiment": key,
        "share": standing.share,
        "state": standing.state.replace("_", " "),
    }
    verb = f"`opportune experiment ramp {key}`"
    if standing.is_damaged:
        todo = f"Say by {verb} with `--to` or `--roll-back` what holds; until then nothing rises by itself."
        return Finding(
            "ramps_wait",
            "error",
            f"a line of the record of the ramp of {key} cannot be read: it may have been a roll back",
            evidence,
            todo,
        )
    if standing.state == "not_started":
        return Finding(
            "ramps_wait",
            "warning",
            f"{key} runs, and its ramp was never started: nobody is in it",
            evidence,
            f"Start it: {verb} with `--start`.",
        )
    since = "" if standing.since is None else rfc3339(standing.since)
    if standing.state == "rolled_back":
        why = "" if last is None else f": {last.reason}"
        todo = f"Find out why, then start it again ({verb} with `--start`) or stop the experiment."
        return Finding("ramps_wait", "warning", f"the ramp of {key} was rolled back{why}", evidence, todo, since)
    step = look(facts.workspace, one, facts.now, "command", dry_run=True).step
    due = (standing.since or 0) + duration_seconds(plan.hold) * MICROSECONDS
    late = (facts.now - due) / MICROSECONDS
    if step.verdict == "hold":
        if step.code not in RAMP_WAITS or late <= 0:
            return None
        todo = "It needs more traffic, a smaller `units`, or exposures and outcomes that arrive; " + (
            f"after {plan.patience} it is rolled back." if plan.patience else "without `patience` it waits for ever."
        )
        evidence |= {"waits_seconds": late}
        return Finding("ramps_wait", "warning", f"the ramp of {key} waits: {step.reason}", evidence, todo, rfc3339(due))
    if step.verdict == "roll_back":
        todo = (
            "The background worker takes it back within a minute or so; where none runs, start `opportune up`, or take"
            " it back by hand."
        )
        return Finding(
            "ramps_wait",
            "error",
            f"the ramp of {key} is to be rolled back, and is not yet: {step.reason}",
            evidence,
            f"{todo} {verb}",
        )
    if late <= OVERDUE_SECONDS:
        return None
    evidence |= {"late_seconds": late, "next_share": step.share}
    todo = "Run the background worker (`opportune up` does): nobody else takes steps by itself."
    return Finding("ramps_wait", "error", f"a step of the ramp of {key} is overdue", evidence, todo, rfc3339(due))


def _last(facts: Facts, key: str) -> RampLine | None:
    return next(
        (line for line in reversed(read_record(facts.workspace.data)) if line is not None and line.experiment == key),
        None,
    )


def ramps_record(facts: Facts) -> Seen:
    """Lines of the record of ramps cannot be read."""
    file = facts.workspace.data / RECORD
    if not file.exists():
        raise CannotSay("no ramp was ever started")
    lines = read_record(facts.workspace.data)
    damaged = sum(line is None for line in lines)
    if not damaged:
        return Seen(f"{len(lines)} lines of the record of ramps")
    evidence: dict[str, float | str] = {"lines": len(lines), "damaged": damaged}
    todo = (
        "Take the file from a backup, or say by `opportune experiment ramp` where each ramp stands: its next line"
        " holds."
    )
    return Seen(
        "the record of ramps", [Finding("ramps_record", "error", f"lines of {RECORD} are damaged", evidence, todo)]
    )


CHECKS = (ramps_wait, ramps_record)

"""The verb experiment ramp: look at a ramp and take its step, or move it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.common.moments import Micros
from features.common.timestamps import now, rfc3339
from features.config.faults import BadWorkspace
from features.validation.load import data_of, load
from features.workspace.workspace import Workspace
from pipelines.cli.experiments.experiment import verbs
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

if TYPE_CHECKING:
    from features.workspace.experiments import ReadExperiment
    from features.workspace.ramps import Evidence, RampLine
    from pipelines.ramps.ramp import Looked
    from pipelines.ramps.steps import Step

EPILOG = """\
Examples: [bold]opportune experiment ramp -w examples/grocery louder-loyalty --start[/bold]

[bold]opportune experiment ramp -w examples/grocery louder-loyalty[/bold]

[bold]opportune experiment ramp -w examples/grocery louder-loyalty --roll-back --reason "complaints"[/bold]
"""


def register(app: typer.Typer) -> None:
    """Add the verb of this module to `experiment`."""
    del app
    verbs.command("ramp", epilog=EPILOG)(ramp)


def ramp(
    key: Annotated[str, typer.Argument(help="Key of the experiment in experiments.yaml.")],
    workspace: Folder = HERE,
    begin: Annotated[
        bool, typer.Option("--start", help="Begin with the first step; again, after it was rolled back.")
    ] = False,
    to: Annotated[float | None, typer.Option("--to", help="Move the arm to this share: 0.25 is a quarter.")] = None,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Take the arm from everybody.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record; wanted with --to and --roll-back.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say which step would be taken, and take none.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Print the record of the ramp, and take no step.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Draw the share over time as PNG into this folder.")] = None,
    json: AsJson = False,
) -> None:
    """Look at the ramp of an experiment: where it is, what speaks for the next step and against it; and take that
    step.
    """
    from features.workspace.ramps import read_record
    from pipelines.experiments.analysis import experiments_in, find
    from pipelines.ramps import ramp as ramps
    from pipelines.ramps.steps import NotRamped

    _check(begin, to, roll_back, history, reason)
    try:
        found = load(workspace, sources=False)
    except BadWorkspace as bad:
        if not roll_back or dry_run:
            raise
        _roll_back_whatever_files_say(workspace, key, reason, bad, json)
        return
    experiment, moment = find(experiments_in(found), key), now()
    if experiment.entry.ramp is None:
        raise NotRamped(f"expected an experiment with `ramp` in experiments.yaml, got {key}: add `ramp: {{arm: …}}`")
    if history:
        _print_history([line for line in read_record(found.data) if line is not None and line.experiment == key], json)
    elif begin or to is not None or roll_back:
        share = 0.0 if roll_back else to or 0.0
        step = ramps.start(experiment, reason, moment) if begin else ramps.by_hand(experiment, share, reason, moment)
        if not dry_run:
            ramps.write(found, experiment, step, moment, "command")
        _print(experiment, step, None, not dry_run, json)
    else:
        looked = _look(found, experiment, moment, dry_run)
        _print(experiment, looked.step, looked.evidence, looked.line is not None, json)
    if plots is not None:
        from pipelines.ramps.plots import write_plot

        lines = [line for line in read_record(found.data) if line is not None and line.experiment == key]
        console.err.print(f"wrote {write_plot(key, lines, moment, plots)}", highlight=False)


def _check(begin: bool, to: float | None, roll_back: bool, history: bool, reason: str) -> None:
    from features.config.experiments import STEP_PARTS
    from features.workspace.ramps import REASON_CHARACTERS_MAX

    if sum((begin, to is not None, roll_back, history)) > 1:
        raise typer.BadParameter("expected one of --start, --to, --roll-back and --history, got several")
    if (to is not None or roll_back) and not reason.strip():
        raise typer.BadParameter("expected why, for the record, got nothing", param_hint="--reason")
    if len(reason) > REASON_CHARACTERS_MAX:
        raise typer.BadParameter(
            f"expected at most {REASON_CHARACTERS_MAX} characters, got {len(reason)}", param_hint="--reason"
        )
    if to is not None and not (0 < to <= 1 and abs(to * STEP_PARTS - round(to * STEP_PARTS)) < 1e-6):
        raise typer.BadParameter(
            f"expected a share of 0.001 to 1 in thousandths, got {to:g}; --roll-back is 0", param_hint="--to"
        )


def _roll_back_whatever_files_say(folder: Path, key: str, reason: str, bad: BadWorkspace, json: bool) -> None:
    """Files with faults keep no arm with customers: the record has all that is needed."""
    from features.workspace.ramps import roll_back

    line = roll_back(data_of(folder), key, reason, rfc3339(now()), "command")
    console.err.print(
        f"rolled back by the record alone, for the files have faults: {bad}", highlight=False, markup=False
    )
    _print_history([line], json)


def _look(workspace: Workspace, experiment: ReadExperiment, moment: Micros, dry_run: bool) -> Looked:
    from pipelines.ramps import ramp as ramps
    from pipelines.shipping.ship import ship

    with console.progress("experiment ramp") as tell, steps.quiet_warnings():
        tell("ship", None)
        ship(workspace)
        tell("look", None)
        return ramps.look(workspace, experiment, moment, "command", dry_run=dry_run)


def _print(experiment: ReadExperiment, step: Step, evidence: Evidence | None, is_written: bool, json: bool) -> None:
    """Print the step with what it rests on; for programs the same as one document."""
    plan, standing = experiment.entry.ramp, experiment.standing
    assert plan is not None
    assert standing is not None
    if json:
        told = {
            "experiment": experiment.key,
            "arm": plan.arm,
            "state": standing.state,
            "before": standing.share,
            "written": is_written,
        }
        console.as_json(told | step._asdict() | {"evidence": evidence})
        return
    if evidence is not None and not evidence.lacks:
        units = [
            ["exposed since the ramp began", *evidence.exposed],
            [f"new in this step, watched {plan.window}", *evidence.fresh],
        ]
        console.table("", ["units", f"{experiment.control} (control)", plan.arm], units)
        rows = [
            [one.guardrail, one.control, one.treated, one.tolerated, one.p, one.verdict] for one in evidence.guardrails
        ]
        console.table(
            "",
            ["guardrail", f"{experiment.control} (control)", plan.arm, "tolerated", "p (at all looks)", "verdict"],
            rows,
        )
        console.out.print(f"split: p = {evidence.mismatch_p:.3f} (at all looks)", highlight=False)
    change = (
        f"{100 * standing.share:g} % -> {100 * step.share:g} %"
        if step.share != standing.share
        else f"at {100 * step.share:g} %"
    )
    console.out.print(
        f"{experiment.key}: {plan.arm} {change}: {step.verdict.replace('_', ' ')}: {step.reason}",
        highlight=False,
        markup=False,
    )
    if step.share != standing.share:
        console.err.print(
            "servers take it within seconds" if is_written else "nothing was written: --dry-run", highlight=False
        )


def _print_history(lines: list[RampLine], json: bool) -> None:
    if json:
        console.as_json(lines)
        return
    rows = [
        [
            one.moment,
            one.who,
            one.verdict.replace("_", " "),
            f"{100 * one.before:g} %",
            f"{100 * one.share:g} %",
            one.reason,
        ]
        for one in lines
    ]
    console.table("", ["moment", "by", "verdict", "from", "to", "reason"], rows, 6)

"""The verb about the holdout and the control groups: experiment groups."""

from __future__ import annotations

from typing import Annotated

import typer

from features.common.timestamps import now
from features.validation.load import load
from pipelines.cli.experiments.experiment import keep_record, verbs
from pipelines.cli.experiments.options import Detect, OpenWindows, Outcome, Plots, Record, Sequential, correction_of
from pipelines.cli.options import HERE, AsJson, Folder, moment_of, window_of
from pipelines.materialize import steps
from pipelines.output import console

EPILOG = """\
Examples: [bold]opportune experiment groups -w examples/grocery --plots pictures[/bold]

[bold]opportune experiment groups -w examples/grocery --since 2026-11-01 --window 7d --json[/bold]
"""


def register(app: typer.Typer) -> None:
    """Add the verb to `experiment`."""
    del app
    verbs.command("groups", epilog=EPILOG)(groups)


def groups(
    workspace: Folder = HERE,
    window: Annotated[
        str | None,
        typer.Option(help="How long after its first decision a unit is watched, as 7d; the label's when absent."),
    ] = None,
    outcome: Outcome = None,
    since: Annotated[
        str | None, typer.Option(help="Begin with this date or moment: units count from their first decision then.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only units first decided for before this date or moment.")] = None,
    open_windows: OpenWindows = False,
    sequential: Sequential = True,
    correction: Annotated[str, typer.Option(help="Over goals and groups: holm, benjamini-hochberg or none.")] = "holm",
    detect: Detect = 0.05,
    plots: Plots = None,
    record: Record = True,
    json: AsJson = False,
) -> None:
    """Say what personalization, model, levers and rules are worth: everybody against the holdout and each control
    group.
    """
    from pipelines.experiments.analysis import ReportQuery
    from pipelines.experiments.control_groups import as_experiment, groups_on
    from pipelines.experiments.output.control_group_tables import print_groups
    from pipelines.experiments.report import ReportSettings
    from pipelines.shipping.ship import ship

    chosen = correction_of(correction)
    asked = ReportQuery(
        window=window_of(window),
        outcome=outcome,
        since=moment_of(since, "--since"),
        until=moment_of(until, "--until"),
        open_windows=open_windows,
    )
    found = load(workspace, sources=False)
    with console.progress("experiment groups") as tell, steps.quiet_warnings():
        tell("ship", None)
        ship(found)
        tell("read", None)
        made = groups_on(
            found, asked, ReportSettings(sequential=sequential, correction=chosen, detect=detect, cuped=False), now()
        )
    if json:
        console.as_json(made)
    else:
        print_groups(made)
    if plots is not None:
        from pipelines.experiments.output.plots import write_plots

        for file in write_plots(as_experiment(made), plots):
            console.err.print(f"wrote {file}", highlight=False)
    if record:
        keep_record(found, as_experiment(made), made)

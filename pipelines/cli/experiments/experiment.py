"""The verb `experiment` with verbs of its own: report, list and export; other modules add theirs to `verbs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from features.common.timestamps import now
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.experiments.options import Detect, OpenWindows, Outcome, Plots, Record, Sequential, correction_of
from pipelines.cli.options import HERE, AsJson, Folder, moment_of, window_of
from pipelines.materialize import steps
from pipelines.output import console

if TYPE_CHECKING:
    from pipelines.experiments.report import ExperimentReport

REPORT_EPILOG = """\
Examples: [bold]opportune experiment report -w examples/grocery louder-loyalty --plots pictures[/bold]

[bold]opportune experiment report -w examples/grocery louder-loyalty --window 7d --since 2026-11-01 --json[/bold]
"""


EXPORT_EPILOG = """\
Examples: [bold]opportune experiment export -w examples/grocery louder-loyalty[/bold]

[bold]opportune experiment export louder-loyalty --what exposures --format ndjson --out exposures.ndjson[/bold]
"""

verbs = typer.Typer(no_args_is_help=True, help="Experiments: read them, take their data elsewhere.")


def register(app: typer.Typer) -> None:
    """Add `experiment` with the verbs of this module; once."""
    app.add_typer(verbs, name="experiment")
    verbs.command("report", epilog=REPORT_EPILOG)(report)
    verbs.command("list", epilog="Example: [bold]opportune experiment list -w examples/grocery[/bold]")(list_)
    verbs.command("export", epilog=EXPORT_EPILOG)(export)


def report(
    key: Annotated[str, typer.Argument(help="Key of the experiment in experiments.yaml.")],
    workspace: Folder = HERE,
    window: Annotated[
        str | None,
        typer.Option(help="How long after its first exposure a unit is watched, as 7d; the label's when absent."),
    ] = None,
    outcome: Outcome = None,
    since: Annotated[str | None, typer.Option(help="Only units first exposed from this date or moment on.")] = None,
    until: Annotated[str | None, typer.Option(help="Only units first exposed before this date or moment.")] = None,
    open_windows: OpenWindows = False,
    sequential: Sequential = True,
    cuped: Annotated[
        bool, typer.Option("--cuped/--no-cuped", help="Narrow intervals by what units did before.")
    ] = True,
    correction: Annotated[str, typer.Option(help="Over goals and arms: holm, benjamini-hochberg or none.")] = "holm",
    detect: Detect = 0.05,
    plots: Plots = None,
    record: Record = True,
    json: AsJson = False,
) -> None:
    """Say what an experiment shows: whether the split is sound, lifts with intervals, guardrails, how long it still
    takes.
    """
    from pipelines.experiments.analysis import ReportQuery, experiments_in, find, report_on
    from pipelines.experiments.output.tables import print_report
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
    experiment = find(experiments_in(found), key)
    with console.progress("experiment report") as tell, steps.quiet_warnings():
        tell("ship", None)
        ship(found)
        tell("read", None)
        settings = ReportSettings(sequential=sequential, cuped=cuped, correction=chosen, detect=detect)
        made = report_on(found, experiment, asked, settings, now())
    if json:
        console.as_json(made)
    else:
        print_report(made)
    if plots is not None:
        from pipelines.experiments.output.plots import write_plots

        for file in write_plots(made, plots):
            console.err.print(f"wrote {file}", highlight=False)
    if record:
        keep_record(found, made)


def keep_record(workspace: Workspace, made: ExperimentReport, whole: object = None) -> None:
    """Keep a report in MLflow; a registry that is away costs the record, not the report.

    Args:
        whole: what `report.json` holds; the report itself when None.
    """
    import msgspec

    from pipelines.experiments.analysis import metrics_of
    from pipelines.experiments.output.plots import figures
    from training.bundle.registry import RegistryUnavailable, record_report

    tags = {"opportune.experiment": made.experiment, "opportune.alarm": str(made.split.alarm).lower()}
    texts = {"report.json": msgspec.json.format(msgspec.json.encode(made if whole is None else whole)).decode()}
    try:
        with steps.quiet_warnings():
            run = record_report(
                workspace, f"experiment {made.experiment}", metrics_of(made), tags, figures(made), texts
            )
    except RegistryUnavailable as error:
        console.err.print(f"not recorded: {error}", highlight=False, markup=False)
    else:
        console.err.print(f"recorded in MLflow as run {run}", highlight=False)


def list_(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Print all experiments: what they do now, arms and split, since when, exposures so far."""
    from pipelines.experiments.analysis import experiments_in, listed

    found = load(workspace, sources=False)
    rows = listed(found, experiments_in(found).experiments, now())
    if json:
        console.as_json(rows)
        return
    console.table(
        "",
        ["experiment", "status", "unit", "arms", "covered", "ramp", "since", "until", "exposures", "units"],
        [
            [
                one.experiment,
                one.status,
                one.unit,
                ", ".join(f"{arm} {share:.1%}" for arm, share in zip(one.arms, one.split, strict=True)),
                f"{one.coverage:.1%}",
                one.ramp,
                one.since,
                one.until,
                one.exposures,
                one.units,
            ]
            for one in rows
        ],
        4,
    )


def export(
    key: Annotated[str, typer.Argument(help="Key of the experiment in experiments.yaml.")],
    workspace: Folder = HERE,
    what: Annotated[
        Literal["assignments", "exposures"],
        typer.Option(help="The arms that all known units have now, or who was exposed to which arm, and when."),
    ] = "exposures",
    format: Annotated[Literal["parquet", "ndjson"], typer.Option(help="The form of the file.")] = "parquet",  # noqa: A002 (the option's name)
    out: Annotated[
        Path | None, typer.Option(help="The file; KEY-WHAT.FORMAT here when absent. One that is there is replaced.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Write an experiment's assignments or exposures as one file, for a warehouse."""
    from pipelines.experiments.export import write_assignments, write_exposures

    found = load(workspace, sources=False)
    file = out or Path(f"{key}-{what}.{format}")
    with console.progress("experiment export") as tell, steps.quiet_warnings():
        write = write_assignments if what == "assignments" else write_exposures
        rows = write(found, key, format, file, lambda stage: tell(stage, None))
    if json:
        console.as_json({"file": str(file), "rows": rows})
    else:
        console.out.print(f"{rows:,} {what} of {key} are in {file}.", highlight=False, markup=False)

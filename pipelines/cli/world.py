"""Verbs about simulated worlds: simulate-world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from features.common.timestamps import now
from features.validation.load import load
from pipelines.cli.options import AsJson, settled
from pipelines.output import console
from pipelines.world.settings import (
    CUSTOMERS_MAX,
    CUSTOMERS_MIN,
    DECISIONS_MAX,
    DECISIONS_MIN,
    OFFERS_MAX,
    OFFERS_MIN,
    SEED_MAX,
)

if TYPE_CHECKING:
    from pipelines.world_run.report import WorldReport

EPILOG = """\
Examples: [bold]opportune simulate-world world --customers 2000 --offers 60 --decisions 20000 --seed 7[/bold]

[bold]opportune simulate-world world --decisions 5000 --plots pictures[/bold]

[bold]opportune simulate-world rehearsal --experiments --plots pictures[/bold]

[bold]opportune simulate-world world --url http://127.0.0.1:3000[/bold], beside [bold]opportune serve -w world[/bold]
"""


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command("simulate-world", epilog=EPILOG)(simulate_world)


def simulate_world(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of the world: made when it is new or empty, used again when it holds one.", callback=settled
        ),
    ],
    customers: Annotated[
        int | None,
        typer.Option(help="Customers of a new world; 2,000 when absent.", min=CUSTOMERS_MIN, max=CUSTOMERS_MAX),
    ] = None,
    offers: Annotated[
        int | None, typer.Option(help="Offers of a new world; 60 when absent.", min=OFFERS_MIN, max=OFFERS_MAX)
    ] = None,
    decisions: Annotated[
        int, typer.Option(help="Visits of the run, each a decision.", min=DECISIONS_MIN, max=DECISIONS_MAX)
    ] = 20_000,
    seed: Annotated[int | None, typer.Option(help="Draws another world; 7 when absent.", min=0, max=SEED_MAX)] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Drive the service at this address, which serves the folder, instead of a desk here."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Key of the service, of the roles decide and events.", envvar="OPPORTUNE_KEY")
    ] = None,
    experiments: Annotated[
        bool,
        typer.Option(
            "--experiments",
            help="Run an A/A, an A/B and a broken experiment in a new world; hold reports against the truth.",
        ),
    ] = False,
    plots: Annotated[Path | None, typer.Option(help="Draw the pictures of the report as PNG into this folder.")] = None,
    json: AsJson = False,
) -> None:
    """Judge decisions by a made-up world whose truth is known: calibration, regret, new offers, bots, estimators,
    experiments.
    """
    from pipelines.world_run.tables import print_report

    if key is not None and url is None:
        raise typer.BadParameter("expected --url with it: a desk in this process asks for no key", param_hint="--key")
    if experiments:
        _rehearsed(folder, decisions, url, key, plots, json, customers=customers, offers=offers, seed=seed)
        return
    report = simulated(folder, decisions, url, key, customers=customers, offers=offers, seed=seed)
    if plots is not None:
        from pipelines.world_run.plots import write_plots

        for file in write_plots(report, plots):
            console.err.print(f"wrote {file}", highlight=False)
    if json:
        console.as_json(report)
    else:
        print_report(report)


def simulated(
    folder: Path, decisions: int, url: str | None = None, key: str | None = None, **wanted: int | None
) -> WorldReport:
    """Make what is missing, drive, judge.

    Args:
        wanted: settings of the world that were asked for.

    Raises:
        BadWorkspace: the folder holds something else, or another world.
        Refused: the decider does not answer, or decides about other offers.
    """
    from pipelines.world.port import Port
    from pipelines.world.settings import NOW
    from pipelines.world_run.driver import drive, live_visits
    from pipelines.world_run.in_process import DeskPort
    from pipelines.world_run.over_http import HttpPort
    from pipelines.world_run.report import judge
    from pipelines.world_run.steps import prepared, shift, world_in

    _served(folder, url)
    with console.progress("simulate-world") as tell:
        tell("world", None)
        world = world_in(folder, **wanted)
        workspace = load(folder, sources=False) if url is not None else prepared(folder, tell)
        moved, run = shift(workspace), f"w{world.settings.seed}"
        port: Port = DeskPort(workspace, NOW, moved) if url is None else HttpPort(url, key)
        try:
            driven = drive(
                world, live_visits(world, decisions), port, run if url is None else f"{run}-{now():x}", moved, tell
            )
        finally:
            port.close()
        tell("judge", None)
        return judge(world, driven, port.name)


def _rehearsed(
    folder: Path, decisions: int, url: str | None, key: str | None, plots: Path | None, json: bool, **wanted: int | None
) -> None:
    """Run the experiments of a world, and print reports beside the truth."""
    from pipelines.world_run.rehearsal import rehearse
    from pipelines.world_run.rehearsal_tables import print_rehearsal
    from pipelines.world_run.steps import world_in

    _served(folder, url)
    with console.progress("simulate-world") as tell:
        tell("world", None)
        found = rehearse(world_in(folder, **wanted), folder, decisions, url, key, tell)
    if plots is not None:
        from pipelines.experiments.output.plots import write_plots

        for one in found.experiments:
            truths = {goal.metric: goal.truth for goal in one.judged}
            for file in write_plots(one.report, plots / one.report.experiment, truths):
                console.err.print(f"wrote {file}", highlight=False)
    if json:
        console.as_json(found)
    else:
        print_rehearsal(found, folder)


def _served(folder: Path, url: str | None) -> None:
    """Refuse an address without a world that can be served there."""
    from pipelines.world.workspace import read_settings

    if url is not None and read_settings(folder) is None:
        raise typer.BadParameter(
            f"expected the folder of the world that the service serves, got {folder}, which is new or empty: run"
            " without --url first",
            param_hint="--url",
        )

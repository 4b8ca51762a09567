"""Verbs about policies: simulate, contacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.common.moments import Micros
from features.common.timestamps import now, parse_moment
from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

SAMPLE_MAX = 100_000


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune simulate -w examples/grocery --changes other/ --markdown[/bold]")(
        simulate
    )
    app.command(epilog="Example: [bold]opportune contacts -w examples/grocery --customer 1042[/bold]")(contacts)


def simulate(
    changes: Annotated[
        Path,
        typer.Option(help="Folder with the files that differ (policies.yaml, offers.yaml, …), or with all of them."),
    ],
    workspace: Folder = HERE,
    sample: Annotated[int, typer.Option(help="Decide so many past decisions again.", min=1, max=SAMPLE_MAX)] = 1_000,
    seed: Annotated[int, typer.Option(help="Draws another sample.", min=0)] = 1,
    placement: Annotated[str | None, typer.Option(help="Only decisions for this placement.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Decide as at this moment: a date, or a time with its offset; now when absent.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the report as JSON, Markdown and a picture into this folder.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request, instead of tables.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Decide past decisions again under changed files: who gets what, what binds, what it is worth. Changes nothing."""
    from pipelines.simulation.report import markdown as as_markdown
    from pipelines.simulation.report import print_report, write_report
    from pipelines.simulation.simulate import SimulationQuery
    from pipelines.simulation.simulate import simulate as run

    if markdown and json:
        raise typer.BadParameter("expected one of --json and --markdown, got both")
    moment = _moment(at)
    found = load(workspace, sources=False)
    with console.progress("simulate") as tell, steps.quiet_warnings():
        simulated = run(found, SimulationQuery(changes, sample, seed, moment, placement), tell)
        files = write_report(simulated, out) if out is not None else []
    if json:
        console.as_json(simulated)
    elif markdown:
        console.out.out(as_markdown(simulated), end="")
    else:
        print_report(simulated)
    if files:
        console.err.print(f"wrote {', '.join(map(str, files))}", highlight=False)


def _moment(text: str | None) -> Micros:
    if text is None:
        return now()
    try:
        return parse_moment(text)
    except ValueError as error:
        expected = "a date like 2026-11-22, or a time with its offset like 2026-11-22T09:30:00Z"
        raise typer.BadParameter(f"expected {expected}, got {text!r}", param_hint="--at") from error


def contacts(
    customer: Annotated[str, typer.Option(help="Id of the customer.")], workspace: Folder = HERE, json: AsJson = False
) -> None:
    """Print what a customer was shown and did, and what limits and pauses keep away now, and until when."""
    from pipelines.simulation.contact_card import card_of, print_card

    card = card_of(load(workspace, sources=False), customer, now())
    if json:
        console.as_json(card)
    else:
        print_card(card)

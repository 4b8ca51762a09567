"""The verb `experiment export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from features.workspace import load
from pipelines import show, steps
from pipelines.commands_data import HERE, AsJson, Folder
from pipelines.experiment_app import verbs

EPILOG = """\
Examples: [bold]opportune experiment export -w examples/grocery louder-loyalty[/bold]

[bold]opportune experiment export -w examples/grocery louder-loyalty --what exposures --format ndjson --out exposures.ndjson[/bold]
"""


def register(app: typer.Typer) -> None:
    """Add the verb of this module to `experiment`, which stands in the command already."""
    del app
    verbs.command("export", epilog=EPILOG)(export)


def export(
    key: Annotated[str, typer.Argument(help="Key of the experiment in experiments.yaml.")],
    workspace: Folder = HERE,
    what: Annotated[
        Literal["assignments", "exposures"],
        typer.Option(help="The arms that all known units have now, or who was exposed to which arm, and when."),
    ] = "exposures",
    format: Annotated[Literal["parquet", "ndjson"], typer.Option(help="The form of the file.")] = "parquet",  # noqa: A002 (the option's name)
    out: Annotated[Path | None, typer.Option(help="The file; KEY-WHAT.FORMAT here when absent. One that is there is replaced.")] = None,
    json: AsJson = False,
) -> None:
    """Write an experiment's assignments or exposures as one file, for a warehouse."""
    from pipelines.experiment_export import write_assignments, write_exposures

    found = load(workspace, sources=False)
    file = out or Path(f"{key}-{what}.{format}")
    with show.progress("experiment export") as tell, steps.quiet_warnings():
        write = write_assignments if what == "assignments" else write_exposures
        rows = write(found, key, format, file, lambda stage: tell(stage, None))
    if json:
        show.as_json({"file": str(file), "rows": rows})
    else:
        show.out.print(f"{rows:,} {what} of {key} are in {file}.", highlight=False, markup=False)

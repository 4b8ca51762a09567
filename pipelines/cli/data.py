"""Verbs about a workspace and its data: init, check, import, features, materialize."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from features.common.timestamps import now
from features.lake.tables import FIXED
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune init shop[/bold]")(init)
    app.command(epilog="Example: [bold]opportune check -w examples/grocery[/bold]")(check)
    app.command("import", epilog="Example: [bold]opportune import -w examples/grocery --json[/bold]")(import_)
    app.command(epilog="Example: [bold]opportune features -w examples/grocery[/bold]")(features)
    app.command(epilog="Example: [bold]opportune materialize -w examples/grocery[/bold]")(materialize)


def init(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet, or is empty.")], json: AsJson = False
) -> None:
    """Write a commented workspace to start from."""
    from pipelines.cli.starter import write_starter

    files = write_starter(folder)
    if json:
        console.as_json({"folder": str(folder), "files": files})
        return
    console.out.print(
        f"Wrote {', '.join(files)} to {folder}.\nNext: put your tables there, then [bold]opportune check -w"
        f" {escape(shlex.quote(str(folder)))}[/bold]",
        highlight=False,
    )


def check(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Cross-check all files of a workspace; every fault is shown with file, line, and the way out."""
    found = load(workspace)
    facts = {
        "workspace": found.settings.name,
        "sources": (
            sum(found.source(name) is not None for name in FIXED if name != "streams")
            + len(found.settings.sources.streams)
        ),
        "views": len(found.views),
        "columns": len(found.contract.columns),
        "placements": len(found.offers.placements),
        "contract": found.contract.fingerprint,
    }
    if json:
        console.as_json(facts)
    else:
        console.out.print(f"{found.settings.name}: no faults", highlight=False)
        console.table(
            "", ["part", "number"], [[name, facts[name]] for name in ("sources", "views", "columns", "placements")]
        )


def import_(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Read the workspace's tables into the lake; may be repeated, nothing is stored twice."""
    found = load(workspace)
    with steps.alone(found), console.progress("import") as tell:
        reports = steps.import_tables(found, now(), tell)
    if json:
        console.as_json(reports)
    else:
        from pipelines.importing.report import print_reports

        print_reports(reports)


def features(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Compute all windows at all moments that training needs, and now."""
    found = load(workspace)
    with steps.alone(found), console.progress("features") as tell:
        tell("windows", None)
        written = steps.compute_features(found, now())
    _counted(found, written, json)


def _counted(workspace: Workspace, written: dict[str, int], json: bool) -> None:
    if json:
        console.as_json(written)
    else:
        fields = {view.name: len(view.fields) for view in workspace.views}
        console.table(
            "Computed", ["view", "rows", "fields"], [[name, count, fields[name]] for name, count in written.items()]
        )


def materialize(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Bring the newest rows into the online store, read a sample back, and write the history that limits look at into
    the ledger.
    """
    found = load(workspace)
    with steps.alone(found), console.progress("materialize") as tell:
        if not steps.is_computed(found):
            tell("windows", None)
            steps.compute_features(found, now())
        tell("online store", None)
        compared = steps.materialize(found)
        brought = steps.bring_contacts(found, now(), tell)
    if json:
        console.as_json({"compared": compared, "store": found.online_url, "contacts": brought})
        return
    console.out.print(
        f"The online store ({found.online_url}) is filled; {compared} customers read back, all equal.", highlight=False
    )
    if brought is not None:
        console.out.print(f"The contact ledger has {brought}.", highlight=False)

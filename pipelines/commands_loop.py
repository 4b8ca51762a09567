"""Verbs of the loop: ship."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from features.moments import now
from features.workspace import load
from pipelines import show
from pipelines.commands_data import HERE, AsJson, Folder

Tidy = Annotated[bool, typer.Option(help="Also merge small files, and let go what is beyond its retention.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune ship -w examples/grocery --tidy[/bold]")(ship)


def ship(workspace: Folder = HERE, tidy: Tidy = False, json: AsJson = False) -> None:
    """Bring into the lake what servers recorded and were told; a running background worker does so by itself."""
    from pipelines.compacting import compact
    from pipelines.retention import retain
    from pipelines.shipping import ship as run

    found = load(workspace, sources=False)
    with show.progress("ship") as tell:
        loop = run(found, lambda done, everything: tell("decisions and events", done / max(everything, done, 1)))
        told: dict[str, Any] = {"loop": loop}
        if tidy:
            tell("merge", None)
            told |= {"merged": compact(found, now())._asdict(), "retained": retain(found, now())._asdict()}
    if json:
        show.as_json(told)
        return
    show.out.print(f"{loop.decisions:,} decisions and {loop.events:,} events were shipped as {loop.rows:,} rows.", highlight=False)
    show.table("In the lake", ["table", "rows"], [[name, count] for name, count in sorted(loop.shipped.items())])
    for name, count in loop.left_out.items():
        show.out.print(f"  in no table of their own: {count:,} of `{name}`", highlight=False)
    if loop.lost_bytes:
        show.out.print(f"  {loop.lost_bytes:,} bytes of journals were deleted before they were shipped.", highlight=False)

"""Verbs that look after a workspace: ship, doctor, rebuild, key new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from features.common.timestamps import now
from features.lmdb_store.verify import Verdict
from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

Tidy = Annotated[bool, typer.Option(help="Also merge small files, and let go what is beyond its retention.")]

keys = typer.Typer(help="Keys of the HTTP API.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune ship -w examples/grocery --tidy[/bold]")(ship)
    app.add_typer(keys, name="key")
    app.command(epilog="Example: [bold]opportune doctor -w examples/grocery --url http://127.0.0.1:3000[/bold]")(doctor)
    app.command(epilog="Example: [bold]opportune rebuild -w examples/grocery --ledger[/bold]")(rebuild)


def doctor(
    workspace: Folder = HERE,
    url: Annotated[str | None, typer.Option(help="Address of a running server, to be asked too.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Id of a check; may be repeated. All by default.")] = None,
    json: AsJson = False,
) -> None:
    """Say what is missing or suspicious, since when, and what to do; ends with 1 where something is wrong, warnings
    aside.
    """
    from pipelines.doctor.doctor import examine, show_report

    found = load(workspace, sources=False)
    with console.progress("doctor") as tell, steps.quiet_warnings():
        tell("looking", None)
        report = examine(found, now(), url, only or ())
    if json:
        console.as_json(report)
    else:
        show_report(report)
    if report.failed:
        raise typer.Exit(1)


def rebuild(
    workspace: Folder = HERE,
    online: Annotated[bool, typer.Option("--online", help="The rows of the online store.")] = False,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="Contact histories, what is new of customers, and budgets.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read every record and say what is damaged; change nothing.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="While servers run: what has a limit is not shown meanwhile.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Make the embedded stores again from the lake: both, or the one that is named. The old ones are kept under
    `damaged/`.
    """
    from pipelines.materialize import rebuild as rebuilding
    from pipelines.materialize.damage import STORES, look

    found = load(workspace, sources=False)
    if check:
        _check(look(found), json)
        return
    wanted = [name for name, chosen in (("online", online), ("ledger", ledger)) if chosen] or list(STORES)
    with steps.alone(found), console.progress("rebuild") as tell:
        done = rebuilding.rebuild(found, wanted, force=force, tell=tell)
    if json:
        console.as_json(done)
        return
    for one in done:
        console.out.print(rebuilding.told(one), highlight=False)


def _check(found: Mapping[str, Verdict], json: bool) -> None:
    if json:
        console.as_json(found)
    damaged = False
    for store, verdict in found.items():
        damaged |= bool(verdict.why)
        if not json:
            console.out.print(f"{store}: {verdict.why or f'{verdict.records:,} records, all whole'}", highlight=False)
    if damaged:
        raise typer.Exit(1)


def ship(workspace: Folder = HERE, tidy: Tidy = False, json: AsJson = False) -> None:
    """Bring into the lake what servers recorded and were told; a running background worker does so by itself."""
    from pipelines.shipping.compact import compact
    from pipelines.shipping.retention import retain
    from pipelines.shipping.ship import ship as run

    found = load(workspace, sources=False)
    with console.progress("ship") as tell:
        loop = run(found, lambda done, everything: tell("decisions and events", done / max(everything, done, 1)))
        told: dict[str, Any] = {"loop": loop}
        if tidy:
            tell("merge", None)
            told |= {"merged": compact(found, now())._asdict(), "retained": retain(found, now())._asdict()}
    if json:
        console.as_json(told)
        return
    console.out.print(
        f"{loop.decisions:,} decisions and {loop.events:,} events were shipped as {loop.rows:,} rows.", highlight=False
    )
    console.table("In the lake", ["table", "rows"], [[name, count] for name, count in sorted(loop.shipped.items())])
    for name, count in loop.left_out.items():
        console.out.print(f"  in no table of their own: {count:,} of `{name}`", highlight=False)
    if loop.lost_bytes:
        console.out.print(
            f"  {loop.lost_bytes:,} bytes of journals were deleted before they were shipped.", highlight=False
        )


@keys.command("new", epilog="Example: [bold]opportune key new shop-frontend --role decide[/bold]")
def key_new(
    name: Annotated[str, typer.Argument(help="Who will use it: lower case letters, digits, - and _.")],
    role: Annotated[list[str], typer.Option(help="decide, events, experiments or admin; may be repeated.")],
    json: AsJson = False,
) -> None:
    """Make a key: it is shown once, the entry for the key file holds only its hash."""
    from serving.http.auth import FILE_VARIABLE, entry_yaml, new_key

    key, entry = new_key(name, tuple(role))  # type: ignore[arg-type]
    if json:
        console.as_json({"key": key, "entry": entry})
        return
    console.err.print("The key, shown this once:", highlight=False)
    console.out.out(key)
    console.err.print(f"Its entry for the file that {FILE_VARIABLE} names (mode 600):", highlight=False)
    console.err.out(entry_yaml(entry))

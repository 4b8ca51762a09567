"""Verbs that look after a workspace: doctor, rebuild."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from features.lmdb_verify import Verdict
from features.moments import now
from features.workspace import load
from pipelines import show, steps
from pipelines.commands_data import HERE, AsJson, Folder


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune doctor -w examples/grocery --url http://127.0.0.1:3000[/bold]")(doctor)
    app.command(epilog="Example: [bold]opportune rebuild -w examples/grocery --ledger[/bold]")(rebuild)


def doctor(
    workspace: Folder = HERE,
    url: Annotated[str | None, typer.Option(help="Address of a running server, to be asked too.")] = None,
    json: AsJson = False,
) -> None:
    """Say what is missing or suspicious, since when, and what to do; ends with 1 where something is wrong, warnings aside."""
    from pipelines.doctor import examine, show_report

    found = load(workspace, sources=False)
    with show.progress("doctor") as tell, steps.quiet_warnings():
        tell("looking", None)
        report = examine(found, now(), url)
    if json:
        show.as_json(report)
    else:
        show_report(report)
    if report.failed:
        raise typer.Exit(1)


def rebuild(
    workspace: Folder = HERE,
    online: Annotated[bool, typer.Option("--online", help="The rows of the online store.")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="Contact histories, what is new of customers, and budgets.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Read every record and say what is damaged; change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="While servers run: what has a limit is not shown meanwhile.")] = False,
    json: AsJson = False,
) -> None:
    """Make the embedded stores again from the lake: both, or the one that is named. The old ones are kept under `damaged/`."""
    from pipelines import rebuilding

    found = load(workspace, sources=False)
    if check:
        _check(rebuilding.look(found), json)
        return
    wanted = [name for name, chosen in (("online", online), ("ledger", ledger)) if chosen] or list(rebuilding.STORES)
    with steps.alone(found), show.progress("rebuild") as tell:
        done = rebuilding.rebuild(found, wanted, force=force, tell=tell)
    if json:
        show.as_json(done)
        return
    for one in done:
        show.out.print(rebuilding.told(one), highlight=False)


def _check(found: Mapping[str, Verdict], json: bool) -> None:
    if json:
        show.as_json(found)
    damaged = False
    for store, verdict in found.items():
        damaged |= bool(verdict.why)
        if not json:
            show.out.print(f"{store}: {verdict.why or f'{verdict.records:,} records, all whole'}", highlight=False)
    if damaged:
        raise typer.Exit(1)

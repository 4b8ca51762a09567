"""The verb `events` with verbs of its own: list and resend, for dead letters of the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder, moment_of
from pipelines.materialize import steps
from pipelines.output import console

if TYPE_CHECKING:
    from features.events.dead_letters import LetterFilter
    from pipelines.events.resend import ResendReport

BODIES_MAX = 20
"""Letters that are shown with their bodies where no other number is given."""

LIST_EPILOG = """\
Examples: [bold]opportune events list -w examples/grocery[/bold]

[bold]opportune events list -w examples/grocery --reason offer-unknown --bodies --json[/bold]
"""
RESEND_EPILOG = """\
Examples: [bold]opportune events resend -w examples/grocery --dry-run[/bold]

[bold]opportune events resend -w examples/grocery --reason offer-unknown --since 2026-11-01[/bold]
"""

Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only letters of this reason; may be repeated.", metavar="CODE")
]
Since = Annotated[str | None, typer.Option(help="Only letters that were refused at this date or moment, or later.")]

verbs = typer.Typer(no_args_is_help=True, help="Dead letters of the event log: look at them, send them again.")


def register(app: typer.Typer) -> None:
    """Add `events` with the verbs of this module."""
    app.add_typer(verbs, name="events")
    verbs.command("list", epilog=LIST_EPILOG)(list_)
    verbs.command("resend", epilog=RESEND_EPILOG)(resend_)


def list_(
    workspace: Folder = HERE,
    reason: Reasons = None,
    since: Since = None,
    bodies: Annotated[
        bool, typer.Option("--bodies", help="Print what was sent, too, oldest first: it may name customers.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Print at most so many letters with --bodies.", min=1)] = BODIES_MAX,
    json: AsJson = False,
) -> None:
    """Say how many dead letters there are, by reason: items that clients sent and that could not be events."""
    import msgspec

    from pipelines.events.listing import listed

    wanted = _wanted(reason, since)
    told = listed(load(workspace, sources=False), wanted, limit if bodies else 0)
    if json:
        console.as_json(told)
        return
    if not told.letters:
        console.out.print("There are no dead letters.", highlight=False)
        return
    rows = [[one.reason, one.letters, one.oldest, one.newest] for one in told.reasons]
    console.table(f"{told.letters:,} dead letters", ["reason", "letters", "oldest", "newest"], rows)
    for one in told.bodies or ():
        console.out.out(f"{one.at} {one.reason} {msgspec.json.encode(one.body).decode()}", highlight=False)


def resend_(
    workspace: Folder = HERE,
    reason: Reasons = None,
    since: Since = None,
    limit: Annotated[int | None, typer.Option(help="Send at most so many, oldest first.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and change nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Send dead letters again that are events by now, for example because the files know the offer or the field since;
    the others stay. Servers may run meanwhile, and it may be done again: an event counts once.
    """
    from pipelines.events.resend import resend

    wanted = _wanted(reason, since)
    found = load(workspace, sources=False)
    with console.progress("events resend") as tell, steps.quiet_warnings():
        done = resend(found, wanted, events_max=limit, dry_run=dry_run, tell=tell)
    if json:
        console.as_json(done)
    else:
        _print(done)


def _wanted(reasons: list[str] | None, since: str | None) -> LetterFilter:
    from features.events.dead_letters import LetterFilter

    return LetterFilter(tuple(reasons or ()), moment_of(since, "--since"))


def _print(done: ResendReport) -> None:
    were = "would be" if done.dry_run else "were"
    lines = [
        (done.sent, f"{were} sent and {'would be' if done.dry_run else 'are'} in the event log"),
        (done.duplicates, "were in the event log already: their letters " + ("would go" if done.dry_run else "went")),
        (done.forgotten, "left out: their customers were forgotten"),
        (done.gone, "sent or deleted by another process meanwhile"),
    ]
    console.out.print(f"{done.looked_at:,} dead letters were looked at.", highlight=False)
    for count, text in lines:
        if count:
            console.out.print(f"  {count:,} {text}.", highlight=False)
    if done.refused:
        rows = [[one.reason, one.letters, one.expected] for one in done.refused]
        console.table("These stay", ["reason", "letters", "expected"], rows)

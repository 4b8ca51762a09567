"""The verb that forgets a customer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from features.common.errors import Failure
from features.validation.load import load
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

if TYPE_CHECKING:
    from pipelines.erasure.erase import ErasureReport

STDIN = "-"
ID_CHARACTERS_READ_MAX = 1_024


class ForgettingBegun(Failure):
    """Late events are refused and a part is done; what is left is gone on with later."""

    exit_status = 75
    """`EX_TEMPFAIL` of sysexits.h."""


def register(app: typer.Typer) -> None:
    """Add the verb of this module."""
    app.command("forget", epilog="Example: [bold]opportune forget -w examples/grocery 1042[/bold]")(forget_)


def forget_(
    customer_id: Annotated[
        str | None, typer.Argument(help="Id of the customer, or ~ and an anonymous id; - reads it from standard input.")
    ] = None,
    workspace: Folder = HERE,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="The id is an anonymous one.")] = False,
    resume_: Annotated[
        bool, typer.Option("--resume", help="Go on with what a crash or a busy workspace has left.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove a customer, and every anonymous id that is linked, from every place, and prove it."""
    from pipelines.erasure.erase import BadId, forget, resume, unit_named

    if (customer_id is None) != resume_:
        raise typer.BadParameter("expected either the id of a customer or --resume", param_hint="CUSTOMER_ID")
    found = load(workspace, sources=False)
    if customer_id is None:
        with console.progress("forget") as tell, steps.quiet_warnings():
            done = resume(found, tell)
        _told(done, json)
        return
    given = sys.stdin.readline(ID_CHARACTERS_READ_MAX).strip() if customer_id == STDIN else customer_id
    try:
        unit = unit_named(given, anonymous=anonymous)
    except BadId as error:
        raise typer.BadParameter(str(error), param_hint="CUSTOMER_ID") from error
    try:
        with console.progress("forget") as tell, steps.quiet_warnings():
            forgotten = forget(found, unit, tell)
    except (Failure, OSError) as error:
        raise ForgettingBegun(
            f"the forgetting was begun and is not done: {error}. The background worker goes on with it, or `opportune"
            " forget --resume`"
        ) from error
    _told([forgotten], json)


def _told(done: list[ErasureReport], json: bool) -> None:
    if json:
        console.as_json(done[0] if len(done) == 1 else done)
    else:
        for forgotten in done:
            _print(forgotten)
        if not done:
            console.out.print("Nothing is left to do.", highlight=False)
    if not all(forgotten.done for forgotten in done):
        raise typer.Exit(1)


def _print(forgotten: ErasureReport) -> None:
    rows = [
        [name, counted.found, counted.removed, counted.left, counted.how] for name, counted in forgotten.places.items()
    ]
    title = "Forgotten" if forgotten.done else "NOT wholly forgotten"
    console.table(f"{title}, what happened before {forgotten.at}", ["place", "found", "removed", "left", "how"], rows)
    proof = forgotten.proof
    console.out.print(
        f"{proof.files:,} files ({proof.bytes / 1e6:,.1f} MB) were looked through for the id: {proof.plaintext_hits}"
        f" hold it{': ' + ', '.join(proof.where) if proof.where else ''}. {forgotten.seconds:.1f} s.",
        highlight=False,
    )
    if proof.not_looked_for:
        console.out.print(
            "An id of one or two characters stands in any file by chance: the places that were read again are its"
            " proof.",
            highlight=False,
        )
    console.out.print(forgotten.sources, highlight=False)

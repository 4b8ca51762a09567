"""Verbs about what was published: decide for one customer here, and build a package."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from features.common.types import DecisionRequest
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.output import console


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(
        epilog=(
            "Example: [bold]opportune decide -w examples/grocery --customer 1042 --placement checkout --explain[/bold]"
        )
    )(decide)
    app.command(epilog="Example: [bold]bentoml serve $(opportune build -w examples/grocery)[/bold]")(build)


def decide(
    customer: Annotated[str, typer.Option(help="Id of the customer.")],
    placement: Annotated[str, typer.Option(help="Where the offers are to be shown.")],
    workspace: Folder = HERE,
    limit: Annotated[int | None, typer.Option(help="At most so many offers.", min=1, max=50)] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="A fact of the moment, as name=value; may be repeated.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show how the answer came about.")] = False,
    json: AsJson = False,
) -> None:
    """Decide for one customer, here and now, by the same code as the server, and print it."""
    import msgspec

    from pipelines.simulation.decide_once import decide_once, print_decision

    found = load(workspace, sources=False)
    facts = dict(_fact(found, text) for text in context or [])
    try:
        request = msgspec.convert(
            {"customer_id": customer, "placement": placement, "limit": limit, "context": facts, "explain": explain},
            DecisionRequest,
        )
    except msgspec.ValidationError as error:
        if str(error).endswith("`$.customer_id`"):
            expected = "1 to 64 letters, digits and . _ : @ + = | ~ -, the first a letter or digit"
            raise typer.BadParameter(f"expected {expected}, got {customer!r}", param_hint="--customer") from error
        raise typer.BadParameter(str(error)) from error
    decision = asyncio.run(decide_once(found, request))
    if json:
        console.as_json(decision)
    else:
        print_decision(decision)


def _fact(workspace: Workspace, text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    column = workspace.features.context.get(name)
    if not separator or column is None:
        known = ", ".join(workspace.features.context) or "none"
        raise typer.BadParameter(
            f"expected name=value with a declared name ({known}), got {text!r}", param_hint="--context"
        )
    if column.dtype == "category":
        return name, value
    if column.dtype == "boolean":
        return name, {"true": True, "false": False}.get(value, value)
    try:
        return name, int(value) if column.dtype == "integer" else float(value)
    except ValueError as error:
        raise typer.BadParameter(
            f"expected a {column.dtype} for {name}, got {value!r}", param_hint="--context"
        ) from error


def build(
    workspace: Folder = HERE,
    customers: Annotated[
        bool, typer.Option("--with-customers", help="Pack the customers' rows of the embedded store too.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Pack the published service as a bento that `bentoml serve` runs anywhere; prints its tag."""
    found = load(workspace, sources=False)
    from pipelines.deploy.package import build as run

    with console.progress("build") as tell:
        tell("bento", None)
        built = run(found, customers=customers)
    if found.online_url == "embedded" and not customers:
        console.err.print(
            "The bento holds no customers: name the workspace that has them where it is served"
            " (OPPORTUNE_WORKSPACE=/path/to/it), or pack their rows (--with-customers). Without, it answers everybody"
            " as unknown, and `degraded`.",
            highlight=False,
            soft_wrap=True,
        )
    if json:
        console.as_json({"tag": built.tag, "path": str(built.folder)})
    else:
        console.out.out(built.tag)

"""Verbs about keys of the HTTP API: key new."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines import show
from pipelines.commands_data import AsJson

key_app = typer.Typer(help="Keys of the HTTP API.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.add_typer(key_app, name="key")


@key_app.command("new", epilog="Example: [bold]opportune key new shop-frontend --role decide[/bold]")
def key_new(
    name: Annotated[str, typer.Argument(help="Who will use it: lower case letters, digits, - and _.")],
    role: Annotated[list[str], typer.Option(help="decide, events, experiments or admin; may be repeated.")],
    json: AsJson = False,
) -> None:
    """Make a key: it is shown once, the entry for the key file holds only its hash."""
    from serving.keys import FILE_VARIABLE, entry_yaml, new_key

    key, entry = new_key(name, tuple(role))  # type: ignore[arg-type]
    if json:
        show.as_json({"key": key, "entry": entry})
        return
    show.err.print("The key, shown this once:", highlight=False)
    show.out.out(key)
    show.err.print(f"Its entry for the file that {FILE_VARIABLE} names (mode 600):", highlight=False)
    show.err.out(entry_yaml(entry))

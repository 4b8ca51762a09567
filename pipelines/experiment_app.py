"""The verb `experiment`, which has verbs of its own: several modules add theirs."""

from __future__ import annotations

import typer

verbs = typer.Typer(no_args_is_help=True, help="Experiments: read them, take their data elsewhere.")


def register(app: typer.Typer) -> None:
    """Add `experiment` to the command; once."""
    app.add_typer(verbs, name="experiment")

"""Verbs about models: train, evaluate, publish, registry."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from features.common.timestamps import now
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.materialize import steps
from pipelines.output import console

Version = Annotated[str, typer.Option("--version", help="An alias or a version number of the registered model.")]

ALIAS = re.compile(r"(?!(latest|[vV]\d+)$)[A-Za-z0-9_-]{1,64}")
"""What MLflow takes as an alias, and a version number."""
VERSIONS_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune train -w examples/grocery[/bold]")(train)
    app.command(epilog="Example: [bold]opportune evaluate -w examples/grocery --json[/bold]")(evaluate)
    app.command(epilog="Example, going back: [bold]opportune publish -w examples/grocery --version 3[/bold]")(publish)
    app.command(
        epilog='Example: [bold]mlflow ui --backend-store-uri "$(opportune registry -w examples/grocery)"[/bold]'
    )(registry)


def train(
    workspace: Folder = HERE,
    promote: Annotated[bool, typer.Option(help="Make the version champion when it passes its gates.")] = True,
    json: AsJson = False,
) -> None:
    """Train on the recorded decisions, compare with the baselines, record in MLflow, and name the champion."""
    found = load(workspace)
    with steps.alone(found), console.progress("train") as tell:
        from pipelines.shipping.ship import ship
        from training.fitting.train import train as run

        tell("ship", None)
        ship(found)
        if not steps.is_computed(found):
            tell("features", None)
            steps.compute_features(found, now())
        with steps.quiet_warnings():
            trained = run(found, now(), tell, promote=promote)
    if json:
        console.as_json(trained.report)
        return
    print_report(trained.report)
    said = f"Version {trained.version} of {found.model.name}"
    if trained.promoted:
        console.out.print(
            f"{said} is now champion. Next: [bold]opportune publish -w {escape(shlex.quote(str(workspace)))}[/bold]",
            highlight=False,
        )
        return
    for reason in trained.report["gates"] if trained.report["gates"] != "passed" else ():
        console.out.print(f"[red]gate not passed[/red] {reason}.", highlight=False, soft_wrap=True)
    by_hand = f"[bold]opportune publish -w {workspace} --version {trained.version}[/bold]"
    console.out.print(
        f"{said} was recorded; the champion stays as it was. To serve it all the same: {by_hand}",
        highlight=False,
        soft_wrap=True,
    )


def evaluate(workspace: Folder = HERE, version: Version = "champion", json: AsJson = False) -> None:
    """Score a registered version on the test slice, beside the baselines."""
    found = load(workspace)
    from pipelines.shipping.ship import ship
    from training.fitting.evaluate import evaluate as run

    with console.progress("evaluate") as tell, steps.quiet_warnings():
        ship(found)
        number = _version(found, version)
        report = run(found, number, now(), tell)
    if json:
        console.as_json(report)
    else:
        print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """Print the model beside the baselines, and where time was cut."""
    models = {"model": report["model"], **report["baselines"]}
    keys = ["mrr", "ndcg@10", "hit_rate@3", "auc", "decision_auc", "log_loss", "ece"]
    console.table(
        f"{report['name']}: test slice",
        ["model", *keys],
        [[name, *(values.get(key) for key in keys)] for name, values in models.items()],
    )
    source = report["source"]
    console.out.print(f"Learnt from {source['used']} decisions: {source['why']}.", highlight=False)
    split = report["split"]
    rows = [
        [side, *(split[side][key] for key in ("decisions", "decisions_with_success", "rows", "successes"))]
        for side in ("training", "stopping", "test")
    ]
    rows = [[*row, split[str(row[0])]["from"][:10], split[str(row[0])]["to"][:10]] for row in rows]
    console.table(
        f"Cut at {split['cut'][:10]}", ["slice", "decisions", "with success", "rows", "successes", "from", "to"], rows
    )
    if split["moved_weeks"]:
        console.out.print(
            f"Times as the source says them; here they are moved forward by {split['moved_weeks']} weeks.",
            highlight=False,
        )
    if split["open_windows_in_test"]:
        console.out.print(
            f"{split['open_windows_in_test']} test decisions have an attribution window that is still open.",
            highlight=False,
        )
    for warning in report["warnings"]:
        console.out.print(f"[yellow]warning[/yellow] {warning}", highlight=False, soft_wrap=True)


def publish(
    workspace: Folder = HERE,
    version: Annotated[
        str | None,
        typer.Option("--version", help="An alias or a version number of the registered model; champion when absent."),
    ] = None,
    alias: Annotated[
        str,
        typer.Option(
            "--alias",
            help=(
                "Publish beside what serves, for arms of experiments that name this alias or version; with --version"
                " the alias is set first."
            ),
        ),
    ] = "",
    json: AsJson = False,
) -> None:
    """Verify a registered version, switch serving to it and name it champion; a running server takes it within
    seconds.
    """
    found = load(workspace)
    with steps.alone(found), console.progress("publish") as tell, steps.quiet():
        from training.bundle.registry import CHAMPION

        beside = bool(alias) and alias != CHAMPION
        number = _number(found, version, alias) if beside else _version(found, version or CHAMPION)
        tell(f"version {number}", None)
        place = (
            _published_beside(found, alias, number, name=version is not None) if beside else _published(found, number)
        )
    if json:
        console.as_json({"version": number, "bundle": place.name} | ({"alias": alias} if beside else {}))
        return
    serves = f"serves arms that name {alias}" if beside else "serves"
    console.out.print(f"Version {number} of {found.model.name} {serves}, as bundle {place.name}.", highlight=False)


def _published(workspace: Workspace, number: str) -> Path:
    from pipelines.deploy.publish import publish as run
    from training.bundle import registry

    place = run(workspace, number)
    if (
        registry.version_of(workspace, registry.CHAMPION) != number
    ):  # else the background worker would bring the champion back
        registry.set_alias(workspace, registry.CHAMPION, number)
    return place


def _published_beside(workspace: Workspace, alias: str, number: str, *, name: bool) -> Path:
    from pipelines.deploy.publish import publish_beside

    return publish_beside(workspace, alias, number, name=name and not alias.isdigit())


def _number(workspace: Workspace, version: str | None, alias: str) -> str:
    """Return the version to publish beside what serves: the one that is named, or else the one that the alias has."""
    if not ALIAS.fullmatch(alias):
        expected = "letters, digits, - and _, and neither `latest` nor `v` and a number"
        raise typer.BadParameter(f"expected {expected}, got {alias!r}", param_hint="--alias")
    number = _version(workspace, version or alias, alias if version is None else "")
    if alias.isdigit() and number != alias:
        raise typer.BadParameter(
            f"expected the name of an alias for version {number}, got {alias!r}, which is a version itself",
            param_hint="--alias",
        )
    return number


def _version(workspace: Workspace, wanted: str, unset_alias: str = "") -> str:
    """Return the number of a version or alias; say what there is where it is neither.

    Args:
        unset_alias: the alias that would get a version, were one named.
    """
    from training.bundle import registry

    number = registry.version_of(workspace, wanted)
    if number is not None:
        return number
    name = workspace.model.name
    versions, aliases = registry.names_of(workspace)
    if not versions:
        raise registry.UnknownVersion(
            f"expected a version of {name}, got `{wanted}`, and there is none yet: run `opportune train`"
        )
    more = f" and {len(versions) - VERSIONS_SHOWN} older ones" if len(versions) > VERSIONS_SHOWN else ""
    named = ", ".join(f"{alias} ({version})" for alias, version in aliases.items()) or "none"
    remedy = (
        f". Set it with `opportune publish --version {versions[0]} --alias {unset_alias}`"
        if unset_alias.strip("0123456789")
        else ""
    )
    raise registry.UnknownVersion(
        f"expected a version or an alias of {name}, got `{wanted}`; versions:"
        f" {', '.join(versions[:VERSIONS_SHOWN])}{more}; aliases: {named}{remedy}"
    )


def registry(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Print the address of the MLflow store, for MLflow's own tools."""
    loaded = load(workspace)
    from training.bundle.registry import address

    found = address(loaded)
    if json:
        console.as_json({"address": found})
    else:
        console.out.out(found)

"""Verbs about models: train, evaluate, publish, registry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from features.moments import now
from features.workspace import Workspace, load
from pipelines import show, steps
from pipelines.commands_data import HERE, AsJson, Folder

Version = Annotated[str, typer.Option("--version", help="An alias or a version number of the registered model.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune train -w examples/grocery[/bold]")(train)
    app.command(epilog="Example: [bold]opportune evaluate -w examples/grocery --json[/bold]")(evaluate)
    app.command(epilog="Example, going back: [bold]opportune publish -w examples/grocery --version 3[/bold]")(publish)
    app.command(epilog="Example: [bold]mlflow ui --backend-store-uri $(opportune registry -w examples/grocery)[/bold]")(registry)


def train(
    workspace: Folder = HERE,
    promote: Annotated[bool, typer.Option(help="Make the version champion when it passes its gates.")] = True,
    json: AsJson = False,
) -> None:
    """Train on the recorded decisions, compare with the baselines, record in MLflow, and name the champion."""
    found = load(workspace)
    with steps.alone(found), show.progress("train") as tell:
        from pipelines.shipping import ship
        from training.train import train as run  # takes seconds: a busy workspace is told of before

        tell("ship", None)
        ship(found)
        if not steps.is_computed(found):
            tell("features", None)
            steps.compute_features(found, now())
        with steps.quiet_warnings():
            trained = run(found, now(), tell, promote=promote)
    if json:
        show.as_json(trained.report)
        return
    print_report(trained.report)
    alias = "is now champion" if trained.promoted else "was recorded; the champion stays as it was"
    show.out.print(
        f"Version {trained.version} of {found.model.name} {alias}. Next: [bold]opportune publish -w {workspace}[/bold]", highlight=False
    )


def evaluate(workspace: Folder = HERE, version: Version = "champion", json: AsJson = False) -> None:
    """Score a registered version on the test slice, beside the baselines."""
    found = load(workspace)
    from pipelines.shipping import ship
    from training.evaluate import evaluate as run  # takes seconds: faults of the workspace are told of before

    with show.progress("evaluate") as tell, steps.quiet_warnings():
        ship(found)
        number = _version(found, version)
        report = run(found, number, now(), tell)
    if json:
        show.as_json(report)
    else:
        print_report(report)


def print_report(report: dict[str, Any]) -> None:
    """The model beside the baselines, and where time was cut."""
    models = {"model": report["model"], **report["baselines"]}
    keys = ["mrr", "ndcg@10", "hit_rate@3", "auc", "decision_auc", "log_loss", "ece"]
    show.table(
        f"{report['name']}: test slice", ["model", *keys], [[name, *(values.get(key) for key in keys)] for name, values in models.items()]
    )
    source = report["source"]
    show.out.print(f"Learnt from {source['used']} decisions: {source['why']}.", highlight=False)
    split = report["split"]
    rows = [
        [side, *(split[side][key] for key in ("decisions", "decisions_with_success", "rows", "successes"))]
        for side in ("training", "stopping", "test")
    ]
    rows = [[*row, split[str(row[0])]["from"][:10], split[str(row[0])]["to"][:10]] for row in rows]
    show.table(f"Cut at {split['cut'][:10]}", ["slice", "decisions", "with success", "rows", "successes", "from", "to"], rows)
    if split["moved_weeks"]:
        show.out.print(f"Times as the source says them; here they are moved forward by {split['moved_weeks']} weeks.", highlight=False)
    if split["open_windows_in_test"]:
        show.out.print(f"{split['open_windows_in_test']} test decisions have an attribution window that is still open.", highlight=False)
    for warning in report["warnings"]:
        show.out.print(f"[yellow]warning[/yellow] {warning}", highlight=False, soft_wrap=True)


def publish(
    workspace: Folder = HERE,
    version: Version = "champion",
    alias: Annotated[
        str, typer.Option("--alias", help="Publish this alias, or version, beside what serves: for arms of experiments that name it.")
    ] = "",
    json: AsJson = False,
) -> None:
    """Verify a registered version, switch serving to it and name it champion; a running server takes it within seconds."""
    found = load(workspace)
    if alias:
        _publish_beside(found, alias, json)
        return
    with steps.alone(found), show.progress("publish") as tell, steps.quiet():
        from pipelines.publishing import publish as run
        from training import registry

        number = _version(found, version)
        tell(f"version {number}", None)
        place = run(found, number)
        if registry.version_of(found, registry.CHAMPION) != number:  # else the background worker would bring the champion back
            registry.set_alias(found, registry.CHAMPION, number)
    if json:
        show.as_json({"version": number, "bundle": place.name})
    else:
        show.out.print(f"Version {number} of {found.model.name} serves, as bundle {place.name}.", highlight=False)


def _publish_beside(workspace: Workspace, alias: str, json: bool) -> None:
    with steps.alone(workspace), show.progress("publish") as tell, steps.quiet():
        from pipelines.publishing import publish_beside

        number = _version(workspace, alias)
        tell(f"version {number}", None)
        place = publish_beside(workspace, alias, number)
    if json:
        show.as_json({"version": number, "bundle": place.name, "alias": alias})
    else:
        text = f"Version {number} of {workspace.model.name} serves arms that name {alias}, as bundle {place.name}."
        show.out.print(text, highlight=False)


def _version(workspace: Workspace, wanted: str) -> str:
    from training import registry

    number = registry.version_of(workspace, wanted)
    if number is None:
        name = workspace.model.name
        raise registry.RegistryUnavailable(
            f"expected a version or an alias of {name}, got `{wanted}`, which it does not have: run `opportune train`"
        )
    return number


def registry(workspace: Folder = HERE, json: AsJson = False) -> None:
    """Print the address of the MLflow store, for MLflow's own tools."""
    loaded = load(workspace)
    from training.registry import address

    found = address(loaded)
    if json:
        show.as_json({"address": found})
    else:
        show.out.out(found)

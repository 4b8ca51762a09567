"""Verbs about serving: up, serve, decide, build."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from features.common.timestamps import now
from features.common.types import DecisionRequest
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.cli.options import HERE, AsJson, Folder
from pipelines.deploy.addresses import address_of, require_free
from pipelines.deploy.signals import Stopped, ignore_signals, stoppable
from pipelines.deploy.supervisor import Running, only_one, warming
from pipelines.materialize import steps
from pipelines.output import console
from pipelines.output.errors import JSON_OPTION
from pipelines.simulation.sampling import sampled
from serving.settings import KEEP_ALIVE_SECONDS, KEEP_ALIVE_SECONDS_MAX, KEEP_ALIVE_VARIABLE

Port = Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)]
Workers = Annotated[int, typer.Option(help="Worker processes that answer requests.", min=1, max=64)]
Host = Annotated[str, typer.Option(help="Address to listen on; any other than loopback needs keys.")]
KeepAlive = Annotated[
    float,
    typer.Option(
        help="Seconds for which a connection stays open without a request; longer than your balancer keeps it.",
        min=1,
        max=KEEP_ALIVE_SECONDS_MAX,
        envvar=KEEP_ALIVE_VARIABLE,
    ),
]
Logs = Annotated[
    Literal["files", "output"],
    typer.Option(
        help=(
            "Where logs go: files of the data folder, or standard output (with --json standard error), as containers"
            " want it."
        )
    ),
]
Ready = Annotated[
    bool,
    typer.Option(
        JSON_OPTION, help="Print one JSON document when the server is ready, or of what went wrong, and nothing else."
    ),
]

TRIED_MAX = 100
"""Customers that are asked about, to find some to show."""


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune up -w examples/grocery --workers 2[/bold]")(up)
    app.command(epilog="Example: [bold]opportune serve -w examples/grocery --port 3000[/bold]")(serve)
    app.command(
        epilog=(
            "Example: [bold]opportune decide -w examples/grocery --customer 1042 --placement checkout --explain[/bold]"
        )
    )(decide)
    app.command(epilog="Example: [bold]bentoml serve $(opportune build -w examples/grocery)[/bold]")(build)


def up(
    workspace: Folder = HERE,
    port: Port = 3000,
    workers: Workers = 1,
    host: Host = "127.0.0.1",
    keep_alive: KeepAlive = KEEP_ALIVE_SECONDS,
    logs: Logs = "files",
    json: Ready = False,
) -> None:
    """Do whatever is missing (import, features, training, publishing), then serve until Ctrl-C."""
    from pipelines.deploy.publish import serving_version

    _require_safe(host)
    address = address_of(host)
    found = load(workspace)
    with only_one(found):
        require_free(address, port)  # before the work, not after it
        with warming(found, wanted=serving_version(found) is None) as warm:
            _mend(found)
            with steps.alone(found):
                _prepare(found, warm)
        _serve(
            Running(found, port, address, keep_alive, _output(logs, json)),
            workspace,
            workers,
            background=True,
            json=json,
        )


def serve(
    workspace: Folder = HERE,
    port: Port = 3000,
    workers: Workers = 1,
    host: Host = "127.0.0.1",
    keep_alive: KeepAlive = KEEP_ALIVE_SECONDS,
    logs: Logs = "files",
    json: Ready = False,
) -> None:
    """Serve what was published, and nothing else, until Ctrl-C."""
    from pipelines.deploy.publish import require_published

    _require_safe(host)
    found = load(workspace, sources=False)
    require_published(found)
    _mend(found)
    _serve(
        Running(found, port, address_of(host), keep_alive, _output(logs, json)),
        workspace,
        workers,
        background=False,
        json=json,
    )


def _output(logs: str, json: bool) -> int | None:
    return None if logs == "files" else (sys.stderr if json else sys.stdout).fileno()


def _require_safe(host: str) -> None:
    from serving.http.auth import Keys, require_safe_bind

    require_safe_bind(host, Keys.from_environment())


def _mend(workspace: Workspace) -> None:
    """Stores that were damaged or lost are made again, before anything reads them."""
    if not steps.is_begun(workspace):
        return  # there are none yet

    from pipelines.materialize import rebuild

    rebuild.mend(workspace, _done)


def _prepare(workspace: Workspace, warm: Callable[[], None]) -> None:
    """Do the steps that are missing, each told of when it is done; `warm` waits for compiled code, before a model is
    rehearsed.
    """
    from pipelines.deploy.publish import publish, serving_version

    with console.progress(workspace.settings.name) as tell:
        if not steps.is_imported(workspace):
            from pipelines.importing.report import notes

            reports = steps.import_tables(workspace, now(), lambda table, part: tell(f"import {table}", part))
            _done(f"imported {sum(report.stored for report in reports):,} rows of {len(reports)} tables")
            for report in reports:
                for note in notes(report):
                    console.err.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
        if not steps.is_computed(workspace):
            tell("windows at every moment that training needs", None)
            written = steps.compute_features(workspace, now())
            _done(f"computed {sum(written.values()):,} rows of {len(written)} views")
        if not steps.is_materialized(workspace):
            tell("online store", None)
            _done(f"filled the online store; {steps.materialize(workspace)} customers read back, all equal")
        if not steps.are_contacts_brought(workspace):
            brought = steps.bring_contacts(workspace, now(), tell)
            if brought is not None:
                _done(f"wrote the contact ledger: {brought}")
        if serving_version(workspace) is None:
            _train_and_publish(workspace, tell, publish, warm)


def _train_and_publish(workspace: Workspace, tell: console.Told, publish: Any, warm: Callable[[], None]) -> None:
    tell("libraries and registry", None)
    from training.bundle import registry
    from training.bundle.bundle import BadBundle

    with steps.quiet_warnings():
        version = registry.version_of(workspace, registry.CHAMPION)
        tell("code that is compiled once a machine", None)
        warm()
        from training.fitting.train import train

        if version is not None:
            try:
                publish(workspace, version)
            except BadBundle as refused:
                _done(f"version {version} cannot serve: {refused}")
                version = None
        if version is None:
            trained = train(workspace, now(), tell)
            mrr, rivals = trained.report["model"]["mrr"], trained.report["baselines"]
            _done(
                f"trained version {trained.version}: MRR {mrr:.3f} (popularity {rivals['popularity']['mrr']:.3f},"
                f" random {rivals['random']['mrr']:.3f})"
            )
            for warning in trained.report["warnings"]:
                console.err.print(f"[yellow]warning[/yellow] {warning}", highlight=False, soft_wrap=True)
            if not trained.promoted:
                raise BadBundle(
                    f"the model did not pass its gates: {'; '.join(trained.report['gates'])}. Mend model.yaml, "
                    f"or serve it all the same: `opportune publish --version {trained.version}`."
                )
            version = trained.version
            tell("verify and publish", None)
            publish(workspace, version)
    _done(f"published version {version}")


def _done(text: str) -> None:
    console.err.print(f"[green]✓[/green] {text}", highlight=False)


def _serve(running: Running, shown: Path, workers: int, *, background: bool, json: bool) -> None:
    try:
        with stoppable():
            _run(running, shown, workers, background=background, json=json)
    except Stopped:
        ignore_signals()
        console.err.print("stopping; the data stays for the next start", highlight=False)
    finally:
        running.stop()


def _run(running: Running, shown: Path, workers: int, *, background: bool, json: bool) -> None:
    with console.progress("start") as tell:
        tell("server", None)
        running.start_server(workers)
        running.wait_ready()
        if background:
            running.start_worker()
    if json:
        console.as_json(
            {
                "workspace": str(running.workspace.folder),
                "url": running.base,
                "workers": workers,
                "process": os.getpid(),
            }
        )
    else:
        _greet(running, shown)
    running.wait()


def _greet(running: Running, shown: Path) -> None:
    """What to try next, with customers for whom there is something to see."""
    from serving.http.auth import Keys

    workspace, base, place = running.workspace, running.base, shlex.quote(str(shown))
    placement = next(iter(workspace.offers.placements))
    customers = _interesting(running, placement)
    key = " -H 'authorization: Bearer KEY'" if Keys.from_environment().configured else ""
    body = f'{{"customer_id":"{customers[0]}","placement":"{placement}","limit":3}}'
    where = f" (logs in {workspace.settings.data}/logs)" if running.output is None else ""
    lines = [
        f"[bold green]Serving[/bold green] {workspace.settings.name} on {base}{where}",
        "",
        "Ask for offers:",
        f"  curl -s {base}/v1/decisions{key} -H 'content-type: application/json' -d '{body}'",
        "See why:",
        f"  opportune decide -w {place} --customer {customers[0]} --placement {placement} --explain",
    ]
    if len(customers) > 1:
        lines += [
            "Another customer, other offers:",
            f"  opportune decide -w {place} --customer {customers[1]} --placement {placement}",
        ]
    lines += [
        "Look at the training run:",
        f'  mlflow ui --backend-store-uri "$(opportune registry -w {place})"',
        "",
        "Ctrl-C stops.",
    ]
    for line in lines:
        console.out.print(line.replace("[", "\\[") if line.startswith("  ") else line, highlight=False)


def _interesting(running: Running, placement: str) -> list[str]:
    """Return up to two customers whose answers are not empty and differ; the first ones where the server wants a key.

    Asked for as a flag client asks for all flags: nobody is exposed, nothing is recorded or taken.
    """
    import msgspec

    seen: dict[str, str] = {}
    found = sampled(running.workspace, TRIED_MAX)
    for customer in found:
        status, answer = running.ask("POST", "/ofrep/v1/evaluate/flags", {"context": {"targetingKey": customer}})
        if status != 200:
            return found[:2] or ["somebody"]
        flags = {flag["key"]: flag for flag in msgspec.json.decode(answer)["flags"]}
        offers = [offer["offer_id"] for offer in flags[f"offers.{placement}"].get("value", {}).get("offers", ())]
        if offers and str(offers) not in seen.values():
            seen[customer] = str(offers)
        if len(seen) == 2:
            break
    return list(seen) or ["somebody"]


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

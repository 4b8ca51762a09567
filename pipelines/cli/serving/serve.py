"""The verbs `up` and `serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from features.validation.load import load
from pipelines.cli.options import HERE, Folder
from pipelines.cli.serving.greeting import greet
from pipelines.cli.serving.prepare import mend, prepare
from pipelines.deploy.addresses import address_of, require_free
from pipelines.deploy.signals import Stopped, ignore_signals, stoppable
from pipelines.deploy.supervisor import Running, only_one, warming
from pipelines.materialize import steps
from pipelines.output import console
from pipelines.output.errors import JSON_OPTION
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


def register(app: typer.Typer) -> None:
    """Add the verbs of this module."""
    app.command(epilog="Example: [bold]opportune up -w examples/grocery --workers 2[/bold]")(up)
    app.command(epilog="Example: [bold]opportune serve -w examples/grocery --port 3000[/bold]")(serve)


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
            mend(found)
            with steps.alone(found):
                prepare(found, warm)
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
    mend(found)
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
        greet(running, shown)
    running.wait()

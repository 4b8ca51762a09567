"""The command `opportune`: one verb a step, each with `--help` and examples; errors are one line and a status that is
not zero.
"""

from __future__ import annotations

import os
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()
# OpenMP's threads wait asleep: spinning, two of them beside other work take five times the CPU. It is read once, by
# whatever library loads OpenMP first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from typing import Annotated  # noqa: E402

import typer  # noqa: E402
from rich.markup import escape  # noqa: E402

from features.common.clock import notice  # noqa: E402
from features.common.files import keep_private  # noqa: E402
from features.common.release import installed  # noqa: E402
from pipelines.cli import backup, decide, demo, events, maintenance, policy, world  # noqa: E402
from pipelines.cli import data as data_verbs  # noqa: E402
from pipelines.cli import erase as erase_verbs  # noqa: E402
from pipelines.cli import model as model_verbs  # noqa: E402
from pipelines.cli.experiments import experiment, groups, ramp  # noqa: E402
from pipelines.cli.serving import serve  # noqa: E402
from pipelines.deploy.signals import Stopped, heed_signals, ignore_signals, stoppable  # noqa: E402
from pipelines.output import console, errors  # noqa: E402

app = typer.Typer(
    name="opportune",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"Start here: [bold]opportune up -w examples/grocery[/bold]\n\nExit status: {errors.statuses()}.",
)


def _version(wanted: bool) -> None:
    if wanted:
        console.out.out(f"opportune {(installed() or ('', 'from a folder'))[1]}")
        raise typer.Exit


@app.callback()
def opportune(
    version_: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", callback=_version, is_eager=True, show_default=False
        ),
    ] = False,
) -> None:
    """Real-time personalization: which offers, in which order, for this customer, now."""
    del version_


for module in (
    data_verbs,
    model_verbs,
    serve,
    decide,
    policy,
    backup,
    maintenance,
    events,
    erase_verbs,
    demo,
    world,
    experiment,
    groups,
    ramp,
):
    module.register(app)


def main() -> None:
    """Run the command, and end the process with its status; what goes wrong is said in one line."""
    as_json = errors.wants_json(sys.argv[1:])
    heed_signals()
    if moved := notice():
        console.err.print(f"[yellow]warning[/yellow] {escape(moved)}", highlight=False, soft_wrap=True)
    try:
        with stoppable():
            keep_private()
            sys.exit(app(prog_name="opportune", standalone_mode=False))
    except Stopped as stopped:
        ignore_signals()
        sys.exit(errors.end_stopped(128 + stopped.number, as_json=as_json))
    except BrokenPipeError:
        errors.silence_output()
        sys.exit(errors.REFUSED)
    except Exception as error:  # noqa: BLE001 (an edge of the process)
        sys.exit(errors.end(error, as_json=as_json))


if __name__ == "__main__":
    main()

"""The command `opportune`: one verb a step, each with `--help` and examples; errors are one line and a status that is not zero."""

from __future__ import annotations

import os
import sys
import time

os.environ["TZ"] = "UTC"
time.tzset()

import signal  # noqa: E402
from types import FrameType  # noqa: E402

import typer  # noqa: E402
from rich.markup import escape  # noqa: E402

from features.clock import notice  # noqa: E402
from features.failures import Failure  # noqa: E402
from pipelines import (  # noqa: E402
    commands_backup,
    commands_care,
    commands_data,
    commands_demo,
    commands_experiment,
    commands_experiment_export,
    commands_experiment_groups,
    commands_forget,
    commands_loop,
    commands_model,
    commands_policy,
    commands_ramp,
    commands_serve,
    commands_world,
    experiment_app,
    show,
)
from pipelines.processes import Stopped, ignore_signals  # noqa: E402
from serving.keys import BadKeys  # noqa: E402

app = typer.Typer(
    name="opportune",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Real-time personalization: which offers, in which order, for this customer, now.",
    epilog="Start here: [bold]opportune up -w examples/grocery[/bold]",
)
for module in (
    commands_data,
    commands_model,
    commands_serve,
    commands_policy,
    commands_loop,
    commands_backup,
    commands_care,
    commands_forget,
    commands_demo,
    commands_world,
    commands_experiment,
    experiment_app,
    commands_experiment_export,
    commands_experiment_groups,
    commands_ramp,
):
    module.register(app)


def main() -> None:
    """Run the command; what can be expected to go wrong is said in one line, anything else shows where it happened."""
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell that started us in the background ignores them
        signal.signal(number, _stop)
    if moved := notice():
        show.err.print(f"[yellow]warning[/yellow] {escape(moved)}", highlight=False, soft_wrap=True)
    try:
        app(standalone_mode=True)
    except (Failure, BadKeys) as error:
        sys.exit(_refused(str(error)))
    except OSError as error:
        sys.exit(_refused(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
    except Stopped as stopped:
        ignore_signals()
        show.err.print("stopped; what is done stays done")
        sys.exit(128 + stopped.number)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    raise Stopped(number)


def _refused(text: str) -> int:
    show.err.print(f"[red]opportune:[/red] {escape(text)}", highlight=False)
    return 1


if __name__ == "__main__":
    main()

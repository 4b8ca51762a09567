"""How the command ends when something goes wrong: one line on standard error, with `--json` one document on standard
output too.

The statuses are in `STATUSES`, which the help and docs/install.md show.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.markup import escape

from features.common.errors import Failure
from features.common.files import ROOT, free_bytes, is_full, told_full
from features.config.faults import FAULTS_MAX, BadWorkspace
from pipelines.output import console, missing_libraries
from serving.http.auth import BadKeys

DONE, REFUSED, USAGE, BROKEN = 0, 1, 2, 70
STATUSES: dict[int, str] = {
    DONE: "done",
    REFUSED: "refused, failed, or faults were found",
    USAGE: "the command line itself is wrong",
    BROKEN: "a fault of the program",
    75: "begun and not finished; it is gone on with later",
    130: "stopped by Ctrl-C (SIGINT)",
    143: "stopped by SIGTERM",
}
TRACEBACK_VARIABLE = "OPPORTUNE_TRACEBACK"
JSON_OPTION = "--json"
WORKSPACE_OPTIONS = ("-w", "--workspace")
TYPE_PREFIX = "urn:opportune:error:"

UsageError: type[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""The base of what Typer raises about a command line; it has no public name."""


class FaultPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault of a workspace's files: where it is, what was expected, what came, and the way out."""

    file: str
    line: int | None
    path: str
    expected: str
    got: str
    remedy: str = ""


class CommandProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What went wrong, as RFC 9457 names it; in place of the HTTP status the exit status."""

    type: str
    title: str
    exit_status: int
    detail: str
    errors: tuple[FaultPlace, ...] = ()


def wants_json(arguments: list[str]) -> bool:
    """Return whether the command line asks for JSON; asked of its words, for it may be one that cannot be parsed."""
    return JSON_OPTION in arguments[: arguments.index("--") if "--" in arguments else None]


def end(error: Exception, *, as_json: bool) -> int:
    """Say what went wrong, and return the status with which the process ends."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed, which is the answer
        return USAGE
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    return _told(problem_of(error), as_json=as_json)


def end_stopped(status: int, *, as_json: bool) -> int:
    """Say that a signal ended the command, and return the status with which the process ends."""
    problem = CommandProblem(f"{TYPE_PREFIX}stopped", STATUSES[status], status, "stopped; what is done stays done")
    return _told(problem, as_json=as_json)


def _told(problem: CommandProblem, *, as_json: bool) -> int:
    if as_json:
        console.as_json(problem)
    console.err.print(f"[red]opportune:[/red] {escape(problem.detail)}", highlight=False)
    return problem.exit_status


def problem_of(error: Exception) -> CommandProblem:
    """Return what is told of an error."""
    kind = type(error).__name__
    if is_full(error):
        return CommandProblem(f"{TYPE_PREFIX}disk-full", "The disk is full", REFUSED, _full(error))
    if isinstance(error, UsageError):
        return CommandProblem(f"{TYPE_PREFIX}usage", "The command line is wrong", USAGE, _usage(error))
    if isinstance(error, BadWorkspace):
        errors = tuple(
            FaultPlace(one.file, one.line, one.path, one.expected, one.got, one.remedy)
            for one in error.faults[:FAULTS_MAX]
        )
        return CommandProblem(_type(kind), _title(kind), error.exit_status, str(error), errors)
    if isinstance(error, Failure | BadKeys):
        return CommandProblem(_type(kind), _title(kind), getattr(error, "exit_status", REFUSED), str(error))
    if isinstance(error, ModuleNotFoundError) and missing_libraries.is_server_alone():
        return CommandProblem(
            f"{TYPE_PREFIX}server-alone", "The server alone is installed", REFUSED, missing_libraries.told(error)
        )
    if isinstance(error, OSError):
        detail = f"{error.filename}: {error.strerror}" if error.filename else str(error) or kind
        return CommandProblem(f"{TYPE_PREFIX}system", "The system refused", REFUSED, detail)
    return CommandProblem(f"{TYPE_PREFIX}unexpected", "A fault of the program", BROKEN, _unexpected(error))


def _full(error: Exception) -> str:
    """Return which disk is full: that of the file which the error names, else of those that commands write to, the one
    with the least room.
    """
    if name := getattr(error, "filename", None):
        return f"{name}: {told_full(Path(os.fsdecode(name)))}"
    words = sys.argv[1:]
    named = [Path(after) for word, after in pairwise(words) if word in WORKSPACE_OPTIONS]
    place = min((*named, Path.cwd(), Path(tempfile.gettempdir())), key=free_bytes)
    said = "" if isinstance(error, OSError) else f" ({(str(error).splitlines() or [''])[0][:300]})"
    return told_full(place) + said


def _usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (`{context.command_path} --help` says more)" if context is not None else ""
    return " ".join(str(error.format_message()).split()) + hint


def _unexpected(error: Exception) -> str:
    """Return the kind of the error, its first line, and our innermost line that led to it."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ROOT)]
    ours = [frame for frame in ours if "site-packages" not in Path(frame.filename).relative_to(ROOT).parts]
    where = f" at {Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else ""
    said = str(error).strip().splitlines()
    what = f"{type(error).__name__}{': ' + said[0][:300] if said else ''}"
    return f"unexpected {what}{where}. This is a fault of the program; {TRACEBACK_VARIABLE}=1 shows how it came about"


def _words(kind: str) -> list[str]:
    return re.findall(r"[A-Z][a-z]*|[A-Z]+(?![a-z])", kind) or [kind]


def _type(kind: str) -> str:
    return TYPE_PREFIX + "-".join(word.lower() for word in _words(kind))


def _title(kind: str) -> str:
    return " ".join(word.lower() for word in _words(kind)).capitalize()


def statuses() -> str:
    """Return the exit statuses in one line."""
    return "; ".join(f"{status} {text}" for status, text in STATUSES.items())


def silence_output() -> None:
    """Send what is left of standard output nowhere: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

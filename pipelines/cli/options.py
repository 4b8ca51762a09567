"""Options that many verbs share: the workspace, JSON instead of text, moments and durations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.common import cache_folders
from features.common.moments import Micros
from features.common.timestamps import duration_seconds, now, parse_moment, rfc3339
from features.validation.load import data_of
from pipelines.output.errors import JSON_OPTION
from serving.kernel import compile_cache


def settled(folder: Path) -> Path:
    """Return the folder of a workspace, after libraries got folders that can be written; nothing that loads numba may
    come before.

    A callback of the option, because verbs import much before they load the workspace.
    """
    cache_folders.settle(data_of(folder) if (folder / "workspace.yaml").is_file() else None)
    compile_cache.unpack()
    return folder


Folder = Annotated[
    Path,
    typer.Option(
        "-w",
        "--workspace",
        help="Folder of the workspace.",
        envvar="OPPORTUNE_WORKSPACE",
        show_default=True,
        callback=settled,
    ),
]
AsJson = Annotated[
    bool, typer.Option(JSON_OPTION, help="Print one JSON document, of what went wrong too, and nothing else.")
]
HERE = Path()


def window_of(text: str | None) -> str | None:
    """Return the text of `--window`, checked.

    Raises:
        BadParameter: it is no duration.
    """
    if text is not None:
        try:
            duration_seconds(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--window") from error
    return text


def moment_of(text: str | None, option: str) -> Micros | None:
    """Return the moment of a date or time as an option has it, microseconds since 1970; None where it was not given.

    Raises:
        BadParameter: it is neither.
    """
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError as error:
        expected = f"a date like {rfc3339(now())[:10]}, or a time with its offset like 2026-11-22T09:30:00Z"
        raise typer.BadParameter(f"expected {expected}, got {text!r}", param_hint=option) from error

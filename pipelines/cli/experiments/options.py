"""Options that the reports of experiments and of control groups share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.statistics.multiple_testing import Correction

DETECT_MIN, DETECT_MAX = 0.001, 10.0

Outcome = Annotated[str | None, typer.Option(help="Type of outcome that is a conversion; the label's when absent.")]
OpenWindows = Annotated[bool, typer.Option("--open-windows", help="Count units whose window is still open, too.")]
Sequential = Annotated[
    bool, typer.Option("--sequential/--fixed", help="Decide by intervals for any number of looks, or for one planned.")
]
Detect = Annotated[
    float, typer.Option(help="The lift to be seen: 0.05 is five percent.", min=DETECT_MIN, max=DETECT_MAX)
]
Plots = Annotated[Path | None, typer.Option(help="Draw lifts over time and units as PNG into this folder.")]
Record = Annotated[bool, typer.Option("--record/--no-record", help="Keep the report as a run in MLflow.")]


def correction_of(text: str) -> Correction:
    """Return a way to correct p-values; BadParameter for any other word."""
    from pipelines.statistics.multiple_testing import CORRECTIONS

    chosen = next((one for one in CORRECTIONS if one == text), None)
    if chosen is None:
        raise typer.BadParameter(f"expected one of {', '.join(CORRECTIONS)}, got {text!r}", param_hint="--correction")
    return chosen

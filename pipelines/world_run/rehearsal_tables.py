"""A rehearsal as people read it: for each experiment whether its split is sound, then its lifts beside the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.experiments.output.tables import headlines
from pipelines.output import console
from pipelines.world.experiments import BROKEN, LOST_ARM, LOST_CHANNEL
from pipelines.world_run.rehearsal import Judged, Rehearsal


def print_rehearsal(found: Rehearsal, folder: Path) -> None:
    """On standard output.

    Args:
        folder: of the world, for the command that prints whole reports.
    """
    for line in lines(found, folder):
        console.out.print(line, highlight=False, markup=False)


def lines(found: Rehearsal, folder: Path) -> Iterator[str]:
    """Return what to read, from top to bottom."""
    size = found.settings
    yield (
        f"A world of {size.customers:,} customers and {size.offers:,} offers, seed {size.seed}; {found.decisions:,}"
        f" decisions by {found.decider} under three experiments; {found.shipped:,} rows came into the lake."
    )
    for flag, count in found.degraded.items():
        yield f"{count:,} decisions were degraded: {flag}."
    if found.told is not None:
        told = found.told
        yield (
            f"Events: {told.sent:,} sent, of which {told.accepted:,} were accepted:"
            f" {'nothing is lost' if found.conserved else 'this does not add up'}."
        )
    yield (
        f"{found.lost:,} exposures of `{BROKEN}` were lost on purpose: those of the arm {LOST_ARM} in the channel"
        f" {LOST_CHANNEL}."
    )
    for one in found.experiments:
        yield ""
        yield from headlines(one.report)
        yield from (f"  {_against(goal)}" for goal in one.judged)
    yield ""
    yield f"Whole: opportune experiment report -w {folder} {found.experiments[0].report.experiment}" + (
        " --open-windows" if found.experiments[0].report.open_windows else ""
    )


def _against(one: Judged) -> str:
    truth = f"{one.metric} of {one.arm}: truth {one.truth:+.1%}"
    low, high = one.interval
    if one.lift is None or low is None or high is None:
        return f"{truth}; too few units to tell"
    return (
        f"{truth}, {'inside' if one.inside else 'OUTSIDE'} {low:+.1%} to {high:+.1%}; the report says {one.lift:+.1%}"
    )

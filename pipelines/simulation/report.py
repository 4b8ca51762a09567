"""A simulation as people read it: the same sections as tables on a screen, as Markdown for a pull request, and as a
picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from features.common.files import as_given, write_whole
from pipelines.output import console
from pipelines.simulation.simulate import Simulation
from pipelines.simulation.what_if import ChangedDecision

OFFERS_SHOWN = 20
STEPS_SHOWN = 25
CHANGES_SHOWN = 10
PLOTTED_OFFERS = 25
NAMED_OFFERS = 5
JSON_FILE, MARKDOWN_FILE, PLOT_FILE = "simulation.json", "simulation.md", "shown.svg"
_SOURCES = {
    "journal": "answered decisions (journal)",
    "decisions": "past decisions (imported)",
    "customers": "customers",
}


class ReportSection(NamedTuple):
    """A table; columns from `numbers` on are figures."""

    title: str
    columns: list[str]
    rows: list[list[Any]]
    numbers: int


def print_report(found: Simulation) -> None:
    """On standard output."""
    for line in headlines(found):
        console.out.print(line, highlight=False, markup=False)
    for part in sections(found):
        console.table(f"\n{part.title}", part.columns, part.rows, part.numbers)


def markdown(found: Simulation, plot: str = "") -> str:
    """Return the same as Markdown.

    Args:
        plot: where the picture lies, to be linked; none when empty.
    """
    lines = [f"## What the change of {_files(found)} would do", ""]
    lines += [f"* {line}" for line in headlines(found)]
    if plot:
        lines += ["", f"![How often offers are shown, before and after]({plot})"]
    for part in sections(found):
        rule = ["---:" if at >= part.numbers else "---" for at in range(len(part.columns))]
        lines += ["", f"### {part.title}", ""]
        lines += [
            _row(cells) for cells in (part.columns, rule, *([console.cell(one) for one in row] for row in part.rows))
        ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


@as_given()
def write_report(found: Simulation, folder: Path) -> list[Path]:
    """JSON, Markdown and the picture, in a folder that is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in (JSON_FILE, MARKDOWN_FILE, PLOT_FILE)]
    write_whole(files[0], msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    write_whole(files[1], markdown(found, PLOT_FILE).encode())
    _plot(found, files[2])
    return files


def _plot(found: Simulation, file: Path) -> None:
    import matplotlib

    from training.fitting.plots import shows

    offers = found.result.offers[:PLOTTED_OFFERS]
    names, before, after = (
        [one.offer_id for one in offers],
        [one.before for one in offers],
        [one.after for one in offers],
    )
    figure = shows(names, before, after, f"Shown in {found.result.decisions:,} decisions, before and after")
    with matplotlib.rc_context({"svg.hashsalt": "opportune"}):  # the same figures give the same file
        figure.savefig(file, format="svg", metadata={"Date": None})


def headlines(found: Simulation) -> Iterator[str]:
    """Return what to read first, a sentence each."""
    result = found.result
    yield (
        f"{result.decisions:,} {_SOURCES[found.source]} of {result.customers:,} customers, decided again at"
        f" {found.at[:19]}Z by {found.model}; policies {found.config_before} and {found.config_after}, seed"
        f" {found.seed}."
    )
    if not found.files:
        yield "Nothing differs: the changed files say the same as those of the workspace."
    elif not result.changed and result.worth.difference == 0:
        yield f"Nothing differs in what is shown, or in what it is worth, though {_files(found)} changed."
    else:
        yield (
            f"{_part(result.changed, result.decisions)} of {result.changed_customers:,} customers would show something"
            f" else: {result.changed_offers:,} other offers, {result.changed_first:,} another offer first."
        )
    if result.empty_before or result.empty_after:
        yield f"{result.empty_before:,} decisions show nothing before, {result.empty_after:,} after."
    if found.unknown_customers:
        yield (
            f"{found.unknown_customers:,} of the customers are unknown to the online store, and decided as strangers on"
            " both sides."
        )
    for why, count in found.unfit.items():
        yield f"{count:,} sampled requests are left out: {why}."
    yield from found.notes


def sections(found: Simulation) -> Iterator[ReportSection]:
    """Return the tables, those without rows left out."""
    result = found.result
    worth, each = result.worth, max(result.decisions, 1)
    figures = [worth.before, worth.after, worth.difference, worth.low, worth.high]
    yield ReportSection(
        f"Expected worth, propensity x value of what is shown ({found.currency})",
        ["", "before", "after", "difference", "95 % from", "95 % to"],
        [["sample", *map(_money, figures)], ["a decision", *(None if one is None else one / each for one in figures)]],
        1,
    )
    offers = [
        [one.offer_id, one.before, one.after, _signed(one.after - one.before)] for one in result.offers[:OFFERS_SHOWN]
    ]
    if offers:
        yield ReportSection(
            f"How often offers are shown{_more(len(result.offers), OFFERS_SHOWN)}",
            ["offer", "before", "after", "difference"],
            offers,
            1,
        )
    steps = [
        [one.step, one.decisions_before, one.decisions_after, one.offers_before, one.offers_after]
        for one in result.steps[:STEPS_SHOWN]
    ]
    if steps:
        columns = ["step", "decisions before", "after", "offers left out before", "after"]
        yield ReportSection(
            f"What binds: steps that left offers out{_more(len(result.steps), STEPS_SHOWN)}", columns, steps, 1
        )
    if result.changes:
        rows = [_change(one) for one in result.changes[:CHANGES_SHOWN]]
        more = _more(result.changed, CHANGES_SHOWN)
        yield ReportSection(
            f"Who would get something else{more}", ["customer", "placement", "before", "after"], rows, 4
        )


def _change(one: ChangedDecision) -> list[Any]:
    return [one.customer_id, one.placement, _offers(one.before), _offers(one.after)]


def _offers(offers: tuple[str, ...]) -> str:
    rest = len(offers) - NAMED_OFFERS
    return (", ".join(offers[:NAMED_OFFERS]) + (f" and {rest} more" if rest > 0 else "")) or "nothing"


def _files(found: Simulation) -> str:
    return ", ".join(found.files) or "nothing"


def _part(some: int, of: int) -> str:
    return f"{some:,} of {of:,} decisions ({100 * some / max(of, 1):.1f} %)"


def _more(there: int, shown: int) -> str:
    return f", the first {shown} of {there:,}" if there > shown else ""


def _money(value: float | None) -> str | None:
    return None if value is None else f"{value:,.2f}"


def _signed(value: int) -> str:
    return f"{value:+,}" if value else "0"

"""What an import says for people: a table, then a line for each thing that is worth a look."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.importing.import_files import ImportReport, RowPlace
from pipelines.importing.table_fit import THINGS, Shared
from pipelines.output import console


def print_reports(reports: list[ImportReport]) -> None:
    """Print what became of the rows of each table, and how the tables fit together."""
    titles = ["table", "read", "stored", "duplicate", "refused", "of known customers", "from", "to"]
    console.table("Imported", titles, [_row(report) for report in reports])
    told = [note for report in reports for note in notes(report)]
    for note in told:
        console.out.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    read, refused = sum(report.read for report in reports), sum(sum(report.refused.values()) for report in reports)
    stored = sum(report.stored for report in reports)
    looks = f"{len(told)} thing{'s' * (len(told) != 1)} to look at, above" if told else "nothing to look at"
    console.out.print(f"{read:,} rows read, {stored:,} of them new, {refused:,} refused; {looks}.", highlight=False)
    if refused:
        console.out.print(
            "The other rows are stored. Mend the files and import again; docs/bring-your-own-data.md says what each"
            " value may be."
        )


def _row(report: ImportReport) -> list[object]:
    customers = next((one for one in report.ids if one.column == "customer_id"), None)
    known = None
    if customers is not None and customers.unknown_rows is not None and report.table != "customers":
        known = f"{_floor(customers.rows - customers.unknown_rows, customers.rows)} %"
    counted = [report.table, report.read, report.stored, report.duplicate, sum(report.refused.values())]
    return [*counted, known, (report.first or "")[:10], (report.last or "")[:10]]


def _floor(part: int, whole: int) -> int:
    """Percent, rounded down: 100 is all of them."""
    return 100 * part // whole if whole else 0


def notes(report: ImportReport) -> Iterator[str]:
    """Yield what is worth a look in one table, a sentence each."""
    name = report.table
    for reason, count in report.refused.items():
        place = report.refused_first.get(reason)
        yield f"refused in {name}: {_rows(count)}: {reason}{_at(place, reason)}"
    for column, words in report.words.items():
        listed = ", ".join(f"{word} ({count:,})" for word, count in words.items())
        yield f"missing in {name}: `{column}` where it says {listed}. If that is a value, see `missing` under `sources`"
    for shared in report.ids:
        yield from _apart(shared)
    if report.early is not None and report.early.clamped:
        yield (
            f"{name}: {_rows(report.early.clamped)} happened just before the decision that they name, and count as at"
            " its moment"
        )
    if report.early is not None and report.early.before:
        yield (
            f"{name}: {_rows(report.early.before)} happened long before the decision that they name: nothing learns"
            " from them"
        )
    for column, zones in report.zones.items():
        listed = ", ".join(f"{zone} ({count:,})" for zone, count in zones.items())
        yield (
            f"{name}: `{column}` has time zones that are none: {listed}. Quiet hours of these customers go by the"
            " workspace's own"
        )
    if report.ignored:
        yield f"passed over in {name}: {', '.join(report.ignored)}"


def _apart(shared: Shared) -> Iterator[str]:
    things = THINGS[shared.column]
    if shared.known and not any(shared.known.values()):
        yield f"{shared.table}: none of its {shared.ids:,} {things} is in {', '.join(shared.known)}"
    elif shared.unknown_rows and shared.column != "customer_id":
        unknown = f"{shared.unknown_rows:,} of {_rows(shared.rows)} with a {shared.column}"
        yield (
            f"{shared.table}: {unknown} name {things} that"
            f" {'the catalogue' if shared.column == 'offer_id' else 'decisions'} does not have"
        )
    if shared.tailed:
        known = f", {shared.tailed_known:,} of which other tables have without it" if shared.tailed_known else ""
        told = f"{shared.tailed:,} {things} end in `.0`, as {', '.join(shared.examples)}{known}"
        yield f"{shared.table}: {told}. Write `{shared.column}` as text or whole number, and import into an empty lake"
    if shared.absurd:
        share = _floor(shared.most_rows, shared.rows)
        yield (
            f"{shared.table}: {share} % of its rows are of one of {shared.ids:,} customers, `{shared.most}`: is that"
            " somebody?"
        )


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _at(place: RowPlace | None, reason: str) -> str:
    if place is None:
        return ""
    where = f"row {place.row:,}" if place.line is None else f"line {place.line:,}"
    column = f", column `{place.column}`" if place.column and f"`{place.column}`" not in reason else ""
    return f" (first in {place.file}, {where}{column})"

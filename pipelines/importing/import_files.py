"""`opportune import`: the business's own files into the lake, checked row by row, as often as one likes.

A row is stored, refused with a reason, or a duplicate; the three add up to the rows read, or the import fails.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import duckdb
import msgspec

from features.common.files import digest_of, locked, write_whole
from features.common.moments import Micros
from features.common.timestamps import rfc3339
from features.config.workspace_file import Source
from features.lake import lake
from features.lake.lake import quoted
from features.lake.tables import Table, tables_of
from features.workspace import timeline
from features.workspace.timeline import Timeline
from features.workspace.workspace import Workspace
from pipelines.importing import table_fit
from pipelines.importing.new_rows import one, refuse_newly_declared, select_added
from pipelines.importing.row_validation import WORDS, judge
from pipelines.importing.source_files import BadTable as BadTable
from pipelines.importing.source_files import Progress, SourceFiles, files_of, shown
from pipelines.importing.table_fit import Early, Shared
from pipelines.importing.values import words_of

_NAMED = re.compile(r"`([^`]+)`")
Tell = Callable[[str, float | None], None]
"""Told the name of the table that is read, and the part of it that is done, 0 to 1, where that is known."""


class RowPlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a row stands."""

    file: str
    row: int
    """From 1, the header not counted."""
    line: int | None = None
    """Of a CSV file, from 1: where the row begins."""
    column: str | None = None
    """As the file calls it; None where the reason is not one of a single column."""


class ImportReport(msgspec.Struct):
    """What became of the rows of one table."""

    table: str
    files: list[str]
    read: int = 0
    stored: int = 0
    duplicate: int = 0
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    ignored: list[str] = msgspec.field(default_factory=list)
    """Columns of the files that the table has no use for."""
    refused_first: dict[str, RowPlace] = msgspec.field(default_factory=dict)
    """By reason, the first row that was refused for it."""
    words: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """By column, the words that were taken as missing, with how many values were."""
    ids: list[Shared] = msgspec.field(default_factory=list)
    """How far the table's ids are known elsewhere in the lake."""
    early: Early | None = None
    """Events that happened, by their own time, before the decision that they name; None where none did."""
    zones: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    """By column that quiet hours look at, time zones that are not understood, with how many customers have them: the
    most frequent.
    """

    @property
    def conserved(self) -> bool:
        return self.read == self.stored + self.duplicate + sum(self.refused.values())


def import_all(workspace: Workspace, now: Micros, progress: Tell = lambda _table, _part: None) -> list[ImportReport]:
    """Import every table that the workspace names a source for.

    Args:
        now: microseconds since 1970.
        progress: told the name of each table before it is read, and how far it is.

    Raises:
        BadTable: a file is missing, unreadable, or lacks a required column.
    """
    with locked(workspace.data / "import.lock"):
        moved = timeline.of(workspace, now)
        reports = []
        for table in tables_of(workspace).values():
            source = workspace.source(table.name)
            if source is not None:
                progress(table.name, None)
                reports.append(import_table(workspace, table, source, moved, now, partial(progress, table.name)))
        summary = {"at": rfc3339(now), "offset_weeks": moved.weeks, "tables": reports}
        write_whole(workspace.data / "imports.json", msgspec.json.encode(summary))
        # Not before: how tables fit together may name customers, whom no file but the lake's keeps.
        progress("how the tables fit together", None)
        _fit(workspace, reports)
    return reports


def _fit(workspace: Workspace, reports: list[ImportReport]) -> None:
    """Tell of each table how it fits the others, as the lake has them now."""
    con = lake.connect(workspace)
    try:
        shared, early, zones = (
            table_fit.shared(workspace, con),
            table_fit.early(workspace, con),
            table_fit.unknown_zones(workspace, con),
        )
    finally:
        con.close()
    for report in reports:
        report.ids = [one for one in shared if one.table == report.table]
        report.early = early.get(report.table)
        report.zones = zones.get(report.table, {})


def import_table(
    workspace: Workspace,
    table: Table,
    source: Source,
    moved: Timeline,
    now: Micros,
    progress: Progress = lambda _: None,
) -> ImportReport:
    """Read one table's files into the lake. Only one import may run at a time; see `import_all`."""
    found = files_of(workspace, table, source)
    stamp = _stamp(table, source, moved, found)
    repeated = _repeated(workspace, table, stamp)
    if repeated is not None:
        return msgspec.structs.replace(repeated, files=[shown(workspace, file) for file in found])
    con = lake.connect(workspace)
    try:
        files = SourceFiles(con, workspace, table, source)
        report = ImportReport(table.name, files.shown, ignored=files.ignored)
        judge(con, workspace, table, files, words_of(source.missing), moved, now, progress)
        refuse_newly_declared(workspace, con, table)
        select_added(workspace, con, table)
        _count(con, table, report)
        _tell_places(con, files, report)
        report.stored = lake.add(workspace, con, table, "added", f"import-{uuid4().hex}")
    finally:
        con.close()
    if not report.conserved:
        raise BadTable(
            f"{table.name}: expected stored + duplicate + refused to be the rows read, got {report}. Please report it."
        )
    record = _Last(stamp, [file.name for file in lake.imported_files(workspace, table)], report)
    write_whole(_last_file(workspace, table), msgspec.json.encode(record))
    return report


class _Last(msgspec.Struct):
    """The last import of a table: what came in, and which imported files the lake had then."""

    stamp: str
    lake: list[str]
    report: ImportReport


def _last_file(workspace: Workspace, table: Table) -> Path:
    return workspace.data / "imports" / f"{table.name}.json"


def _stamp(table: Table, source: Source, moved: Timeline, files: list[Path]) -> str:
    """Digest of everything that decides what an import does, but for the clock."""
    told = msgspec.json.encode([table, source, moved, [digest_of(file) for file in files]])
    return hashlib.sha256(told).hexdigest()


def _repeated(workspace: Workspace, table: Table, stamp: str) -> ImportReport | None:
    """Return the report of an import that would be the last one again: known without reading a row.

    Not so when rows were refused, whose time may have come, or when the lake has lost or gained files since.
    """
    try:
        last = msgspec.json.decode(_last_file(workspace, table).read_bytes(), type=_Last)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    if (
        last.stamp != stamp
        or last.report.refused
        or last.lake != [file.name for file in lake.imported_files(workspace, table)]
    ):
        return None
    return msgspec.structs.replace(last.report, stored=0, duplicate=last.report.read)


def _count(con: duckdb.DuckDBPyConnection, table: Table, report: ImportReport) -> None:
    """Everything but `stored`, which is what the lake says that it wrote."""
    report.read = one(con, "SELECT count(*) FROM judged")
    counted = con.execute(
        "SELECT _reason, count(*) FROM judged WHERE _reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    report.refused = {str(reason): int(count) for reason, count in counted}
    good = one(con, "SELECT count(*) FROM judged WHERE _reason IS NULL")
    report.duplicate = good - one(con, "SELECT count(*) FROM added")
    if table.time is not None:
        time = quoted(table.time)
        span = con.execute(
            f"SELECT epoch_us(min({time})), epoch_us(max({time})) FROM judged WHERE _reason IS NULL"
        ).fetchone()
        if span and span[0] is not None:
            report.first, report.last = rfc3339(span[0]), rfc3339(span[1])
    spoken = (
        f"SELECT word, count(*) FROM (SELECT unnest({WORDS}) AS word FROM judged WHERE {WORDS} IS NOT NULL) GROUP BY 1"
        " ORDER BY 2 DESC, 1"
    )
    for told, times in con.execute(spoken).fetchall():
        name, _, word = str(told).partition("=")
        report.words.setdefault(name, {})[word] = int(times)


def _tell_places(con: duckdb.DuckDBPyConnection, files: SourceFiles, report: ImportReport) -> None:
    """Tell where the first row of each reason stands."""
    if not report.refused:
        return
    firsts = con.execute("SELECT _reason, min(_row) FROM judged WHERE _reason IS NOT NULL GROUP BY 1").fetchall()
    row_of = {str(reason): int(row) for reason, row in firsts}
    places = files.places(list(row_of.values()))
    for reason in report.refused:
        file, line, row = places[row_of[reason]]
        named = _NAMED.findall(reason)
        report.refused_first[reason] = RowPlace(file, row, line, files.column(named[0]) if len(named) == 1 else None)

"""The files of a canonical table: found, opened, their columns brought to our names. What is in them is judged
elsewhere.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
from msgspec import Struct

from features.config.workspace_file import Source
from features.lake.lake import quoted
from features.lake.tables import Field, Table
from features.workspace.workspace import Workspace
from pipelines.importing import csv_files, parquet_files
from pipelines.importing.csv_files import CsvFile, is_csv
from pipelines.importing.errors import BadFile as BadFile
from pipelines.importing.errors import BadTable as BadTable

TAKEN = ".parquet, .csv, .tsv; the latter two also with .gz or .zst"
ROW_BITS = 40
"""`_row` is the position of a row's file among the files of its table, shifted by so many bits, and the row within it,
from 0.
"""

Progress = Callable[[float], None]
"""Told the part of the bytes that is read, 0 to 1."""


class Given(Struct, frozen=True):
    """Rows as they were given, of files whose columns have the same types.

    Attributes:
        reader: SQL of `_row` and the table's columns, by canonical name.
        types: DuckDB's type of each of the table's columns; those that the files lack are not there.
    """

    reader: str
    types: dict[str, str]
    read: Callable[[str], None]
    """Runs a statement that reads `reader`; what is wrong with a file becomes a BadTable."""


class SourceFiles:
    """The files of one table.

    Raises:
        BadTable: there are none, or one cannot be read, or lacks a required column.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, workspace: Workspace, table: Table, source: Source) -> None:
        self._con, self._table, self._source = con, table, source
        self.files = files_of(workspace, table, source)
        self.shown = [shown(workspace, file) for file in self.files]
        _check_renames(table, source)
        self._csv: dict[int, CsvFile] = {}
        self._parquet = {at: file for at, file in enumerate(self.files) if not is_csv(file)}
        for at, file in enumerate(self.files):
            if is_csv(file):
                self._read_header(at, file)
        try:
            self._parts = parquet_files.parts_of(con, self._parquet) if self._parquet else []
        except parquet_files.BadFileAt as bad:
            raise self._bad(bad.at, bad) from bad
        except BadFile as bad:
            raise BadTable(f"{table.name}: {bad}") from bad
        columns = {at: file.names for at, file in self._csv.items()} | {
            part.files[0]: tuple(part.types) for part in self._parts
        }
        if not columns:
            empty = BadFile("expected a header with each column once, got none. Mend its first line.", 1)
            raise self._bad(0, empty)
        self._check_columns(columns)
        used = {self._name(field) for field in table.fields}
        self.ignored = list(dict.fromkeys(name for names in columns.values() for name in names if name not in used))

    def _read_header(self, at: int, file: Path) -> None:
        try:
            header = csv_files.read_header(file)
        except (BadFile, OSError, pa.ArrowException) as bad:
            raise self._bad(at, bad) from bad
        if header is not None:
            self._csv[at] = header

    def _name(self, field: Field) -> str:
        """Return what the source calls a column."""
        return self._source.columns.get(field.name, field.name)

    def _bad(self, at: int, error: Exception) -> BadTable:
        told = (
            str(error)
            if isinstance(error, BadFile)
            else f"expected a readable file, got: {(str(error).splitlines() or ['?'])[0][:300]}"
        )
        return BadTable(
            f"{self._table.name}: {self.shown[at]}{', ' if told.startswith(('line', 'column')) else ': '}{told}"
        )

    def _check_columns(self, columns: dict[int, tuple[str, ...]]) -> None:
        """Every file has the required columns; one that is optional, and mapped, is in one of them at least."""
        for field in self._table.fields:
            given = self._name(field)
            lacking = [at for at, names in columns.items() if given not in names]
            if not lacking or (
                not field.required and (field.name not in self._source.columns or len(lacking) < len(columns))
            ):
                continue
            doing = "Map it" if field.name == given else f"Mend what `{field.name}` is mapped to"
            hint = f"{doing} under `sources` in workspace.yaml: columns: {{{field.name}: <name in the file>}}."
            got = ", ".join(columns[lacking[0]])
            raise BadTable(
                f"{self._table.name}: expected a column `{given}` in {self.shown[lacking[0]]}, got {got}. {hint}"
            )

    def parts(self, progress: Progress) -> Iterator[Given]:
        """Yield all rows, those of files with the same types together."""
        sizes = [max(1, file.stat().st_size) for file in self.files]
        done = 0
        for part in self._parts:
            yield self._given_parquet(part)
            done += sum(sizes[at] for at in part.files)
            progress(done / sum(sizes))
        if self._csv:
            yield self._given_csv(lambda part: progress((done + part * (sum(sizes) - done)) / sum(sizes)))

    def _given_parquet(self, part: parquet_files.ParquetPart) -> Given:
        fields = [field for field in self._table.fields if self._name(field) in part.types]
        types = {field.name: part.types[self._name(field)] for field in fields}
        for field in fields:
            kind = types[field.name]
            if kind.startswith(("STRUCT", "MAP", "UNION")) or (kind.endswith("]") and field.dtype != "texts"):
                told = f"expected one value a row in `{self._name(field)}` of {self.shown[part.files[0]]}, got {kind}."
                raise BadTable(f"{self._table.name}: {told}")
        columns = (
            ", ".join(f"{quoted(self._name(field))} AS {quoted(field.name)}" for field in fields) or "NULL AS nothing"
        )
        reader = parquet_files.rows(part, self._parquet, columns, ROW_BITS)

        def read(statement: str) -> None:
            try:
                self._con.execute(statement)
            except (duckdb.IOException, duckdb.InvalidInputException, duckdb.SerializationException) as error:
                bad = parquet_files.first_bad(self._con, part, self._parquet, error)
                raise self._bad(bad.at if isinstance(bad, parquet_files.BadFileAt) else part.files[0], bad) from error

        return Given(reader, types, read)

    def _given_csv(self, progress: Progress) -> Given:
        names = [
            field.name
            for field in self._table.fields
            if any(self._name(field) in file.names for file in self._csv.values())
        ]
        schema = pa.schema({"_row": pa.int64()} | dict.fromkeys(names, pa.string()))
        faults: list[Exception] = []

        def read(statement: str) -> None:
            stream = pa.RecordBatchReader.from_batches(schema, self._batches(schema, faults, progress))
            self._con.register("_csv", stream)
            try:
                self._con.execute(statement)
            except duckdb.Error as error:  # it knows only the text of what the stream raised
                raise (faults[0] if faults else error) from None
            finally:
                self._con.unregister("_csv")

        return Given("SELECT * FROM _csv", dict.fromkeys(names, "VARCHAR"), read)

    def _batches(self, schema: pa.Schema, faults: list[Exception], progress: Progress) -> Iterator[pa.RecordBatch]:
        sizes = {at: max(1, self.files[at].stat().st_size) for at in self._csv}
        done, whole = 0, sum(sizes.values())
        for at, file in self._csv.items():
            columns = {field.name: self._name(field) for field in self._table.fields if self._name(field) in file.names}
            seen = 0
            try:
                for batch in csv_files.batches(file, columns, schema, at << ROW_BITS):
                    yield batch
                    seen += batch.nbytes
                    progress((done + min(seen, sizes[at])) / whole)
            except (BadFile, OSError, pa.ArrowException) as bad:
                faults.append(self._bad(at, bad))
                raise faults[0] from bad
            done += sizes[at]

    def places(self, rows: list[int]) -> dict[int, tuple[str, int | None, int]]:
        """Return where rows stand: their file, its line where it is CSV, and the row in the file, from 1."""
        wanted: dict[int, set[int]] = {}
        for row in rows:
            wanted.setdefault(row >> ROW_BITS, set()).add((row & ((1 << ROW_BITS) - 1)) + 1)
        found = {}
        for at, numbers in wanted.items():
            lines = csv_files.lines_of(self._csv[at], numbers) if at in self._csv else {}
            for number in numbers:
                found[(at << ROW_BITS) + number - 1] = (self.shown[at], lines.get(number), number)
        return found

    def column(self, name: str) -> str:
        """Return what the source calls a canonical column."""
        return self._source.columns.get(name, name)


def shown(workspace: Workspace, file: Path) -> str:
    """Return a file as people know it: by its path within the workspace."""
    return str(file.relative_to(workspace.folder)) if file.is_relative_to(workspace.folder) else str(file)


def files_of(workspace: Workspace, table: Table, source: Source) -> list[Path]:
    """Return the source's files, sorted. In a folder, names that begin with `.` or `_` are other programs' marks, and
    are passed over.

    Raises:
        BadTable: there are none, or of a kind that cannot be read.
    """
    place = workspace.folder / source.path
    pattern = glob.escape(source.path.rstrip("/")) + "/**/*" if place.is_dir() else source.path
    names = sorted(glob.glob(pattern, root_dir=workspace.folder, recursive=True))
    files = [
        file
        for file in (workspace.folder / name for name in names)
        if file.is_file() and not file.name.startswith(("_", "."))
    ]
    if not files:
        raise BadTable(
            f"{table.name}: expected a file, folder or glob, got nothing at {source.path}. Mend `sources` in"
            " workspace.yaml."
        )
    for file in files:
        if not is_csv(file) and file.suffix.lower() not in parquet_files.ENDINGS:
            got = "a file without ending" if not file.suffix else file.suffix
            raise BadTable(
                f"{table.name}: expected files of {TAKEN}, got {got} at {shown(workspace, file)}. Save it as CSV, or"
                " move it away."
            )
    return files


def _check_renames(table: Table, source: Source) -> None:
    known = {field.name for field in table.fields}
    for name in source.columns:
        if name not in known:
            names = ", ".join(sorted(known))
            raise BadTable(
                f"{table.name}: expected `columns` of workspace.yaml to name canonical columns, got `{name}`. Known:"
                f" {names}."
            )

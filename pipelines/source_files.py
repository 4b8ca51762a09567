"""The files of a canonical table: found, opened, their columns brought to our names. What is in them is judged elsewhere."""

from __future__ import annotations

import csv
import glob
import io
from pathlib import Path

import duckdb
import pyarrow as pa

from features.failures import Failure
from features.formats import Source
from features.lake import literal, quoted
from features.tables import Field, Table
from features.workspace import Workspace

ENDINGS = (".parquet", ".csv", ".csv.gz", ".csv.zst")
HEADER_BYTES_MAX = 1 << 20
DELIMITERS = (",", ";", "\t")
"""What may stand between the columns of a CSV file; the one that the header has most of does. Lists use `|`."""
_DIAGNOSES = ("Expected Number", "Value with", "Invalid unicode", "Maximum line size")
"""How the lines begin that say what is wrong with a line of a CSV file."""


class BadTable(Failure):
    """A file that cannot be read as the table it should be."""


def files_of(workspace: Workspace, table: Table, source: Source) -> list[Path]:
    """The source's files, sorted. In a folder, names that begin with `.` or `_` are other programs' marks, and are passed over.

    Raises:
        BadTable: there are none, or of several kinds.
    """
    place = workspace.folder / source.path
    pattern = glob.escape(source.path.rstrip("/")) + "/**/*" if place.is_dir() else source.path
    names = sorted(glob.glob(pattern, root_dir=workspace.folder, recursive=True))
    files = [file for file in (workspace.folder / name for name in names) if file.is_file() and not file.name.startswith(("_", "."))]
    if not files:
        raise BadTable(f"{table.name}: expected a file, folder or glob, got nothing at {source.path}. Mend `sources` in workspace.yaml.")
    endings = {_ending(file) for file in files}
    if len(endings) > 1 or not endings <= {*ENDINGS}:
        got = ", ".join(sorted(ending or "a file without ending" for ending in endings))
        raise BadTable(f"{table.name}: expected files of one kind of {', '.join(ENDINGS)}, got {got} at {source.path}.")
    return files


def _ending(file: Path) -> str:
    return "".join(file.suffixes[-2:] if file.suffix in (".gz", ".zst") else file.suffixes[-1:]).lower()


def read(con: duckdb.DuckDBPyConnection, table: Table, source: Source, files: list[Path]) -> list[str]:
    """The files as a temporary table `raw`, with canonical names, whatever types they have, and `_file`.

    Returns:
        Names of the columns that the table has no use for.

    Raises:
        BadTable: a file is unreadable, or lacks a required column.
    """
    _check_renames(table, source)
    try:
        reader = _parquet(files) if _ending(files[0]) == ".parquet" else _csv(table, files)
        found = {row[0]: row[1] for row in con.execute(f"DESCRIBE {reader}").fetchall() if row[0] != "_file"}
        columns = ", ".join(_column(table, source, field, found) for field in table.fields)
        con.execute(f"CREATE TEMP TABLE raw AS SELECT {columns}, _file FROM ({reader})")
    except (duckdb.Error, pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        told = f"{table.name}: expected a readable {_kind(files)} file at {source.path}, got: {_without_rows(error)}"
        raise BadTable(f"{told.rstrip('.')}. Save it as UTF-8." if "utf-8" in str(error) else told) from error
    used = {source.columns.get(field.name, field.name) for field in table.fields}
    return [name for name in found if name not in used]


def _kind(files: list[Path]) -> str:
    return "Parquet" if _ending(files[0]) == ".parquet" else "CSV"


def _without_rows(error: Exception) -> str:
    """What an error says, without the customer's row that DuckDB quotes in it."""
    first, *more = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
    return " ".join([first, *(line for line in more if line.startswith(_DIAGNOSES))])[:300]


def _check_renames(table: Table, source: Source) -> None:
    known = {field.name for field in table.fields}
    for name in source.columns:
        if name not in known:
            names = ", ".join(sorted(known))
            raise BadTable(f"{table.name}: expected `columns` of workspace.yaml to name canonical columns, got `{name}`. Known: {names}.")


def _parquet(files: list[Path]) -> str:
    names = ", ".join(literal(glob.escape(str(file))) for file in files)
    return f"SELECT * FROM read_parquet([{names}], union_by_name = true, binary_as_string = true, filename = '_file')"


def _csv(table: Table, files: list[Path]) -> str:
    """Each file by its own header, nothing guessed: a guess may take a bad row for a preamble and pass over what is above it."""
    parts = []
    for file in files:
        names, delimiter = _header(table, file)
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
        options = f"auto_detect = false, header = true, delim = {literal(delimiter)}, quote = '\"', escape = '\"', filename = '_file'"
        parts.append(f"SELECT * FROM read_csv({literal(glob.escape(str(file)))}, columns = {{{columns}}}, {options})")
    return " UNION ALL BY NAME ".join(parts)


def _header(table: Table, file: Path) -> tuple[list[str], str]:
    with pa.input_stream(str(file), compression="detect") as stream:
        start = stream.read(HEADER_BYTES_MAX)
    lines = start.splitlines(keepends=True)
    first = lines[0].decode("utf-8-sig") if lines else ""
    delimiter = max(DELIMITERS, key=first.count)
    names = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
    if not names or not all(names) or len({name.lower() for name in names}) < len(names):
        got = "none" if not names else ", ".join(name or "an empty name" for name in names)
        raise BadTable(f"{table.name}: expected a header with each column once in {file.name}, got {got}. Mend its first line.")
    return names, delimiter


def _column(table: Table, source: Source, field: Field, found: dict[str, str]) -> str:
    given = source.columns.get(field.name, field.name)
    if given not in found:
        if not field.required and field.name not in source.columns:
            return f"NULL::VARCHAR AS {quoted(field.name)}"
        doing = "Map it" if field.name == given else f"Mend what `{field.name}` is mapped to"
        hint = f"{doing} under `sources` in workspace.yaml: columns: {{{field.name}: <name in the file>}}."
        raise BadTable(f"{table.name}: expected a column `{given}` in {source.path}, got {', '.join(found)}. {hint}")
    kind = found[given]
    if kind.startswith(("STRUCT", "MAP", "UNION")) or (kind.endswith("]") and field.dtype != "texts"):
        raise BadTable(f"{table.name}: expected one value a row in `{given}` of {source.path}, got {kind}.")
    return f"{quoted(given)} AS {quoted(field.name)}"

"""Parquet files of one table, gathered by their types: what is text in one and a number in another is not made the same
before it is judged.
"""

from __future__ import annotations

import glob
from pathlib import Path

import duckdb
from msgspec import Struct

from features.lake.lake import literal
from pipelines.importing.errors import BadFile

ENDINGS = (".parquet",)
FILES_MAX = 500
BYTES_MAX = 256 << 20
"""So many files, and so many bytes of them, are read at a time: progress is told in between."""
_OWN = ("file_row_number", "file_index", "filename")
"""Columns that the reader adds; a file that has one of them itself is read alone, and its rows are counted otherwise.
"""


class ParquetPart(Struct, frozen=True):
    """Some files whose columns have the same names and types."""

    files: tuple[int, ...]
    """Their positions among all files of the table, ascending."""
    types: dict[str, str]
    """DuckDB's type of each column."""


def parts_of(con: duckdb.DuckDBPyConnection, files: dict[int, Path]) -> list[ParquetPart]:
    """Gather files by the types of their columns.

    Raises:
        BadFile, with the position of the file first: one is no Parquet file.
    """
    schema = (
        "SELECT file_name, md5(string_agg(concat_ws(' ', name, duckdb_type, type, num_children, logical_type), '|'"
        " ORDER BY column_id))"
    )
    try:
        found = con.execute(
            f"{schema} FROM parquet_schema({_listed(list(files.values()))}) GROUP BY file_name"
        ).fetchall()
    except duckdb.Error as error:
        raise _first_bad(con, files, "SELECT count(*) FROM parquet_schema({})", error) from error
    kinds = dict(found)
    gathered: dict[str, list[int]] = {}
    for at, file in files.items():
        gathered.setdefault(kinds[str(file)], []).append(at)
    parts = []
    for alike in gathered.values():
        described = con.execute(f"DESCRIBE SELECT * FROM {_reader([files[alike[0]]])}").fetchall()
        types = {str(name): str(kind) for name, kind, *_ in described}
        alone = any(name.lower() in _OWN for name in types)
        parts += [ParquetPart(tuple(some), types) for some in _slices(alike, files, 1 if alone else FILES_MAX)]
    return parts


def _slices(alike: list[int], files: dict[int, Path], most: int) -> list[list[int]]:
    slices: list[list[int]] = []
    size = 0
    for at in alike:
        length = files[at].stat().st_size
        if not slices or len(slices[-1]) >= most or size + length > BYTES_MAX:
            slices.append([])
            size = 0
        slices[-1].append(at)
        size += length
    return slices


def _listed(files: list[Path]) -> str:
    return f"[{', '.join(literal(glob.escape(str(file))) for file in files)}]"


def _reader(files: list[Path]) -> str:
    return f"read_parquet({_listed(files)}, binary_as_string = true, hive_partitioning = false)"


def rows(part: ParquetPart, files: dict[int, Path], columns: str, shift: int) -> str:
    """SQL of these columns of all rows of a part, after `_row`: the position of the file, shifted by so many bits, and
    the row within it from 0.
    """
    reader = _reader([files[at] for at in part.files])
    if any(name.lower() in _OWN for name in part.types):
        return f"SELECT {part.files[0] << shift} + row_number() OVER () - 1 AS _row, {columns} FROM {reader}"
    first = part.files[0]
    if part.files == tuple(range(first, first + len(part.files))):
        return f"SELECT ((file_index + {first})::BIGINT << {shift}) + file_row_number AS _row, {columns} FROM {reader}"
    positions = ", ".join(map(str, part.files))
    return (
        f"SELECT ([{positions}][file_index + 1]::BIGINT << {shift}) + file_row_number AS _row, {columns} FROM {reader}"
    )


def first_bad(con: duckdb.DuckDBPyConnection, part: ParquetPart, files: dict[int, Path], error: Exception) -> BadFile:
    """Return what is to be said where the rows of a part could not be read."""
    return _first_bad(
        con,
        {at: files[at] for at in part.files},
        "SELECT count(*) FROM (SELECT hash(t) AS h FROM read_parquet({}) t) WHERE h = 0",
        error,
    )


def _first_bad(con: duckdb.DuckDBPyConnection, files: dict[int, Path], query: str, error: Exception) -> BadFile:
    for at, file in files.items():
        try:
            con.execute(query.format(_listed([file]))).fetchall()
        except duckdb.Error as wrong:
            return BadFileAt(at, f"expected a readable Parquet file, got: {_told(wrong, file)}")
    return BadFile(f"expected readable Parquet files, got: {str(error).splitlines()[0][:300]}")


def _told(error: Exception, file: Path) -> str:
    return str(error).splitlines()[0].replace(str(file), file.name)[:300]


class BadFileAt(BadFile):
    """A fault of the file at a position."""

    def __init__(self, at: int, told: str) -> None:
        super().__init__(told)
        self.at = at

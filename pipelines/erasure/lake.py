"""Forgetting in Parquet: the lake and the offline tables. A file that holds the customer is written anew without, under
its own name.

Names stay, so that nothing that knows files by their names (imports, shipments, merged files) does its work again.
Files that no longer count, because a merged one took their place, are rewritten too.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from features.common.errors import Failure
from features.common.files import sync
from features.lake.files import writing
from features.lake.lake import literal, quoted
from features.workspace.workspace import Workspace
from pipelines.erasure.places import Removed, Step

ID_COLUMNS = ("customer_id", "unit")
"""Columns that say whose a row is: `unit` is the anonymous one of a link, or what an experiment randomized."""
FILES_A_QUERY_MAX = 500


class BadParquet(Failure):
    """A file that should be looked through and cannot be read."""


class ParquetFolder:
    """All Parquet files below a folder; see `Place`."""

    def __init__(self, workspace: Workspace, name: str, folder: Path) -> None:
        self.name, self._workspace, self._folder = name, workspace, folder

    def remove(self, units: Sequence[str], step: Step) -> Removed:
        with self._connected() as con:
            found = self._found(con, units)
            for file, rows in sorted(found.items()):
                step(f"rewrite {file.name}")
                self._rewrite(con, file, units, rows, step)
        total = sum(found.values())
        return Removed(total, total)

    def left(self, units: Sequence[str]) -> int:
        with self._connected() as con:
            return sum(self._found(con, units).values())

    def _found(self, con: duckdb.DuckDBPyConnection, units: Sequence[str]) -> dict[Path, int]:
        """Rows of the units by file; files whose statistics exclude them are not read."""
        found: dict[Path, int] = {}
        for columns, files in self._by_columns(con).items():
            for at in range(0, len(files), FILES_A_QUERY_MAX):
                part = files[at : at + FILES_A_QUERY_MAX]
                query = f"SELECT filename, count(*) FROM {_reader(part)} WHERE {_theirs(columns, units)} GROUP BY 1"
                found |= {Path(name): count for name, count in con.execute(query).fetchall()}
        return found

    def _by_columns(self, con: duckdb.DuckDBPyConnection) -> dict[tuple[str, ...], list[Path]]:
        """Return the files that say whose rows are, by the columns that do; files of one folder are alike, but for what
        was declared later.
        """
        found: dict[tuple[str, ...], list[Path]] = {}
        files = sorted(self._folder.glob("**/*.parquet"))
        for at in range(0, len(files), FILES_A_QUERY_MAX):
            names = ", ".join(map(_name, files[at : at + FILES_A_QUERY_MAX]))
            wanted = ", ".join(map(literal, ID_COLUMNS))
            query = (
                f"SELECT file_name, list(name ORDER BY name) FROM parquet_schema([{names}]) WHERE name IN ({wanted})"
                " GROUP BY 1 ORDER BY 1"
            )
            for name, columns in con.execute(query).fetchall():
                found.setdefault(tuple(columns), []).append(Path(name))
        return found

    def _rewrite(self, con: duckdb.DuckDBPyConnection, file: Path, units: Sequence[str], rows: int, step: Step) -> None:
        aside = self._workspace.data / "aside" / "forget" / file.name
        aside.parent.mkdir(parents=True, exist_ok=True)
        schema = (
            f"SELECT name, max(f.num_rows) FROM parquet_schema({_name(file)}), parquet_file_metadata({_name(file)}) f"
            " GROUP BY 1"
        )
        names = dict(con.execute(schema).fetchall())
        before = max(names.values())
        theirs = _theirs([name for name in ID_COLUMNS if name in names], units)
        kept = f"SELECT * EXCLUDE (filename) FROM {_reader([file])} WHERE ({theirs}) IS NOT TRUE"
        written = con.execute(f"COPY ({kept}) TO {literal(str(aside))} (FORMAT parquet, COMPRESSION zstd)").fetchone()
        if written is None or written[0] != before - rows:
            raise BadParquet(
                f"expected {before - rows} rows of {file} to stay, got {written}: something else changes the lake; try"
                " again"
            )
        sync(aside)
        step(f"replace {file.name}")
        with writing(self._workspace.lake):
            if file.exists():  # else its retention is over
                aside.replace(file)
        aside.unlink(missing_ok=True)
        sync(file.parent)

    @contextmanager
    def _connected(self) -> Iterator[duckdb.DuckDBPyConnection]:
        con = duckdb.connect()
        try:
            con.execute("SET TimeZone = 'UTC'")
            # Others' rows stay in their order; nothing is spilled to a disk that would have to be looked through again.
            con.execute("SET preserve_insertion_order = true")
            con.execute("SET temp_directory = ''")
            yield con
        except duckdb.Error as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            way_out = "Remove the file that is named there, and try again"
            raise BadParquet(f"expected readable Parquet files in {self._folder}, got: {said}. {way_out}") from error
        finally:
            con.close()


def _name(file: Path) -> str:
    """Return a file for DuckDB, which takes brackets for a pattern."""
    return literal(glob.escape(str(file)))


def _reader(files: list[Path]) -> str:
    names = ", ".join(map(_name, files))
    return f"read_parquet([{names}], union_by_name = true, hive_partitioning = false, filename = true)"


def _theirs(columns: Sequence[str], units: Sequence[str]) -> str:
    ids = ", ".join(map(literal, units))
    return " OR ".join(f"{quoted(column)} IN ({ids})" for column in columns)

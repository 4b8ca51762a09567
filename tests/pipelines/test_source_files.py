"""Files that are no table: each class is refused with its message."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from features import timeline
from pipelines import importing
from pipelines.importing import BadTable, import_all
from tests.banks import MOVE, NOW, bank, only, write


def refused(tmp_path: Path, source: Any, table: str = "streams.moves") -> str:
    workspace = bank(tmp_path / "w", {table: source})
    with pytest.raises(BadTable) as caught:
        import_all(workspace, NOW)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that went away after the check, or a folder with nothing in it, says where to look."""
    write(tmp_path / "w" / "m.csv", [MOVE])
    workspace = bank(tmp_path / "w", {"streams.moves": "m.csv"})
    (tmp_path / "w" / "m.csv").unlink()
    with pytest.raises(
        BadTable, match="streams.moves: expected a file, folder or glob, got nothing at m.csv. Mend `sources` in workspace.yaml."
    ):
        import_all(workspace, NOW)
    (tmp_path / "w" / "empty").mkdir()
    assert "got nothing at empty" in refused(tmp_path, "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"not parquet", "expected a readable Parquet file at m.parquet, got: "),
        (
            "m.csv",
            b"customer_id,time\nc1,\xff\xfe\n",
            "expected a readable CSV file at m.csv, got: Invalid Input Error: CSV Error on Line: 2",
        ),
        ("m.csv", b"customer_id,time\nc1,\xff\n", "Save it as UTF-8."),
        ("m.csv", b"customer_id,\xfcber\n", "Save it as UTF-8."),
        ("m.csv", b"customer_id,time\nc1,2026-01-01,x\n", "Expected Number of Columns: 2 Found: 3"),
        ("m.csv", b'customer_id,time\nc1,"2026\n', "unterminated quote"),
        ("m.csv", b"", "expected a header with each column once in m.csv, got none. Mend its first line."),
        ("m.csv", b"customer_id,time,time\n", "expected a header with each column once in m.csv, got customer_id, time, time"),
        ("m.csv", b"customer_id,\n", "got customer_id, an empty name"),
        ("m.csv.gz", b"not gzip", "expected a readable CSV file at m.csv.gz, got: "),
        ("m.xlsx", b"", "expected files of one kind of .parquet, .csv, .csv.gz, .csv.zst, got .xlsx at m.xlsx"),
        ("m", b"", "got a file without ending at m"),
    ],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """What is no Parquet, no CSV, or not as wide as its header says is refused whole, and no row of it is quoted."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / name).write_bytes(content)
    told = refused(tmp_path, name)
    assert told.startswith("streams.moves: ")
    assert message in told
    assert "c1" not in told


def test_mixed_kinds_are_refused_and_marks_passed_over(tmp_path: Path) -> None:
    """A folder holds files of one kind; `_SUCCESS` and hidden files are other programs' marks."""
    write(tmp_path / "w" / "moves" / "a.csv", [MOVE])
    for mark in ("_SUCCESS", ".a.csv.crc", "_temporary.parquet"):
        (tmp_path / "w" / "moves" / mark).write_bytes(b"")
    assert only(import_all(bank(tmp_path / "w", {"streams.moves": "moves"}), NOW), "streams.moves").stored == 1
    (tmp_path / "w" / "moves" / "b.parquet").write_bytes(b"")
    assert "got .csv, .parquet at moves" in refused(tmp_path, "moves")


def test_a_missing_column_says_how_to_map_it(tmp_path: Path) -> None:
    """A required column that is not there lists what is, and how to rename."""
    write(tmp_path / "w" / "m.csv", [{"kunde": "c1", "time": "2026-01-01"}])
    told = refused(tmp_path, "m.csv")
    assert told == (
        "streams.moves: expected a column `customer_id` in m.csv, got kunde, time. "
        "Map it under `sources` in workspace.yaml: columns: {customer_id: <name in the file>}."
    )
    told = refused(tmp_path, {"path": "m.csv", "columns": {"customer_id": "kundin"}})
    assert told == (
        "streams.moves: expected a column `kundin` in m.csv, got kunde, time. "
        "Mend what `customer_id` is mapped to under `sources` in workspace.yaml: columns: {customer_id: <name in the file>}."
    )
    renamed = bank(tmp_path / "w", {"streams.moves": {"path": "m.csv", "columns": {"customer_id": "kunde"}}})
    assert only(import_all(renamed, NOW), "streams.moves").stored == 1


def test_an_unknown_rename_is_refused(tmp_path: Path) -> None:
    """A rename of a column that the table does not have is refused on import too, where no check ran before."""
    write(tmp_path / "w" / "m.csv", [MOVE])
    workspace = bank(tmp_path / "w", {"streams.moves": "m.csv"})
    source = importing.Source("m.csv", {"amont": "amount"})
    table = importing.tables_of(workspace)["streams.moves"]
    with pytest.raises(
        BadTable,
        match="expected `columns` of workspace.yaml to name canonical columns, got `amont`. Known: amount, customer_id, kind, time",
    ):
        importing.import_table(workspace, table, source, timeline.Timeline(), NOW)


def test_nested_values_are_refused(tmp_path: Path) -> None:
    """A Parquet column of structs or lists is no single value."""
    (tmp_path / "w").mkdir()
    rows = [{"customer_id": "c1", "time": datetime(2026, 1, 1, tzinfo=UTC), "kind": {"a": 1}}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "w" / "m.parquet")
    assert "expected one value a row in `kind` of m.parquet, got STRUCT(a BIGINT)" in refused(tmp_path, "m.parquet")

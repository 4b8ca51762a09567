"""Files that are no table: each class is refused with its message."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from features.workspace import timeline
from pipelines.importing import import_files
from pipelines.importing.import_files import BadTable, import_all
from tests.tiny_workspaces import MOVE, NOW, bank, only, write


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
        BadTable,
        match="streams.moves: expected a file, folder or glob, got nothing at m.csv. Mend `sources` in workspace.yaml.",
    ):
        import_all(workspace, NOW)
    (tmp_path / "w" / "empty").mkdir()
    assert "got nothing at empty" in refused(tmp_path, "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"not parquet", "m.parquet: expected a readable Parquet file, got: "),
        (
            "m.csv",
            b"customer_id,time\nc1,\xff\xfe\n",
            "m.csv, line 2, column `time`: expected UTF-8, got the byte 0xff. Save it as UTF-8.",
        ),
        (
            "m.csv",
            b"customer_id,\xfcber\n",
            "m.csv, line 1: expected UTF-8, got the byte 0xfc in the header. Save it as UTF-8.",
        ),
        (
            "m.csv",
            b"c\0u\0",
            "m.csv, line 1: expected text, got zero bytes, as UTF-16 without a mark has them. Save it as UTF-8.",
        ),
        (
            "m.csv",
            b"customer_id,time\nc1,2026-01-01,x\n",
            "m.csv, line 2: expected 2 cells, as the header has, got 3. Mend",
        ),
        (
            "m.csv",
            b"customer_id,time\nc1,2026-01-01,\n",
            "m.csv, line 2: expected 2 cells, as the header has, got 3. Mend",
        ),
        ("m.csv", b"customer_id,time\n\n\nc1\n", "m.csv, line 4: expected 2 cells, as the header has, got 1. Mend"),
        (
            "m.csv",
            b'customer_id,time\nc1,"2026\n',
            "m.csv, line 2, column `time`: expected each quote to be closed, got one that is open",
        ),
        (
            "m.csv",
            b'customer_id,time\n"c1,2026\n"c2",2026\n',
            "m.csv, line 2: expected a separator after a closing quote, got text",
        ),
        ("m.csv", b"", "m.csv, line 1: expected a header with each column once, got none. Mend its first line."),
        (
            "m.csv",
            b"customer_id,time,time\n",
            "m.csv, line 1: expected a header with each column once, got customer_id, time, time",
        ),
        ("m.csv", b"customer_id,\n", "got customer_id, an empty name"),
        ("m.csv.gz", b"not gzip", "m.csv.gz: expected a readable file, got: zlib inflate failed"),
        (
            "m.xlsx",
            b"",
            (
                "expected files of .parquet, .csv, .tsv; the latter two also with .gz or .zst, got .xlsx at m.xlsx."
                " Save it as CSV"
            ),
        ),
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


def test_a_folder_names_the_file_that_is_wrong(tmp_path: Path) -> None:
    """Of five files the third has a fault: its path and line are told, whatever the fault is; `_SUCCESS` and hidden
    files are passed over.
    """
    folder = tmp_path / "w" / "moves"
    for number in range(5):
        write(folder / f"{number}.csv", [MOVE | {"amount": str(number)}] * 3)
    for mark in ("_SUCCESS", ".a.csv.crc", "_temporary.parquet"):
        (folder / mark).write_bytes(b"")
    assert only(import_all(bank(tmp_path / "w", {"streams.moves": "moves"}), NOW), "streams.moves").stored == 15
    good = (folder / "2.csv").read_bytes()
    for more, told in (
        (b"c9,2026-06-02,1,card,\n", "moves/2.csv, line 5: expected 4 cells, as the header has, got 5."),
        (b'c9,2026-06-02,1,"card\n', "moves/2.csv, line 5, column `kind`: expected each quote to be closed"),
        (
            b"c9,2026-06-02,1,caf\xe9\n",
            "moves/2.csv, line 5, column `kind`: expected UTF-8, got the byte 0xe9. Save it as UTF-8.",
        ),
        (
            b'c9,2026-06-02,1,"a\nb"\nc9,2026-06-02\n',
            "moves/2.csv, line 7: expected 4 cells, as the header has, got 2.",
        ),
        (b'c9,2026-06-02,1,"a" b\n', "moves/2.csv, line 5: expected a separator after a closing quote, got text"),
    ):
        (folder / "2.csv").write_bytes(good + more)
        assert told in refused(tmp_path, "moves")
    (folder / "2.csv").write_bytes(good)
    (folder / "b.parquet").write_bytes(b"PAR1 is not all of it")
    assert "moves/b.parquet: expected a readable Parquet file, got: " in refused(tmp_path, "moves")


def test_damaged_pages_of_one_file_are_named(tmp_path: Path) -> None:
    """A Parquet file whose footer is whole and whose pages are not is named among its neighbours."""
    folder = tmp_path / "w" / "moves"
    folder.mkdir(parents=True)
    rows = {"customer_id": [f"c{n}" for n in range(5_000)], "time": [datetime(2026, 6, 1, tzinfo=UTC)] * 5_000}
    for number in range(3):
        pa.parquet.write_table(pa.table(rows), folder / f"{number}.parquet", compression="zstd")
    content = bytearray((folder / "1.parquet").read_bytes())
    content[60:400] = bytes(340)
    (folder / "1.parquet").write_bytes(content)
    assert "moves/1.parquet: expected a readable Parquet file, got: " in refused(tmp_path, "moves")


def test_a_missing_column_says_how_to_map_it(tmp_path: Path) -> None:
    """A required column that is not there lists what is, and how to rename."""
    write(tmp_path / "w" / "m.csv", [{"kunde": "c1", "time": "2026-01-01"}])
    told = refused(tmp_path, "m.csv")
    assert (
        told == "streams.moves: expected a column `customer_id` in m.csv, got kunde, time. "
        "Map it under `sources` in workspace.yaml: columns: {customer_id: <name in the file>}."
    )
    told = refused(tmp_path, {"path": "m.csv", "columns": {"customer_id": "kundin"}})
    assert (
        told
        == "streams.moves: expected a column `kundin` in m.csv, got kunde, time. Mend what `customer_id` is mapped to"
        " under `sources` in workspace.yaml: columns: {customer_id: <name in the file>}."
    )
    renamed = bank(tmp_path / "w", {"streams.moves": {"path": "m.csv", "columns": {"customer_id": "kunde"}}})
    assert only(import_all(renamed, NOW), "streams.moves").stored == 1


def test_an_unknown_rename_is_refused(tmp_path: Path) -> None:
    """A rename of a column that the table does not have is refused on import too, where no check ran before."""
    write(tmp_path / "w" / "m.csv", [MOVE])
    workspace = bank(tmp_path / "w", {"streams.moves": "m.csv"})
    source = import_files.Source("m.csv", {"amont": "amount"})
    table = import_files.tables_of(workspace)["streams.moves"]
    with pytest.raises(
        BadTable,
        match=(
            "expected `columns` of workspace.yaml to name canonical columns, got `amont`. Known: amount, customer_id,"
            " kind, time"
        ),
    ):
        import_files.import_table(workspace, table, source, timeline.Timeline(), NOW)


def test_nested_values_are_refused(tmp_path: Path) -> None:
    """A Parquet column of structs or lists is no single value."""
    (tmp_path / "w").mkdir()
    rows = [{"customer_id": "c1", "time": datetime(2026, 1, 1, tzinfo=UTC), "kind": {"a": 1}}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "w" / "m.parquet")
    assert "expected one value a row in `kind` of m.parquet, got STRUCT(a BIGINT)" in refused(tmp_path, "m.parquet")

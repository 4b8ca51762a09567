"""What an import makes of data as businesses have it: types, words, zones, clocks, places."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.following import BEHIND_SECONDS_MAX, followed, followed_sql, moment_of, moment_sql
from features.common.time_zones import zone_of
from features.common.timestamps import MICROSECONDS
from pipelines.importing.import_files import RowPlace, import_all
from pipelines.importing.report import notes
from tests.tiny_workspaces import CUSTOMER, NOW, bank, one, only, stored, write

TIME = datetime(2026, 6, 1, tzinfo=UTC)


def parquet(file: Path, **columns: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    first = next(iter(columns.values()))
    pq.write_table(pa.table({"time": [TIME + timedelta(seconds=n) for n in range(len(first))], **columns}), file)


def test_rows_are_judged_by_the_types_of_their_own_file(tmp_path: Path) -> None:
    """A later file of texts turns no earlier 900.0 into another customer; a fraction is refused beside it; categories
    lose their tail.
    """
    folder = tmp_path / "w" / "moves"
    parquet(folder / "1.parquet", customer_id=[900.0, 900.5], kind=[3.0, 2.5])
    workspace = bank(tmp_path / "w", {"streams.moves": "moves/*"})
    only(import_all(workspace, NOW), "streams.moves")
    parquet(folder / "2.parquet", kind=["3", "3.0"], customer_id=["901", "900.5"])
    parquet(
        folder / "3.parquet",
        customer_id=pa.array([902, 903], pa.uint64()),
        kind=pa.array([Decimal("3.00"), Decimal("2.50")]),
    )
    report = only(import_all(workspace, NOW), "streams.moves")
    assert (report.stored, report.duplicate, sum(report.refused.values())) == (4, 1, 1)
    assert report.refused_first == {next(iter(report.refused)): RowPlace("moves/1.parquet", 2, None, "customer_id")}
    kept = {(row[0], row[3]) for row in stored(workspace, "streams.moves")}
    assert kept == {("900", "3"), ("901", "3"), ("900.5", "3.0"), ("902", "3"), ("903", "2.5")}
    assert only(import_all(workspace, NOW), "streams.moves").stored == 0


def test_long_numbers_keep_their_digits(tmp_path: Path) -> None:
    """Ids beyond 2^53 are whole as decimals, as integers and as text."""
    digits = 10**20 + 7
    parquet(tmp_path / "w" / "m" / "1.parquet", customer_id=pa.array([Decimal(digits)], pa.decimal128(38, 0)))
    parquet(tmp_path / "w" / "m" / "2.parquet", customer_id=[2**62 + 1])
    parquet(tmp_path / "w" / "m" / "3.parquet", customer_id=[str(digits + 1)])
    workspace = bank(tmp_path / "w", {"streams.moves": "m"})
    assert only(import_all(workspace, NOW), "streams.moves").refused == {}
    assert [row[0] for row in stored(workspace, "streams.moves")] == [str(digits), str(digits + 1), str(2**62 + 1)]


@pytest.mark.parametrize(
    "content",
    [
        b"customer_id,time,kind\r\nc1,2026-06-01,a\r\nc2,2026-06-02,b\nc3,2026-06-03,c\rc4,2026-06-04,d",
        b"\xef\xbb\xbfcustomer_id;time;kind\nc1;2026-06-01;a\n\nc2;2026-06-02;b\nc3;2026-06-03;c\nc4;2026-06-04;d\n\n\n",
        b'"customer_id"\t"time"\t"kind"\r\n"c1"\t"2026-06-01"\t"a"\r\nc2\t2026-06-02\tb\r\nc3\t2026-06-03\tc\r\nc4\t2026-06-04\td\r\n',
        "customer_id,time,kind\nc1,2026-06-01,a\nc2,2026-06-02,b\nc3,2026-06-03,c\nc4,2026-06-04,d\n".encode("utf-16"),
    ],
    ids=["line ends mixed", "byte order mark and blank lines", "tabs and quotes", "UTF-16"],
)
@pytest.mark.parametrize("name", ["M.CSV", "M.CSV.GZ", "m.tsv"])
def test_everyday_csv_is_read(tmp_path: Path, content: bytes, name: str) -> None:
    """Line ends of several systems in one file, marks, blank lines, a last line without end, endings in capitals."""
    folder = tmp_path / "w" / "moves"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    (folder / "header.csv").write_bytes(b"customer_id,time,kind\n")
    (folder / "empty.csv").write_bytes(b"")
    workspace = bank(tmp_path / "w", {"streams.moves": "moves"})
    report = only(import_all(workspace, NOW), "streams.moves")
    assert (report.stored, report.refused) == (4, {})
    assert [(row[0], row[3]) for row in stored(workspace, "streams.moves")] == [
        ("c1", "a"),
        ("c2", "b"),
        ("c3", "c"),
        ("c4", "d"),
    ]


def test_numbers_and_booleans_of_csv_are_those_of_parquet(tmp_path: Path) -> None:
    """1_000 and hexadecimal are no numbers; 1.0 and 0.0 are booleans as in Parquet, 0.5 is none."""
    rows = [
        {"vip": "1.0"},
        {"vip": "0.0"},
        {"vip": "0.5"},
        {"income": "1_000"},
        {"age": "0x1F"},
        {"age": "1_0"},
        {"born": " 1980-02-03 "},
    ]
    workspace, report = one(
        tmp_path, "customers", [CUSTOMER | {"customer_id": f"c{at}"} | row for at, row in enumerate(rows)]
    )
    assert report.refused == {"`age` is not an integer": 2, "`income` is not a number": 1, "`vip` is not a boolean": 1}
    assert [row[5] for row in stored(workspace, "customers")] == [True, False, None]


def test_the_first_refused_row_of_each_reason_has_its_place(tmp_path: Path) -> None:
    """File, line and column, as the file calls it, in what is printed and in JSON; lines count within quotes and
    blank.
    """
    folder = tmp_path / "w" / "moves"
    folder.mkdir(parents=True)
    (folder / "1.csv").write_text('kunde,time,kind\nc1,2026-06-01,"two\nlines"\n\nc1,gestern,a\n,2026-06-01,b\n')
    (folder / "2.csv").write_text("kunde,time\nc1,heute\n")
    workspace = bank(tmp_path / "w", {"streams.moves": {"path": "moves", "columns": {"customer_id": "kunde"}}})
    report = only(import_all(workspace, NOW), "streams.moves")
    assert report.refused == {"`time` is not a time": 2, "`customer_id` is missing": 1}
    assert msgspec.to_builtins(report.refused_first) == {
        "`time` is not a time": {"file": "moves/1.csv", "row": 2, "line": 5, "column": "time"},
        "`customer_id` is missing": {"file": "moves/1.csv", "row": 3, "line": 6, "column": "kunde"},
    }
    told = list(notes(report))
    assert "refused in streams.moves: 2 rows: `time` is not a time (first in moves/1.csv, line 5)" in told
    assert (
        "refused in streams.moves: 1 row: `customer_id` is missing (first in moves/1.csv, line 6, column `kunde`)"
        in told
    )


WORDED = [
    CUSTOMER | {"city": "None", "age": "NULL", "born": "NaT", "vip": "undefined"},
    CUSTOMER | {"customer_id": "NaN", "city": "Graz"},
    CUSTOMER | {"customer_id": "c2", "city": " n/a "},
    CUSTOMER | {"customer_id": "c3", "city": "Nantes"},
]


def test_words_for_what_is_missing_are_missing(tmp_path: Path) -> None:
    """In any case and every column; each is told with its count, and a required one refuses its row."""
    workspace, report = one(tmp_path, "customers", WORDED)
    assert report.refused == {"`customer_id` is missing": 1}
    assert [(row[0], *row[2:]) for row in stored(workspace, "customers")] == [
        ("c1", None, None, None, None, None),
        ("c2", None, None, None, None, None),
        ("c3", "Nantes", None, None, None, None),
    ]
    words = {
        "city": {"None": 1, "n/a": 1},
        "age": {"NULL": 1},
        "vip": {"undefined": 1},
        "born": {"NaT": 1},
        "customer_id": {"NaN": 1},
    }
    assert report.words == words
    parquet(tmp_path / "p" / "m.parquet", customer_id=["null", "c1"], kind=["None", "x"])
    made = bank(tmp_path / "p", {"streams.moves": "m.parquet"})
    assert only(import_all(made, NOW), "streams.moves").words == {"customer_id": {"null": 1}, "kind": {"None": 1}}
    assert [row[0] for row in stored(made, "streams.moves")] == ["c1"]


def test_a_source_says_which_words_mean_missing(tmp_path: Path) -> None:
    """`missing: []` takes all words as values; another list stands in place of the usual one."""
    name = write(
        tmp_path / "w" / "c.csv", [CUSTOMER | {"city": "None"}, CUSTOMER | {"customer_id": "c2", "city": "Unknown"}]
    )
    for missing, cities in (([], ["None", "Unknown"]), (["unknown"], ["None", None]), (None, [None, "Unknown"])):
        source = {"path": name} | ({} if missing is None else {"missing": missing})
        workspace = bank(tmp_path / "w", {"customers": source})
        import_all(workspace, NOW)
        assert [row[2] for row in stored(workspace, "customers")] == cities


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *[
            ("asia/tokyo", 540),
            ("AMERICA/NEW YORK", -240),
            ("+01:00", 60),
            ("-0330", -210),
            ("UTC+2", 120),
            ("gmt-03:30", -210),
            ("Z", 0),
        ],
        *[("utc", 0), ("Etc/GMT+2", -120), ("+14", 840), ("UTC+5:45", 345), (" Europe/Vienna ", 120)],
    ],
)
def test_zones_as_people_write_them(text: str, minutes: int) -> None:
    """IANA's names in any case, and offsets; on a day in summer."""
    zone = zone_of(text)
    assert zone is not None
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(zone).utcoffset() == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    "text", ["", "+15:00", "-13", "+01:07", "+1:60", "UTC+", "CEST", "1", "+", "01:00", "Mars/Olympus", "+٣"]
)
def test_what_is_no_zone(text: str) -> None:
    """Abbreviations, offsets that nobody has, and anything else."""
    assert zone_of(text) is None


@pytest.fixture(scope="module")
def in_utc() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    return con


MOMENTS = st.integers(1_700_000_000 * MICROSECONDS, 1_800_000_000 * MICROSECONDS)
BEFORE = st.one_of(st.integers(0, 400 * MICROSECONDS), st.integers(0, 90_000 * MICROSECONDS))


@settings(max_examples=60, deadline=None)
@given(MOMENTS, BEFORE, st.sampled_from([0, MICROSECONDS, 3_600 * MICROSECONDS, 86_400 * MICROSECONDS]))
def test_sql_follows_as_python_does(in_utc: duckdb.DuckDBPyConnection, decided: int, before: int, clock: int) -> None:
    """One rule, in both; what is a little before, or coarse, counts at the decision's moment, and nothing counts before
    its own time.
    """
    time = decided - before
    time = time - time % clock if clock else time
    sql = followed_sql(f"make_timestamptz({time}::BIGINT)", moment_sql(f"'{decided:x}-170eb82a-1'"))
    assert in_utc.execute(f"SELECT epoch_us({sql})").fetchone() == (followed(time, decided),)
    assert moment_of(f"{decided:x}-170eb82a-1") == decided
    assert followed(time, decided) in (time, decided)
    if decided - time <= BEHIND_SECONDS_MAX * MICROSECONDS:
        assert followed(time, decided) == decided

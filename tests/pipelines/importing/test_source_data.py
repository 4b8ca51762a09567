"""What an import makes of data as businesses have it, and what it says of it: types, words, tails, zones, clocks,
places.
"""

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
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from features.common.following import BEHIND_SECONDS_MAX, followed, followed_sql, moment_of, moment_sql
from features.common.time_zones import zone_of
from features.common.timestamps import MICROSECONDS
from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.doctor.data import customers
from pipelines.doctor.data import data as data_checks
from pipelines.doctor.facts.gather import Facts
from pipelines.doctor.facts.lake import data
from pipelines.importing import table_fit
from pipelines.importing.import_files import RowPlace, import_all
from pipelines.importing.report import notes
from tests.tiny_workspaces import CUSTOMER, DECISION, MOVE, NOW, OUTCOME, bank, one, only, stored, write

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


def test_ids_with_tails_are_told_by_name(tmp_path: Path) -> None:
    """`9001.0` stays what it is; import and doctor say that no other table knows it, and that others have it without
    the tail.
    """
    write(tmp_path / "w" / "c.csv", [CUSTOMER | {"customer_id": str(9000 + n)} for n in range(30)])
    write(tmp_path / "w" / "m.csv", [MOVE | {"customer_id": f"{9000 + n}.0"} for n in range(30)])
    workspace = bank(tmp_path / "w", {"customers": "c.csv", "streams.moves": "m.csv"})
    report = only(import_all(workspace, NOW), "streams.moves")
    (shared,) = report.ids
    assert (shared.ids, shared.known, shared.unknown_rows, shared.tailed, shared.tailed_known) == (
        30,
        {"customers": 0},
        30,
        30,
        30,
    )
    told = list(notes(report))
    assert "streams.moves: none of its 30 customers is in customers" in told
    assert any(
        "30 customers end in `.0`, as 9000.0, 9001.0, 9002.0, 30 of which other tables have without it" in note
        for note in told
    )
    facts = Facts(workspace, NOW)
    found = [*data_checks.ids_in_common(facts).findings, *data_checks.ids_with_tails(facts).findings]
    assert {(finding.check, finding.severity) for finding in found} == {
        ("ids_in_common", "error"),
        ("ids_with_tails", "warning"),
    }


def test_a_customer_who_is_hardly_one_is_named(tmp_path: Path) -> None:
    """A default id that has a third of all events; with even shares nobody is named."""
    even = [MOVE | {"customer_id": f"c{n % 100}", "amount": str(n)} for n in range(400)]
    workspace, report = one(tmp_path, "streams.moves", even)
    assert not any(shared.absurd for shared in report.ids)
    guest = [MOVE | {"customer_id": "guest", "amount": str(n)} for n in range(200)]
    workspace, report = one(tmp_path / "more", "streams.moves", even + guest)
    assert any("33 % of its rows are of one of 101 customers, `guest`" in note for note in notes(report))
    [finding] = customers.absurd_shares(Facts(workspace, NOW)).findings
    assert "'guest'" in finding.what


def test_tables_that_fit_say_nothing(tmp_path: Path) -> None:
    """Where tables know each other's ids there is no note, and the report says how many they share."""
    write(tmp_path / "w" / "c.csv", [CUSTOMER | {"customer_id": f"c{n}"} for n in range(10)])
    write(
        tmp_path / "w" / "m.csv", [MOVE | {"customer_id": f"c{n}"} for n in range(8)] + [MOVE | {"customer_id": "new"}]
    )
    workspace = bank(tmp_path / "w", {"customers": "c.csv", "streams.moves": "m.csv"})
    reports = import_all(workspace, NOW)
    assert [note for report in reports for note in notes(report)] == []
    (shared,) = only(reports, "streams.moves").ids
    assert (shared.rows, shared.ids, shared.known, shared.unknown_rows) == (9, 9, {"customers": 8}, 1)
    assert only(reports, "customers").ids[0].known == {"streams.moves": 8}
    con = lake.connect(workspace)
    assert not isinstance(data(workspace, con), str)
    con.close()


def quiet_bank(folder: Path, rows: list[dict[str, Any]]) -> Workspace:
    """A bank whose customers have a time zone that quiet hours go by."""
    write(folder / "c.csv", rows)
    bank(folder, {"customers": "c.csv"}, features={"customer": {"attributes": {"zone": {"dtype": "category"}}}})
    hours = {"night": {"begin": "21:00", "end": "08:00", "time_zone": "customer.zone"}}
    (folder / "policies.yaml").write_text(yaml.safe_dump({"quiet_hours": hours}))
    return load(folder)


def test_time_zones_that_are_none_are_counted(tmp_path: Path) -> None:
    """Import and doctor tell which texts of the column that quiet hours look at are no zones, and of how many
    customers.
    """
    zones = ["Europe/Vienna", "asia/tokyo", "+01:00", "Vienna", "Vienna", "W. Europe Standard Time", ""]
    workspace = quiet_bank(
        tmp_path / "w", [CUSTOMER | {"customer_id": f"c{n}", "zone": zone} for n, zone in enumerate(zones)]
    )
    report = only(import_all(workspace, NOW), "customers")
    assert report.zones == {"zone": {"Vienna": 2, "W. Europe Standard Time": 1}}
    [finding] = customers.time_zones(Facts(workspace, NOW)).findings
    assert finding.evidence == {"column": "zone", "customers": 3, "Vienna": 2, "W. Europe Standard Time": 1}


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


def test_events_follow_the_decision_that_they_name(tmp_path: Path) -> None:
    """Whole seconds, clocks that are behind and dates alone count at the decision's moment, once; hours before are told
    and keep their time.
    """
    moment = "2026-06-01T10:00:05.412Z"
    told = {
        "d1": "2026-06-01T10:00:05Z",
        "d2": "2026-06-01T09:59:30Z",
        "d3": "2026-06-01",
        "d4": "2026-06-01T06:00:01Z",
        "d5": "2026-06-02",
    }
    write(tmp_path / "w" / "d.csv", [DECISION | {"decision_id": name, "time": moment} for name in told])
    write(tmp_path / "w" / "o.csv", [OUTCOME | {"decision_id": name, "time": time} for name, time in told.items()])
    write(tmp_path / "w" / "offers.csv", [{"offer_id": "o1"}])
    workspace = bank(tmp_path / "w", {"offers": "offers.csv", "decisions": "d.csv", "outcomes": "o.csv"})
    report = only(import_all(workspace, NOW), "outcomes")
    assert report.early == table_fit.Early(3, 1)
    told_of = list(notes(report))
    assert "outcomes: 3 rows happened just before the decision that they name, and count as at its moment" in told_of
    assert "outcomes: 1 row happened long before the decision that they name: nothing learns from them" in told_of
    con = lake.connect(workspace)
    times = dict(con.execute("SELECT decision_id, time FROM outcomes").fetchall())
    con.close()
    decided = datetime(2026, 6, 1, 10, 0, 5, 412_000, tzinfo=UTC)
    assert [times[name] == decided for name in told] == [True, True, True, False, False]
    assert times["d5"] == datetime(2026, 6, 2, tzinfo=UTC)
    again = only(import_all(workspace, NOW), "outcomes")
    assert (again.stored, again.early) == (0, report.early)

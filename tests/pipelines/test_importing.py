"""`opportune import`: what is stored, what is a duplicate, what is refused and why, and what a crash leaves."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from features import lake, timeline
from features.moments import parse_moment, to_microseconds
from features.workspace import Workspace, load
from pipelines import importing
from pipelines.importing import BadTable, Report, import_all
from tests.workspaces import make_workspace

NOW = parse_moment("2026-06-15T12:00:00Z")
ROOT = Path(__file__).resolve().parents[2]
TABLES = ("customers", "offers", "decisions", "outcomes", "streams.moves")

FEATURES = {
    "customer": {
        "attributes": {
            "city": {"dtype": "category"},
            "age": {"dtype": "integer"},
            "income": {"dtype": "number"},
            "vip": {"dtype": "boolean"},
            "born": {"dtype": "time"},
        }
    },
    "streams": {"moves": {"numbers": ["amount"], "categories": ["kind"]}},
    "offer": {"topics": {"dtype": "texts"}, "kind": {"dtype": "category"}},
    "context": {"channel": {"dtype": "category"}},
}
OFFER = {"offer_id": "o1"}
DECISION = {"decision_id": "d1", "customer_id": "c1", "time": "2026-06-01T10:00:00Z", "offer_id": "o1"}
MOVE = {"customer_id": "c1", "time": "2026-06-01T10:00:00Z", "amount": "1.5", "kind": "card"}
CUSTOMER = {"customer_id": "c1", "valid_from": "2026-01-01"}
OUTCOME = {"customer_id": "c1", "offer_id": "o1", "type": "yes", "time": "2026-06-02"}
ROWS: dict[str, dict[str, str]] = {"customers": CUSTOMER, "offers": OFFER, "decisions": DECISION, "outcomes": OUTCOME, "streams.moves": MOVE}


def bank(folder: Path, sources: dict[str, Any], demo: str | None = None, features: dict[str, Any] | None = None) -> Workspace:
    """A workspace whose tables come from these sources; streams by their full name."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: source for name, source in sources.items() if not name.startswith("streams.")}
    streams = {name.removeprefix("streams."): source for name, source in sources.items() if name.startswith("streams.")}
    settings = {"name": "bank", "sources": tables | {"streams": streams}} | ({"demo": {"now": demo}} if demo else {})
    content: dict[str, Any] = {
        "workspace.yaml": settings,
        "features.yaml": FEATURES | (features or {}),
        "offers.yaml": {"placements": {"home": {}}, "offers": [{"offer_id": "by-hand"}]},
        "model.yaml": {"name": "m", "label": {"outcome": "yes"}},
    }
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part, sort_keys=False))
    return load(folder)


def write(file: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    """A CSV file of these rows; the name that `sources` gives it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(delimiter.join(line) + "\n" for line in lines))
    return file.name


def one(tmp_path: Path, table: str, rows: list[dict[str, Any]]) -> tuple[Workspace, Report]:
    """The report of importing these rows as a table."""
    name = write(tmp_path / "w" / "rows.csv", rows)
    workspace = bank(tmp_path / "w", {table: name})
    return workspace, only(import_all(workspace, NOW), table)


def only(reports: list[Report], table: str) -> Report:
    (report,) = [report for report in reports if report.table == table]
    assert report.conserved
    return report


def stored(workspace: Workspace, table: str) -> list[tuple[Any, ...]]:
    """The rows of the lake, sorted, without the moment of their import."""
    con = lake.connect(workspace)
    rows = con.execute(f'SELECT * EXCLUDE (imported_at) FROM "{table.replace(".", "_")}"').fetchall()
    con.close()
    return sorted(rows, key=repr)


# Tables that cannot be read ---------------------------------------------------------------------------------------------


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
    with pytest.raises(BadTable, match="streams.moves: expected a file, folder or glob, got nothing at m.csv. Mend `sources` in workspace.yaml."):
        import_all(workspace, NOW)
    (tmp_path / "w" / "empty").mkdir()
    assert "got nothing at empty" in refused(tmp_path, "empty")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"not parquet", "expected a readable Parquet file at m.parquet, got: "),
        ("m.csv", b"customer_id,time\nc1,\xff\xfe\n", "expected a readable CSV file at m.csv, got: Invalid Input Error: CSV Error on Line: 2"),
        ("m.csv", b"customer_id,time\nc1,2026-01-01,x\n", "Expected Number of Columns: 2 Found: 3"),
        ("m.csv", b'customer_id,time\nc1,"2026\n', "unterminated quote"),
        ("m.csv", b"", "expected a header with each column once in m.csv, got none"),
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
    assert told == "streams.moves: expected a column `kundin` in m.csv, got kunde, time."
    renamed = bank(tmp_path / "w", {"streams.moves": {"path": "m.csv", "columns": {"customer_id": "kunde"}}})
    assert only(import_all(renamed, NOW), "streams.moves").stored == 1


def test_an_unknown_rename_is_refused(tmp_path: Path) -> None:
    """A rename of a column that the table does not have is refused on import too, where no check ran before."""
    write(tmp_path / "w" / "m.csv", [MOVE])
    workspace = bank(tmp_path / "w", {"streams.moves": "m.csv"})
    source = importing.Source("m.csv", {"amont": "amount"})
    table = importing.tables_of(workspace)["streams.moves"]
    with pytest.raises(BadTable, match="expected `columns` of workspace.yaml to name canonical columns, got `amont`. Known: amount, customer_id, kind, time"):
        importing.import_table(workspace, table, source, timeline.Timeline(), NOW)


def test_nested_values_are_refused(tmp_path: Path) -> None:
    """A Parquet column of structs or lists is no single value."""
    (tmp_path / "w").mkdir()
    rows = [{"customer_id": "c1", "time": datetime(2026, 1, 1, tzinfo=UTC), "kind": {"a": 1}}]
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "w" / "m.parquet")
    assert "expected one value a row in `kind` of m.parquet, got STRUCT(a BIGINT)" in refused(tmp_path, "m.parquet")


# Rows that are refused --------------------------------------------------------------------------------------------------

REASONS: list[tuple[str, dict[str, str], str]] = [
    ("streams.moves", {"customer_id": ""}, "`customer_id` is missing"),
    ("streams.moves", {"customer_id": "x" * 65}, "`customer_id` is longer than 64 characters"),
    ("streams.moves", {"customer_id": "a b"}, "`customer_id` has characters that an id may not have"),
    ("streams.moves", {"customer_id": "c1\u00e9"}, "`customer_id` has characters that an id may not have"),
    ("streams.moves", {"time": ""}, "`time` is missing"),
    ("streams.moves", {"time": "yesterday"}, "`time` is not a time"),
    ("streams.moves", {"time": "01.06.2026"}, "`time` is not a time"),
    ("streams.moves", {"time": "1780308000"}, "`time` is not a time"),
    ("streams.moves", {"time": "1969-12-31"}, "`time` is before 1970 or after 2199"),
    ("streams.moves", {"time": "-infinity"}, "`time` is before 1970 or after 2199"),
    ("streams.moves", {"time": "2200-01-01"}, "`time` is before 1970 or after 2199"),
    ("streams.moves", {"time": "2026-06-15T12:06:00Z"}, "`time` is in the future"),
    ("streams.moves", {"amount": "dear"}, "`amount` is not a number"),
    ("streams.moves", {"amount": "inf"}, "`amount` is not finite"),
    ("streams.moves", {"amount": "nan"}, "`amount` is not finite"),
    ("streams.moves", {"amount": "2e18"}, "`amount` is beyond 1e+18"),
    ("streams.moves", {"kind": "k" * 257}, "`kind` is longer than 256 characters"),
    ("customers", {"age": "4.5"}, "`age` is not an integer"),
    ("customers", {"age": "old"}, "`age` is not an integer"),
    ("customers", {"age": "9007199254740993"}, "`age` is beyond 9007199254740992"),
    ("customers", {"vip": "perhaps"}, "`vip` is not a boolean"),
    ("customers", {"born": "1899-12-31"}, "`born` is before 1900 or after 2199"),
    ("offers", {"valid_from": "2026-02-01", "valid_until": "2026-02-01"}, "`valid_until` is not after `valid_from`"),
    ("offers", {"placements": "home|hme"}, "`placements` has one that offers.yaml does not declare"),
    ("offers", {"topics": "t" * 257}, "`topics` has too long a text"),
    ("decisions", {"action_probability": "0"}, "`action_probability` is not above 0 and at most 1"),
    ("decisions", {"action_probability": "1.1"}, "`action_probability` is not above 0 and at most 1"),
    ("decisions", {"decision_id": ""}, "`decision_id` is missing"),
    ("decisions", {"offer_id": "a/b"}, "`offer_id` has characters that an id may not have"),
    ("outcomes", {"type": ""}, "`type` is missing"),
    ("outcomes", {"decision_id": "a b"}, "`decision_id` has characters that an id may not have"),
]


@pytest.mark.parametrize(("table", "bad", "reason"), REASONS, ids=[f"{table}-{n}" for n, (table, _, _) in enumerate(REASONS)])
def test_a_bad_row_is_refused_with_its_reason_and_the_good_one_stored(tmp_path: Path, table: str, bad: dict[str, str], reason: str) -> None:
    """Each reason to refuse is counted under its own words; the rows beside it are stored."""
    good = ROWS[table]
    workspace, report = one(tmp_path, table, [good, good | bad, good | bad])
    assert report.refused == {reason: 2}
    assert (report.read, report.stored, report.duplicate) == (3, 1, 0)
    assert len(stored(workspace, table)) == 1


def test_what_is_unusual_but_right_is_stored(tmp_path: Path) -> None:
    """Births before 1970, attributes from next year on, gaps, spaces around numbers, and the very edge of the future."""
    rows = [
        CUSTOMER | {"born": "1931-04-05", "age": " 95 ", "income": "1e-3", "vip": "yes", "city": "Sankt Pölten"},
        CUSTOMER | {"valid_from": "2027-01-01", "age": "4.0", "vip": "0"},
        {"customer_id": "c:2@x", "valid_from": "2026-06-15T12:05:00Z"},
    ]
    workspace, report = one(tmp_path, "customers", rows)
    assert (report.stored, report.refused) == (3, {})
    first = next(row for row in stored(workspace, "customers") if row[2] == "Sankt Pölten")
    assert first[3:6] == (95, 0.001, True)
    assert first[6] == datetime(1931, 4, 5, tzinfo=UTC)


def test_an_end_beyond_counting_is_no_end(tmp_path: Path) -> None:
    """9999-12-31, 2200 and infinity mean that an offer does not end; 1900 that it always was."""
    rows = [OFFER | {"offer_id": f"o{n}", "valid_until": end, "valid_from": "1900-01-01"} for n, end in enumerate(["9999-12-31", "2200-01-01", "infinity"])]
    workspace, report = one(tmp_path, "offers", rows)
    assert report.refused == {}
    assert {(row[2], row[3]) for row in stored(workspace, "offers")} == {(None, None)}


# Idempotence ------------------------------------------------------------------------------------------------------------


def test_the_same_again_is_a_duplicate(tmp_path: Path) -> None:
    """A second import stores nothing, whether it recognizes the files, the rows alone, or a newer import between."""
    folder = tmp_path / "w"
    sources = {table: write(folder / f"{table}.csv", [row, row | {"customer_id": "c2"} if "customer_id" in row else row]) for table, row in ROWS.items()}
    workspace = bank(folder, sources)
    first = import_all(workspace, NOW)
    before = {table: stored(workspace, table) for table in TABLES}
    again = import_all(workspace, NOW)
    shutil.rmtree(workspace.data / "imports")  # no memory of what was imported: only the rows tell
    third = import_all(workspace, NOW)
    for reports in (again, third):
        assert all(report.stored == 0 and report.conserved for report in reports)
        assert [report.read for report in reports] == [report.read for report in first]
    assert before == {table: stored(workspace, table) for table in TABLES}


def test_overlapping_files_count_each_event_once(tmp_path: Path) -> None:
    """Days 1 to 3, then 2 to 4, one after the other or as two files of a folder: four days; two equal events of a file stay two."""
    days = [MOVE | {"time": f"2026-06-0{day}"} for day in range(1, 5)]
    folder = tmp_path / "turns"
    write(folder / "a.csv", [*days[:3], days[0]])
    workspace = bank(folder, {"streams.moves": "a.csv"})
    assert only(import_all(workspace, NOW), "streams.moves").stored == 4
    write(folder / "a.csv", [*days[1:], days[0], days[0], days[0]])
    report = only(import_all(workspace, NOW), "streams.moves")
    assert (report.stored, report.duplicate) == (2, 4)  # one day is new, and the first day's event now occurs a third time
    write(tmp_path / "w" / "moves" / "1.csv", [*days[:3], days[0]])
    write(tmp_path / "w" / "moves" / "2.csv", [*days[1:], days[0], days[0], days[0]])
    together = bank(tmp_path / "w", {"streams.moves": "moves/*.csv"})
    report = only(import_all(together, NOW), "streams.moves")
    assert (report.read, report.stored, report.duplicate) == (10, 6, 4)
    assert stored(together, "streams.moves") == stored(workspace, "streams.moves")


def test_a_changed_attribute_is_a_new_version(tmp_path: Path) -> None:
    """The same key with another content replaces the older; going back to the first is a change again; the last row of a file wins."""
    folder = tmp_path / "w"
    workspace = bank(folder, {"customers": write(folder / "c.csv", [CUSTOMER | {"city": "Wien"}])})
    cities = []
    for city in ("Wien", "Graz", "Wien", "Wien"):
        write(folder / "c.csv", [CUSTOMER | {"city": "Linz"}, CUSTOMER | {"city": city}])
        report = only(import_all(workspace, NOW), "customers")
        cities.append((stored(workspace, "customers")[0][2], report.stored, report.duplicate))
    assert cities == [("Wien", 1, 1), ("Graz", 1, 1), ("Wien", 1, 1), ("Wien", 0, 2)]


def test_a_decision_that_says_something_else_is_refused(tmp_path: Path) -> None:
    """A decision's offer was shown in one context: another row of it is a duplicate or a contradiction, in a file and across."""
    folder = tmp_path / "w"
    other = "another row with the same `decision_id` and `offer_id` says something else"
    rows = [DECISION | {"channel": "app"}, DECISION | {"channel": "web"}, DECISION | {"channel": "app"}, DECISION | {"offer_id": "o2"}]
    workspace = bank(folder, {"decisions": write(folder / "d.csv", rows)})
    report = only(import_all(workspace, NOW), "decisions")
    assert (report.stored, report.duplicate, report.refused) == (2, 1, {other: 1})
    write(folder / "d.csv", [DECISION | {"channel": "shop"}, DECISION | {"channel": "app"}, DECISION | {"offer_id": "o3", "channel": "app"}])
    report = only(import_all(workspace, NOW), "decisions")
    assert (report.stored, report.duplicate, report.refused) == (1, 1, {other: 1})
    assert [row[6] for row in stored(workspace, "decisions")] == ["app", None, "app"]


def test_rows_of_the_future_are_stored_when_their_time_has_come(tmp_path: Path) -> None:
    """A refused row is looked at again by the next import of the same file."""
    workspace, report = one(tmp_path, "streams.moves", [MOVE | {"time": "2026-06-16"}])
    assert report.refused == {"`time` is in the future": 1}
    later = only(import_all(workspace, NOW + 86_400_000_000), "streams.moves")
    assert (later.stored, later.refused) == (1, {})


@pytest.mark.parametrize("table", ["streams.moves", "decisions"])
def test_a_column_declared_later_does_not_double_the_rows(tmp_path: Path, table: str) -> None:
    """Rows that the lake has without a new column are not stored beside themselves: the message says what to remove."""
    folder = tmp_path / "w"
    rows = [ROWS[table] | {"extra": "x", "time": f"2026-06-0{day}", "decision_id": f"d{day}"} for day in range(1, 4)]
    sources = {table: write(folder / "rows.csv", rows)}
    report = only(import_all(bank(folder, sources), NOW), table)
    assert "extra" in report.ignored
    more: dict[str, Any] = {"streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "extra"]}}}
    if table == "decisions":
        more = {"context": FEATURES["context"] | {"extra": {"dtype": "category"}}}
    richer = bank(folder, sources, features=more)
    with pytest.raises(BadTable, match="got 3 that it has without extra, which were declared later. Remove .*lake"):
        import_all(richer, NOW)
    write(folder / "rows.csv", [ROWS[table] | {"extra": "y", "time": "2026-06-05", "decision_id": "d5"}])
    assert only(import_all(richer, NOW), table).stored == 1  # what is new anyway may have it
    shutil.rmtree(richer.lake / importing.tables_of(richer)[table].folder)
    write(folder / "rows.csv", rows)
    assert only(import_all(richer, NOW), table).stored == 3


def test_a_type_declared_anew_reads_what_fits(tmp_path: Path) -> None:
    """A category that becomes a number: what is stored is read as numbers, and the rest is missing."""
    folder = tmp_path / "w"
    sources = {"customers": write(folder / "c.csv", [CUSTOMER | {"city": "12"}, CUSTOMER | {"customer_id": "c2", "city": "Graz"}])}
    import_all(bank(folder, sources), NOW)
    number = {"customer": {"attributes": {"city": {"dtype": "number"}}}}
    assert [row[2] for row in stored(bank(folder, sources, features=number), "customers")] == [12.0, None]


# Formats and times ------------------------------------------------------------------------------------------------------


def test_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    """The same rows as CSV, semicolons, gzip and Parquet make the same lake; lists are `|` in a cell."""
    moment = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {"offer_id": f"o{n}", "name": f"Offer, {n}", "valid_from": moment, "value": n / 3, "placements": ["home"], "topics": topics, "kind": "k"}
        for n, topics in enumerate([["a", "b"], ["a"], None])
    ]
    cells = [row | {"name": f'"{row["name"]}"', "placements": "home", "topics": " |".join(row["topics"] or []), "valid_from": moment.isoformat()} for row in rows]
    write(tmp_path / "csv" / "o.csv", cells)
    write(tmp_path / "semicolons" / "o.csv", cells, ";")
    write(tmp_path / "zipped" / "o.csv", cells)
    (tmp_path / "zipped" / "o.csv.gz").write_bytes(gzip.compress((tmp_path / "zipped" / "o.csv").read_bytes().replace(b"\n", b"\r\n")))
    (tmp_path / "parquet").mkdir()
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "o.parquet")
    lakes = []
    for kind, file in (("csv", "o.csv"), ("semicolons", "o.csv"), ("zipped", "o.csv.gz"), ("parquet", "o.parquet")):
        workspace = bank(tmp_path / kind, {"offers": file})
        assert only(import_all(workspace, NOW), "offers").refused == {}
        lakes.append(stored(workspace, "offers"))
    assert lakes[0] == lakes[1] == lakes[2] == lakes[3]
    assert [row[6] for row in lakes[0]] == [["a", "b"], ["a"], None]


def test_times_are_utc_unless_they_say_otherwise(tmp_path: Path) -> None:
    """An offset counts, a time without one is UTC, a date is its first moment; Parquet's kinds of time are one time."""
    texts = ["2026-06-01T10:00:00Z", "2026-06-01T12:00:00+02:00", "2026-06-01 10:00:00", "2026-06-01T05:30:00-04:30", "2026-06-01"]
    workspace, report = one(tmp_path, "streams.moves", [MOVE | {"time": text, "kind": str(n)} for n, text in enumerate(texts)])
    assert report.refused == {}
    ten = datetime(2026, 6, 1, 10, tzinfo=UTC)
    assert {row[3]: row[1] for row in stored(workspace, "streams.moves")} == {"0": ten, "1": ten, "2": ten, "3": ten, "4": ten.replace(hour=0)}
    for number, kind in enumerate([pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Vienna"), pa.date32()]):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        moment = ten.date() if kind == pa.date32() else ten
        table = pa.table({"customer_id": ["c1"], "time": pa.array([moment if getattr(kind, "tz", None) or kind == pa.date32() else moment.replace(tzinfo=None)], kind)})
        pa.parquet.write_table(table, folder / "m.parquet")
        made = bank(folder, {"streams.moves": "m.parquet"})
        import_all(made, NOW)
        assert stored(made, "streams.moves")[0][1] == (ten.replace(hour=0) if kind == pa.date32() else ten), kind


def test_ids_and_categories_of_numbers_have_no_tail(tmp_path: Path) -> None:
    """Whole numbers that a tool stored as floats, or as integers, are the texts that CSV has; a gap among them is missing."""
    (tmp_path / "w").mkdir()
    table = pa.table({"customer_id": [1042, 7], "valid_from": [datetime(2026, 1, 1, tzinfo=UTC)] * 2, "city": [3.0, float("nan")], "vip": [1.0, 0.0], "age": [4.0, None]})
    pa.parquet.write_table(table, tmp_path / "w" / "c.parquet")
    workspace = bank(tmp_path / "w", {"customers": "c.parquet"})
    assert only(import_all(workspace, NOW), "customers").refused == {}
    assert [(row[0], row[2], row[3], row[5]) for row in stored(workspace, "customers")] == [("1042", "3", 4, True), ("7", None, None, False)]


def test_folders_and_extra_columns_are_told(tmp_path: Path) -> None:
    """The report names the files that were read and the columns that were not; columns may differ in order between files."""
    write(tmp_path / "w" / "moves" / "1.csv", [MOVE | {"note": "x"}])
    write(tmp_path / "w" / "moves" / "deep" / "2.csv", [dict(reversed(list((MOVE | {"kind": "cash"}).items())))])
    report = only(import_all(bank(tmp_path / "w", {"streams.moves": "moves"}), NOW), "streams.moves")
    assert (report.files, report.ignored, report.stored) == (["moves/1.csv", "moves/deep/2.csv"], ["note"], 2)


# The timeline of demo data ----------------------------------------------------------------------------------------------


def test_demo_data_is_moved_by_whole_weeks_once(tmp_path: Path) -> None:
    """The source's now comes to lie within the last week; weekdays stay; a later import lands on the same offset."""
    folder = tmp_path / "w"
    name = write(folder / "m.csv", [MOVE | {"time": "2017-03-03T10:00:00Z"}])
    born = {"customers": write(folder / "c.csv", [CUSTOMER | {"valid_from": "2017-01-01", "born": "1980-02-03"}])}
    workspace = bank(folder, born | {"streams.moves": name}, demo="2018-01-01")
    import_all(workspace, NOW)
    moved = timeline.recorded(workspace)
    assert moved is not None
    week = timedelta(weeks=1)
    shift = timedelta(microseconds=moved.offset)
    assert shift % week == timedelta(0)
    assert timedelta(0) <= timedelta(microseconds=NOW) - (timedelta(microseconds=parse_moment("2018-01-01")) + shift) < week
    time = stored(workspace, "streams.moves")[0][1]
    source = datetime(2017, 3, 3, 10, tzinfo=UTC)
    assert (time - shift, time.weekday()) == (source, source.weekday())
    assert stored(workspace, "customers")[0][6] == datetime(1980, 2, 3, tzinfo=UTC) + shift  # so that nobody ages
    later = NOW + 40 * 86_400_000_000
    write(folder / "m.csv", [MOVE | {"time": "2017-03-03T10:00:00Z"}, MOVE | {"time": "2017-12-31"}])
    report = only(import_all(workspace, later), "streams.moves")
    assert (report.stored, report.duplicate) == (1, 1)
    assert timeline.recorded(workspace) == moved
    assert timeline.shown(moved, to_microseconds(time)).startswith("2017-03-03T10:00:00Z (moved to 20")
    assert json.loads((workspace.data / "imports.json").read_text())["offset_weeks"] == moved.weeks


def test_real_data_is_not_moved(tmp_path: Path) -> None:
    """Without `demo` times are what they are."""
    workspace, _ = one(tmp_path, "streams.moves", [MOVE])
    assert timeline.recorded(workspace) == timeline.Timeline(0)
    assert timeline.shown(timeline.Timeline(0), NOW) == "2026-06-15T12:00:00Z"


# Conservation and crashes -----------------------------------------------------------------------------------------------


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    """Read = stored + duplicate + refused, over random rows of which many are bad, double or contradict each other."""
    chance = random.Random(7)
    choices = {"decision_id": ["d1", "d2", "", "d 3"], "offer_id": ["o1", "o2", ""], "time": ["2026-06-01", "x", ""], "channel": ["app", "web", ""]}
    rows = [DECISION | {name: chance.choice(values) for name, values in choices.items()} for _ in range(400)]
    workspace, report = one(tmp_path, "decisions", rows)
    assert report.read == 400
    assert min(report.stored, report.duplicate, len(report.refused)) > 2
    assert len(stored(workspace, "decisions")) == report.stored
    moves = [MOVE | {"time": chance.choice(["2026-06-01", "2026-06-02", "z"]), "amount": chance.choice(["1", "2", "inf"])} for _ in range(400)]
    workspace, report = one(tmp_path / "moves", "streams.moves", moves)
    good = Counter((row["time"], row["amount"]) for row in moves if row["time"] != "z" and row["amount"] != "inf")
    assert (report.read, report.stored, len(stored(workspace, "streams.moves"))) == (400, good.total(), good.total())


KILLED = """
import sys
from pathlib import Path
from features.workspace import load
from pipelines.importing import import_all
print("ready", flush=True)
sys.stdin.readline()
import_all(load(Path(sys.argv[1])), int(sys.argv[2]))
"""


def test_a_killed_import_is_mended_by_the_next(tmp_path: Path) -> None:
    """Killed at random moments and then repeated, an import leaves the very rows that a clean one does."""
    now = to_microseconds(datetime.now(UTC))
    folder = make_workspace(tmp_path / "w", customers=20, decisions=2, days=12)
    workspace = load(folder)
    began = time.monotonic()
    import_all(workspace, now)
    took = time.monotonic() - began
    tables = [table.name for table in importing.tables_of(workspace).values()]
    clean = {table: stored(workspace, table) for table in tables}
    chance, killed = random.Random(3), 0
    for _ in range(5):
        shutil.rmtree(workspace.data)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(now)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process, process.stdin, process.stdout:
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("\n")
            process.stdin.flush()
            time.sleep(chance.uniform(0.1, 1.1) * took)
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        import_all(workspace, now)
        assert {table: stored(workspace, table) for table in tables} == clean
        assert not list((workspace.data / "aside").iterdir())
    assert killed > 0

"""Rows: which are refused and why, and what the others become."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from pipelines.importing.import_files import import_all
from tests.tiny_workspaces import CUSTOMER, MOVE, NOW, OFFER, ROWS, bank, one, only, stored, write

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


@pytest.mark.parametrize(
    ("table", "bad", "reason"), REASONS, ids=[f"{table}-{n}" for n, (table, _, _) in enumerate(REASONS)]
)
def test_a_bad_row_is_refused_with_its_reason_and_the_good_one_stored(
    tmp_path: Path, table: str, bad: dict[str, str], reason: str
) -> None:
    """Each reason to refuse is counted under its own words; the rows beside it are stored."""
    good = ROWS[table]
    workspace, report = one(tmp_path, table, [good, good | bad, good | bad])
    assert report.refused == {reason: 2}
    assert (report.read, report.stored, report.duplicate) == (3, 1, 0)
    assert len(stored(workspace, table)) == 1


def test_what_is_unusual_but_right_is_stored(tmp_path: Path) -> None:
    """Births before 1970, attributes from next year on, gaps, spaces around numbers, and the very edge of the
    future.
    """
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
    rows = [
        OFFER | {"offer_id": f"o{n}", "valid_until": end, "valid_from": "1900-01-01"}
        for n, end in enumerate(["9999-12-31", "2200-01-01", "infinity"])
    ]
    workspace, report = one(tmp_path, "offers", rows)
    assert report.refused == {}
    assert {(row[2], row[3]) for row in stored(workspace, "offers")} == {(None, None)}


def test_csv_and_parquet_are_the_same(tmp_path: Path) -> None:
    """The same rows as CSV, semicolons, gzip and Parquet make the same lake; lists are `|` in a cell."""
    moment = datetime(2026, 6, 1, 8, 30, tzinfo=UTC)
    rows: list[dict[str, Any]] = [
        {
            "offer_id": f"o{n}",
            "name": f"Offer, {n}",
            "valid_from": moment,
            "value": n / 3,
            "placements": ["home"],
            "topics": topics,
            "kind": "k",
        }
        for n, topics in enumerate([["a", "b"], ["a"], None])
    ]
    cells = [
        row
        | {
            "name": f'"{row["name"]}"',
            "placements": "home",
            "topics": " |".join(row["topics"] or []),
            "valid_from": moment.isoformat(),
        }
        for row in rows
    ]
    write(tmp_path / "csv" / "o.csv", cells)
    write(tmp_path / "semicolons" / "o.csv", cells, ";")
    write(tmp_path / "zipped" / "o.csv", cells)
    (tmp_path / "zipped" / "o.csv.gz").write_bytes(
        gzip.compress((tmp_path / "zipped" / "o.csv").read_bytes().replace(b"\n", b"\r\n"))
    )
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
    texts = [
        "2026-06-01T10:00:00Z",
        "2026-06-01T12:00:00+02:00",
        "2026-06-01 10:00:00",
        "2026-06-01T05:30:00-04:30",
        "2026-06-01",
    ]
    workspace, report = one(
        tmp_path, "streams.moves", [MOVE | {"time": text, "kind": str(n)} for n, text in enumerate(texts)]
    )
    assert report.refused == {}
    ten = datetime(2026, 6, 1, 10, tzinfo=UTC)
    assert {row[3]: row[1] for row in stored(workspace, "streams.moves")} == {
        "0": ten,
        "1": ten,
        "2": ten,
        "3": ten,
        "4": ten.replace(hour=0),
    }
    for number, kind in enumerate(
        [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("us", "Europe/Vienna"), pa.date32()]
    ):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        moment = ten.date() if kind == pa.date32() else ten
        table = pa.table(
            {
                "customer_id": ["c1"],
                "time": pa.array(
                    [moment if getattr(kind, "tz", None) or kind == pa.date32() else moment.replace(tzinfo=None)], kind
                ),
            }
        )
        pa.parquet.write_table(table, folder / "m.parquet")
        made = bank(folder, {"streams.moves": "m.parquet"})
        import_all(made, NOW)
        assert stored(made, "streams.moves")[0][1] == (ten.replace(hour=0) if kind == pa.date32() else ten), kind


def test_ids_and_categories_of_numbers_have_no_tail(tmp_path: Path) -> None:
    """Whole numbers that a tool stored as floats, or as integers, are the texts that CSV has; a gap among them is
    missing.
    """
    (tmp_path / "w").mkdir()
    table = pa.table(
        {
            "customer_id": [1042, 7],
            "valid_from": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
            "city": [3.0, float("nan")],
            "vip": [1.0, 0.0],
            "age": [4.0, None],
        }
    )
    pa.parquet.write_table(table, tmp_path / "w" / "c.parquet")
    workspace = bank(tmp_path / "w", {"customers": "c.parquet"})
    assert only(import_all(workspace, NOW), "customers").refused == {}
    assert [(row[0], row[2], row[3], row[5]) for row in stored(workspace, "customers")] == [
        ("1042", "3", 4, True),
        ("7", None, None, False),
    ]


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.decimal128(20, 2)], ids=str)
def test_ids_that_came_as_floats_are_whole_or_refused(tmp_path: Path, kind: pa.DataType) -> None:
    """900.0 is the id 900 and a gap is missing; a fraction, and what a float cannot tell from its neighbours, is
    refused; decimals keep digits.
    """
    (tmp_path / "w").mkdir()
    ids = pa.array([Decimal(900), None, Decimal("900.5"), Decimal(10**17)]).cast(kind)
    moment = datetime(2026, 6, 1, tzinfo=UTC)
    table = pa.table({"customer_id": ids, "offer_id": ["o1"] * 4, "type": ["accepted"] * 4, "time": [moment] * 4})
    pa.parquet.write_table(table, tmp_path / "w" / "o.parquet")
    workspace = bank(tmp_path / "w", {"outcomes": "o.parquet"})
    told = "`customer_id` is a float, but no whole number up to 9007199254740992: store ids as texts or integers"
    exact = pa.types.is_decimal(kind)
    assert only(import_all(workspace, NOW), "outcomes").refused == {
        told: 1 if exact else 2,
        "`customer_id` is missing": 1,
    }
    assert [row[1] for row in stored(workspace, "outcomes")] == (["100000000000000000", "900"] if exact else ["900"])


def test_folders_and_extra_columns_are_told(tmp_path: Path) -> None:
    """The report names the files that were read and the columns that were not; columns may differ in order between
    files.
    """
    write(tmp_path / "w" / "moves" / "1.csv", [MOVE | {"note": "x"}])
    write(tmp_path / "w" / "moves" / "deep" / "2.csv", [dict(reversed(list((MOVE | {"kind": "cash"}).items())))])
    report = only(import_all(bank(tmp_path / "w", {"streams.moves": "moves"}), NOW), "streams.moves")
    assert (report.files, report.ignored, report.stored) == (["moves/1.csv", "moves/deep/2.csv"], ["note"], 2)

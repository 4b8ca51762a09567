"""Any rows, in any split of files, in any mix of Parquet types and CSV dialects, give the lake of one plain file."""

from __future__ import annotations

import csv
import gzip
import io
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.importing import csv_files
from pipelines.importing.csv_files import batches, is_plain, read_header, records
from pipelines.importing.errors import BadFile
from pipelines.importing.import_files import import_all
from tests.tiny_workspaces import NOW, bank, only, stored

Row = dict[str, Any]

TIMES = st.integers(0, 10_000_000).map(lambda seconds: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))
WORD = st.sampled_from(["None", "nan", "NULL", "n/a", "undefined"])
TEXTS = st.one_of(
    st.sampled_from(
        ["card", "a,b", 'say "hi"', "x;y\tz", "two\nlines", "two\r\nlines", " edge ", "ü€😀", "3.0", "'", "-"]
    ),
    WORD,
)
NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6).map(lambda n: n / 4), st.none())
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "customer_id": st.one_of(st.integers(1, 2**60), st.integers(1, 50)),
            "time": TIMES,
            "amount": NUMBERS,
            "kind": st.one_of(st.integers(0, 9), TEXTS, st.none()),
        }
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: (row["customer_id"], row["time"]),
)
DIALECTS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["csv", "CSV", "csv.gz", "CSV.GZ", "tsv", "csv.zst"]),
        "delimiter": st.sampled_from(",;\t"),
        "ends": st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=3),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "tail": st.sampled_from(["", "cut", "blank"]),
        "turned": st.booleans(),
        "offset": st.booleans(),
    }
)
KINDS = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from(
            ["int64", "uint64", "text", "large", "dictionary", "double", "decimal0", "decimal2"]
        ),
        "time": st.sampled_from(["us", "us-naive", "ns", "ms", "zone", "text"]),
        "amount": st.sampled_from(["double", "float", "int", "decimal", "text", "nulls"]),
        "kind": st.sampled_from(["text", "large", "dictionary", "double", "int", "decimal"]),
        "turned": st.booleans(),
        "more": st.booleans(),
    }
)
FILES = st.lists(st.tuples(ROWS, st.one_of(DIALECTS, KINDS)), min_size=1, max_size=4)


def text(value: Any) -> str:
    return "" if value is None else str(value)


def moment(value: datetime, *, offset: bool) -> str:
    return (
        (value.astimezone(UTC) + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S+02:00")
        if offset
        else value.strftime("%Y-%m-%d %H:%M:%SZ")
    )


def write_csv(place: Path, rows: list[Row], dialect: dict[str, Any]) -> Path:
    """A file in a dialect: each line has its own end, by turns."""
    names = ["customer_id", "time", "amount", "kind"]
    names = names[::-1] if dialect["turned"] else names
    lines = []
    for row in [
        dict(zip(names, names, strict=True)),
        *({**row, "time": moment(row["time"], offset=dialect["offset"])} for row in rows),
    ]:
        line = io.StringIO()
        csv.writer(line, delimiter=dialect["delimiter"], quoting=dialect["quoting"]).writerow(
            [text(row[n]) for n in names]
        )
        lines.append(line.getvalue().removesuffix("\r\n"))
    ends = dialect["ends"]
    content = "".join(line + ends[at % len(ends)] for at, line in enumerate(lines))
    content = (
        content.rstrip("\r\n")
        if dialect["tail"] == "cut"
        else content + ends[0] * 3
        if dialect["tail"] == "blank"
        else content
    )
    data = content.encode(dialect["encoding"])
    file = place.with_name(f"{place.name}.{dialect['name']}")
    if dialect["name"].lower().endswith(".gz"):
        data = gzip.compress(data)
    elif dialect["name"].endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    file.write_bytes(data)
    return file


def fits(kind: str, values: list[Any]) -> bool:
    """Whether a column of this type holds the values exactly."""
    numbers = [value for value in values if value is not None]
    if kind in ("text", "large", "dictionary"):
        return True
    if any(isinstance(value, str) for value in numbers):
        return False
    if kind in ("int64", "uint64", "int", "decimal0"):
        return all(float(value).is_integer() for value in numbers)
    if kind in ("double", "float"):
        return all(abs(value) <= (2**53 if kind == "double" else 2**20) for value in numbers)
    return kind != "nulls" or not numbers


def array(kind: str, values: list[Any]) -> pa.Array:  # type: ignore[type-arg]
    """Values as a column of a type; as text where that type does not hold them."""
    kind = kind if fits(kind, values) else "text"
    plain = [None if value is None else text(value) for value in values]
    types = {
        "int64": pa.int64(),
        "uint64": pa.uint64(),
        "int": pa.int32(),
        "double": pa.float64(),
        "float": pa.float32(),
    }
    if kind in types:
        return pa.array(
            [None if value is None else (float if "o" in kind else int)(value) for value in values], types[kind]
        )
    if kind.startswith("decimal"):
        return pa.array(
            [None if value is None else Decimal(text(value)) for value in values],
            pa.decimal128(38, 0 if kind == "decimal0" else 2),
        )
    if kind == "nulls":
        return pa.nulls(len(values))
    return (
        pa.array(plain, pa.large_string())
        if kind == "large"
        else pa.array(plain).dictionary_encode()
        if kind == "dictionary"
        else pa.array(plain)
    )


def write_parquet(place: Path, rows: list[Row], kinds: dict[str, Any]) -> Path:
    """A file whose columns have these types."""
    times = {
        "us": pa.timestamp("us", "UTC"),
        "us-naive": pa.timestamp("us"),
        "ns": pa.timestamp("ns", "UTC"),
        "ms": pa.timestamp("ms"),
    }
    columns = {name: array(kinds[name], [row[name] for row in rows]) for name in ("customer_id", "amount", "kind")}
    seen = [row["time"] for row in rows]
    if kinds["time"] == "text":
        columns["time"] = pa.array([moment(value, offset=True) for value in seen])
    else:
        naive = kinds["time"] in ("us-naive", "ms")
        columns["time"] = pa.array(
            [value.replace(tzinfo=None) if naive else value for value in seen],
            times.get(kinds["time"], pa.timestamp("us", "Asia/Tokyo")),
        )
    if all(row["amount"] is None for row in rows) and kinds["more"]:
        del columns["amount"]
    if kinds["more"]:
        columns["note"] = pa.array([1] * len(rows))
    order = list(columns)[::-1] if kinds["turned"] else list(columns)
    file = place.with_name(f"{place.name}.parquet")
    pq.write_table(pa.table({name: columns[name] for name in order}), file)
    return file


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES)
def test_any_split_types_and_dialects_are_one_lake(
    tmp_path: Path, files: list[tuple[list[Row], dict[str, Any]]]
) -> None:
    """The same rows in many files, each written its own way, and in one plain file, are one lake; importing again
    changes nothing.
    """
    folder = tmp_path / "w"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "many").mkdir(parents=True)
    (folder / "one").mkdir()
    unique = {
        (row["customer_id"], row["time"]): row for rows, _ in files for row in rows
    }  # what two files have is one event
    for number, (rows, how) in enumerate(files):
        rows = [row for row in rows if unique.pop((row["customer_id"], row["time"]), None) is not None]
        (write_csv if "delimiter" in how else write_parquet)(folder / "many" / f"{number}", rows, how) if rows else None
    together = [row for rows, _ in files for row in rows]
    plain = {"name": "csv", "delimiter": ",", "ends": ["\n"], "encoding": "utf-8", "quoting": csv.QUOTE_ALL, "tail": ""}
    kept = list({(row["customer_id"], row["time"]): row for row in reversed(together)}.values())
    write_csv(folder / "one" / "all", kept, plain | {"turned": False, "offset": False})
    lakes = []
    for source in ("many", "one"):
        workspace = bank(folder, {"streams.moves": source})
        report = only(import_all(workspace, NOW), "streams.moves")
        assert report.refused == {} and report.stored == len(kept)
        lakes.append(stored(workspace, "streams.moves"))
        if source == "many":
            shutil.rmtree(workspace.data / "imports")
            assert only(import_all(workspace, NOW), "streams.moves").stored == 0
        shutil.rmtree(workspace.data)
    assert lakes[0] == lakes[1]


PIECES = st.lists(st.sampled_from(['"', '""', ",", "a", "b c", "\n", "\r\n", "\r", "ü", " "]), max_size=14).map("".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES, st.integers(1, 7))
def test_the_fast_reader_is_pythons(tmp_path: Path, content: str, chunk: int) -> None:
    """What is called plain is read by Arrow as Python's strict reader reads it; whatever it is cut into, both refuse
    the same files.
    """
    file = tmp_path / "x.csv"
    file.write_bytes(b"p,q\n" + content.encode())
    found = read_header(file)
    assert found is not None
    before, csv_files.CHUNK_BYTES = csv_files.CHUNK_BYTES, chunk
    try:
        plain = is_plain(found)
    finally:
        csv_files.CHUNK_BYTES = before
    assert plain == is_plain(found)
    schema = pa.schema([("_row", pa.int64()), ("p", pa.string()), ("q", pa.string())])
    try:
        expected = [tuple(cells) for _, cells in records(found)][1:]
    except BadFile as refused:
        with pytest.raises(BadFile, match="line"):
            list(batches(found, {"p": "p", "q": "q"}, schema, 0))
        assert "expected" in str(refused)
        return
    rows = [row for batch in batches(found, {"p": "p", "q": "q"}, schema, 0) for row in batch.to_pylist()]
    assert [(row["p"], row["q"]) for row in rows] == expected
    assert [row["_row"] for row in rows] == list(range(len(rows)))

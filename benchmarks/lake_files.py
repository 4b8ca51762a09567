"""What it takes to ship rows into the lake, to merge small files and to forget a customer: our files beside a Delta
table of delta-rs.

    python -m benchmarks.lake_files                                   # ours alone
    PYTHONPATH=/tmp/delta python -m benchmarks.lake_files             # after: pip install --target /tmp/delta deltalake

Both get the same Arrow tables of exposures, one row a decision, in one folder a day. Figures stand in
docs/decisions/0010-lake-files.md.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.machine import described
from features.common.files import sync
from features.common.moments import Micros
from features.common.timestamps import MICROSECONDS, parse_moment
from features.lake.files import counting
from features.lake.lake import reader
from features.lake.loop_tables import EXPOSURES
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.erasure.lake import ParquetFolder
from pipelines.shipping.compact import GRACE_SECONDS, compact
from pipelines.shipping.parts import LakeParts
from pipelines.shipping.state import Shipped, intent_file, shipped_file, write_intent

EXAMPLE = Path(__file__).parents[1] / "examples" / "grocery"
BEGIN = parse_moment("2026-11-23T00:00:00Z")
DAYS, CUSTOMERS = 7, 20_000
VICTIM = "victim-1042"
QUERY = "SELECT experiment, arm, count(*), avg(took_us), approx_count_distinct(customer_id) FROM {} GROUP BY ALL"


def rows_of(workspace: Workspace, number: int, rows: int, shipments: int) -> LakeParts:
    """Return one shipment: exposures of a stretch of the week, some of them the victim's."""
    random = np.random.default_rng(number)
    parts = LakeParts(workspace)
    stretch = DAYS * 86_400 * MICROSECONDS // shipments
    moments = np.sort(random.integers(0, stretch, rows)) + BEGIN + number * stretch
    customers = random.integers(0, CUSTOMERS, rows)
    for at, (moment, customer) in enumerate(zip(moments.tolist(), customers.tolist(), strict=True)):
        name = VICTIM if at == rows // 2 else f"c{customer:08d}"
        values = (
            *(name, "louder-loyalty", ("control", "louder")[customer % 2], moment, 0.5, 1.0, "assigned"),
            *(f"{moment:x}-4f1c-{at:x}", None, ("app", "web")[at % 2], "checkout", [], 180 + at % 400),
        )
        parts.add(EXPOSURES.name, (*values, f"{number}-{at}", moment), moment)
    return parts


def timed(act: Callable[[], Any]) -> float:
    """Return how many seconds it takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median, p95 and sum, in milliseconds and seconds."""
    return {
        "p50_ms": round(1e3 * float(np.median(seconds)), 2),
        "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 2),
        "last_ms": round(1e3 * float(np.median(seconds[-10:])), 2),
        "sum_s": round(sum(seconds), 2),
    }


def size_of(folder: Path) -> dict[str, int]:
    """Return how many files there are, and their bytes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}


def holding(folder: Path) -> dict[str, int]:
    """Return how many files hold the victim's id, of data and of the log of a Delta table; Parquet is unpacked."""
    found = {"data": 0, "log": 0}
    for file in (file for file in folder.rglob("*") if file.is_file()):
        held = VICTIM.encode() in file.read_bytes()
        if file.suffix == ".parquet" and not held:
            query = f"SELECT count(*) FROM read_parquet(?) t WHERE t::VARCHAR LIKE '%{VICTIM}%'"
            held = bool((duckdb.execute(query, [str(file)]).fetchone() or (0,))[0])
        found["log" if file.parent.name == "_delta_log" else "data"] += held
    return found


def ours(workspace: Workspace, shipments: int, rows: int) -> dict[str, Any]:
    """Ship, read, merge, read and forget with the code of pipelines/."""
    told, state, seconds = dict[str, Any](), Shipped(), list[float]()
    table = workspace.lake / EXPOSURES.folder
    for number in range(shipments):
        parts = rows_of(workspace, number, rows, shipments)

        def deliver(parts: LakeParts = parts, number: int = number) -> None:
            write_intent(workspace, state)
            parts.write(workspace, f"shipped-{number:08d}.parquet", BEGIN, True, lambda _: None)
            intent_file(workspace).rename(shipped_file(workspace))
            sync(workspace.lake)

        seconds.append(timed(deliver))
    told["shipment"] = spread(seconds) | size_of(table)
    query = lambda: duckdb.execute(QUERY.format(reader(counting(table)))).fetchall()  # noqa: E731
    told["read_s"] = round(min(timed(query) for _ in range(3)), 3)
    told["merge_s"] = round(timed(lambda: compact(workspace, Micros(BEGIN))), 2)
    told["merged"] = {"counting": len(counting(table))} | size_of(table)
    told["read_merged_s"] = round(min(timed(query) for _ in range(3)), 3)
    later = Micros(BEGIN + 2 * GRACE_SECONDS * MICROSECONDS)
    told["remove_replaced_s"] = round(timed(lambda: compact(workspace, later)), 2)
    place = ParquetFolder(workspace, "lake", workspace.lake)
    told["forget_s"] = round(timed(lambda: place.remove([VICTIM], lambda _: None)), 2)
    told["forgotten"] = holding(table) | size_of(table)
    return told


def delta(workspace: Workspace, folder: Path, shipments: int, rows: int, statistics_of: str = "") -> dict[str, Any]:
    """Do the same with a Delta table.

    Args:
        statistics_of: the columns of which the log keeps the smallest and largest value of each file; empty: the usual,
            which are all.
    """
    lake: Any = importlib.import_module("deltalake")
    told, seconds = dict[str, Any](version=lake.__version__), list[float]()
    table = str(folder)
    held: list[Any] = []

    def append(arrow: pa.Table, number: int) -> None:
        """Write once: the version of the application says what is there. The table is held open, as a worker would."""
        if number and not held:
            held.append(lake.DeltaTable(table))
        for one in held:
            one.update_incremental()
        known = held[0].transaction_version("shipper") if held else None
        if known is None or known < number:
            done = lake.CommitProperties(app_transactions=[lake.Transaction("shipper", number)])
            kept = {"delta.dataSkippingStatsColumns": statistics_of} if statistics_of and not number else None
            lake.write_deltalake(
                held[0] if held else table,
                arrow,
                mode="append",
                partition_by=["day"],
                commit_properties=done,
                configuration=kept,
            )

    for number in range(shipments):
        parts = rows_of(workspace, number, rows, shipments)

        def deliver(parts: LakeParts = parts, number: int = number) -> None:
            arrow = parts.table(EXPOSURES.name, BEGIN)
            assert arrow is not None
            days = arrow["time"].cast(pa.date32()).cast(pa.string())
            append(arrow.append_column("day", days), number)

        seconds.append(timed(deliver))
    told["shipment"] = spread(seconds) | size_of(folder)
    open_table = lambda: lake.DeltaTable(table)  # noqa: E731

    def query() -> None:
        con = duckdb.connect()
        con.register("rows", open_table().to_pyarrow_dataset())
        con.execute(QUERY.format("rows")).fetchall()

    told["read_s"] = round(min(timed(query) for _ in range(3)), 3)
    told["merge_s"] = round(timed(open_table().optimize.compact), 2)
    told["merged"] = {"counting": len(open_table().file_uris())} | size_of(folder)
    told["read_merged_s"] = round(min(timed(query) for _ in range(3)), 3)
    vacuum = lambda: open_table().vacuum(0, dry_run=False, enforce_retention_duration=False)  # noqa: E731
    told["vacuum_s"] = round(timed(vacuum), 2)
    told["forget_s"] = round(timed(lambda: open_table().delete(f"customer_id = '{VICTIM}'")), 2)
    told["after_delete"] = holding(folder) | size_of(folder)
    told["forget_vacuum_s"] = round(timed(vacuum), 2)
    told["forgotten"] = holding(folder) | size_of(folder)

    def clean() -> None:
        open_table().create_checkpoint()
        open_table().cleanup_metadata()

    told["clean_log_s"] = round(timed(clean), 2)
    told["log_cleaned"] = holding(folder) | size_of(folder)
    return told


def import_seconds(module: str) -> float:
    """Return the median of five imports, each in a process of its own, less an empty one's."""
    run = lambda text: timed(lambda: subprocess.run([sys.executable, "-c", text], check=True))  # noqa: E731
    took = [run(f"import {module}") - run("pass") for _ in range(5)]
    return round(float(np.median(took)), 3)


def main() -> None:
    """Measure both, and print one document."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--shipments", type=int, default=200)
    given.add_argument("--rows", type=int, default=2_000)
    asked = given.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shop = Path(shutil.copytree(EXAMPLE, Path(folder) / "shop", ignore=shutil.ignore_patterns("data", ".*")))
        workspace = load(shop, sources=False)
        told: dict[str, Any] = {"machine": described(), "ours": ours(workspace, asked.shipments, asked.rows)}
        if importlib.util.find_spec("deltalake"):
            told["delta"] = delta(workspace, Path(folder) / "delta", asked.shipments, asked.rows)
            told["delta, statistics of time"] = delta(
                workspace, Path(folder) / "plain", asked.shipments, asked.rows, "time"
            )
            told["import_s"] = {name: import_seconds(name) for name in ("deltalake", "pyarrow", "duckdb")}
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

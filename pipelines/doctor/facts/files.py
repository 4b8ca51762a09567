"""Files that the doctor reads to see whether they can be read: those of the lake, and the small ones that say how far
something is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from features.common.types import Offer
from features.events.log import event_folder
from features.lake.files import MERGED, Replaces, counting
from features.lake.lake import literal
from features.lake.offers import catalogue_file
from features.workspace.timeline import Timeline, timeline_file
from features.workspace.workspace import Workspace
from pipelines.doctor.facts.facts import BrokenFiles
from pipelines.erasure.task import ErasureTask, tasks_of
from pipelines.materialize import steps
from pipelines.materialize.damage import Noted
from pipelines.shipping.state import LoopState, Shipped, intent_file, loop_file, shipped_file

AGAIN = "Move it away; it is made again by the next `opportune up`."
SHIPPER = (
    "Take it from a backup. Without one end the service and move it away together with the lake's files called"
    " `shipped-*` and `merged-*`: what journals and event log still hold is then shipped again."
)


def broken_files(workspace: Workspace) -> BrokenFiles:
    """Read the footer of every Parquet file of the lake; what is between is read by whoever asks for it."""
    files, broken = list[Path](), dict[str, str]()
    if workspace.lake.is_dir():
        for table in sorted(
            {Path(folder) for folder, _, names in os.walk(workspace.lake) if any(n.endswith(".parquet") for n in names)}
        ):
            try:
                files += [file for file in counting(table) if file.parent == table]
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass  # a damaged list of merged files, which state_files names
    con = duckdb.connect()
    try:
        if files and _footers(con, files):
            for file in files:
                why = _footers(con, [file])
                if why and file.exists():
                    broken[str(file.relative_to(workspace.data))] = why
    finally:
        con.close()
    return BrokenFiles(len(files), broken)


def _footers(con: duckdb.DuckDBPyConnection, files: list[Path]) -> str:
    """Return why the footers of some file cannot be read; empty where all can."""
    names = ", ".join(literal(str(file)) for file in files)
    try:
        con.execute(f"SELECT count(*) FROM parquet_file_metadata([{names}])").fetchall()
    except duckdb.Error as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def small_files(workspace: Workspace) -> list[tuple[Path, Callable[[bytes], Any], str]]:
    """Return the small files that are there, with what decodes each and what to do where it cannot be decoded."""

    def json(kind: Any) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(kind).decode

    data = workspace.data
    named: list[tuple[Path, Callable[[bytes], Any], str]] = [
        (data / "steps.json", json(steps.StepRecord), AGAIN),
        (data / "stores.json", json(Noted), AGAIN),
        (loop_file(workspace), json(LoopState), AGAIN),
        (data / "evaluation.json", json(dict[str, Any]), "Move it away; the next `opportune train` writes it again."),
        (data / "imports.json", json(dict[str, Any]), "Move it away; the next `opportune import` writes it again."),
        (catalogue_file(workspace), json(list[Offer]), "Move it away, then run `opportune import`."),
        (
            timeline_file(workspace),
            json(Timeline),
            "Take it from a backup, or import everything again into an empty data folder.",
        ),
        (shipped_file(workspace), json(Shipped), SHIPPER),
        (intent_file(workspace), json(Shipped), SHIPPER),
        (workspace.bundles / "current", _name, "Run `opportune publish`."),
    ]
    named += [(file, json(ErasureTask), "Remove it, and forget the customer again.") for file in tasks_of(workspace)]
    merged = "Take it from a backup: without it rows that were merged are counted twice, or not at all."
    named += [(file, json(Replaces), merged) for file in sorted(workspace.lake.rglob(f"{MERGED}*.json"))]
    return [one for one in named if one[0].exists()]


def _name(content: bytes) -> str:
    """Decode the name of a bundle's folder."""
    name = content.decode("ascii").strip()
    if not name or "/" in name:
        raise ValueError("expected the name of a bundle")
    return name


def set_aside(workspace: Workspace) -> list[Path]:
    """Return event logs and journal files that were set aside as damaged."""
    logs = sorted(event_folder(workspace.data).glob("events.db.damaged-*"))
    return [file for file in (*logs, *sorted((workspace.data / "journal").glob("*.damaged"))) if file.stat().st_size]

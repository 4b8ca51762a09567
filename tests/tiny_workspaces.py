"""Tiny workspaces for tests of imports: a bank, whose tables are written row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from features.common.timestamps import parse_moment
from features.lake import lake
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.importing.import_files import ImportReport, import_all

NOW = parse_moment("2026-06-15T12:00:00Z")
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
ROWS: dict[str, dict[str, str]] = {
    "customers": CUSTOMER,
    "offers": OFFER,
    "decisions": DECISION,
    "outcomes": OUTCOME,
    "streams.moves": MOVE,
}


def bank(
    folder: Path, sources: dict[str, Any], demo: str | None = None, features: dict[str, Any] | None = None
) -> Workspace:
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


def one(tmp_path: Path, table: str, rows: list[dict[str, Any]]) -> tuple[Workspace, ImportReport]:
    """The report of importing these rows as a table."""
    name = write(tmp_path / "w" / "rows.csv", rows)
    workspace = bank(tmp_path / "w", {table: name})
    return workspace, only(import_all(workspace, NOW), table)


def only(reports: list[ImportReport], table: str) -> ImportReport:
    (report,) = [report for report in reports if report.table == table]
    assert report.conserved
    return report


def stored(workspace: Workspace, table: str) -> list[tuple[Any, ...]]:
    """The rows of the lake, sorted, without the moment of their import."""
    con = lake.connect(workspace)
    rows = con.execute(
        f'SELECT * EXCLUDE (imported_at, event_id, received) FROM "{table.replace(".", "_")}"'
    ).fetchall()
    con.close()
    return sorted(rows, key=repr)

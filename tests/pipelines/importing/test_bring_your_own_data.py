"""`docs/bring-your-own-data.md` is true: its example runs, and it names every key, aggregate and reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from features.aggregates import windows
from features.common.timestamps import parse_moment
from features.common.types import DataType
from features.config.features_file import (
    Aggregate,
    Attribute,
    ContextColumn,
    FeaturesFile,
    PairAggregate,
    PairColumn,
    Relative,
    Stream,
    WindowColumn,
)
from features.config.model_file import Gates, Label, ModelFile, TrainingSplit
from features.feature_store import definitions
from features.lake.tables import FIXED
from features.validation.load import load
from features.workspace.workspace import Workspace
from pipelines.importing.import_files import ImportReport, import_all

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "bring-your-own-data.md").read_text()
NOW = parse_moment("2026-04-20T12:00:00Z")
BLOCK = re.compile(r"^```(?:csv|yaml) (?P<file>\S+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, list[ImportReport]]:
    folder = tmp_path_factory.mktemp("library")
    files = {block["file"]: block["body"] for block in BLOCK.finditer(TEXT)}
    assert len(files) == 9
    for name, body in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(body)
    workspace = load(folder)
    return workspace, import_all(workspace, NOW)


def test_the_example_imports_as_the_page_says(imported: tuple[Workspace, list[ImportReport]]) -> None:
    """The table of rows read, stored, duplicate and refused is the report of its files."""
    _, reports = imported
    told = re.findall(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \|(.*)\|$", TEXT, re.MULTILINE)
    got = [
        (
            r.table,
            str(r.read),
            str(r.stored),
            str(r.duplicate),
            ", ".join(f"{count}: {reason}" for reason, count in r.refused.items()),
        )
        for r in reports
    ]
    assert [(*row[:4], row[4].strip()) for row in told] == got


def test_the_example_computes(imported: tuple[Workspace, list[ImportReport]]) -> None:
    """Its columns are computed for its four customers and their decisions, and applied."""
    workspace, _ = imported
    written = windows.compute(workspace, NOW)
    assert written == {"customer": 5, "loans": 6}
    definitions.apply(workspace)
    assert [column.name for column in workspace.contract.columns] == [
        *("branch", "born", "newsletter", "loans_30d", "loans_all", "last_loan_all", "channel"),
        *("genre_loans_90d", "genre_loans_90d_share", "genre_loans_90d_rank"),
    ]


def _keys(kind: Any) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize(
    "words",
    [
        *(_keys(kind) for kind in (Attribute, WindowColumn, PairColumn, ContextColumn, Stream, FeaturesFile)),
        *(_keys(kind) for kind in (ModelFile, Label, TrainingSplit, Gates)),
        *(list(get_args(kind)) for kind in (Aggregate, PairAggregate, Relative, DataType)),
        *([field.name for field in fields] for fields in FIXED.values()),
    ],
    ids=lambda words: words[0],
)
def test_every_word_is_explained(words: list[str]) -> None:
    """Each key, aggregate, relative, dtype and column occurs in the page as code."""
    code = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`([^`\n]+)`", TEXT))))
    assert words
    assert set(words) <= code, set(words) - code

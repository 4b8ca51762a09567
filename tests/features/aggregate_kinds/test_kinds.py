"""Kinds that files may name: each one is computed by every part that meets it, and one that is not computed is refused
at once.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from features.aggregate_kinds.kinds import AGGREGATES, DECLARED, PAIRED
from features.aggregate_kinds.operations import Operation
from features.aggregates import windows
from features.aggregates.incremental import Fold
from features.columns import pairs
from features.columns.rows import Dictionary, RowSchema
from features.common.timestamps import DAY_SECONDS, MICROSECONDS
from features.config import features_file as schema
from features.lake import tables
from features.validation.kinds import RELATIVES, SCOPES
from features.validation.load import load
from pipelines.doctor.facts.lake import _growing
from tests.features.folding import agrees, event_of, rows_of, shown, write_lake
from tests.features.names_compared import names_compared, places_of_names
from tests.serving.live import ROOT

START = 1_772_323_200 * MICROSECONDS
DAY = DAY_SECONDS * MICROSECONDS
OF = {
    "none": [None],
    "number": ["amount"],
    "number or none": [None, "amount"],
    "category": ["kind"],
    "any": ["amount", "kind"],
}
"""What `of` may be, by what an aggregate takes."""
SIMPLE = {Operation.COUNT, Operation.SUM, Operation.MINIMUM, Operation.MAXIMUM, Operation.MOMENT}
"""Operations that need nothing beside the value."""


def test_files_may_name_what_is_computed() -> None:
    """The forms of the files and the registries of what is computed have the same names."""
    assert set(typing.get_args(schema.Aggregate)) == set(DECLARED)
    assert set(typing.get_args(schema.PairAggregate)) == set(PAIRED)
    assert set(typing.get_args(schema.Relative)) == set(RELATIVES) == set(pairs.RELATIVE) - {""}
    assert set(typing.get_args(schema.Scope)) == set(SCOPES)
    assert set(typing.get_args(schema.DataType)) <= set(tables.SQL_TYPES)
    assert {AGGREGATES[name].combine for name in PAIRED} == set(pairs.COMBINE)
    assert list(AGGREGATES) == [kind.name for kind in AGGREGATES.values()]


def test_every_kind_says_one_way_in_which_events_are_added() -> None:
    """A kind is added to by an operation, a quotient of its companions, machine code or keys: by one of them.

    What is stored beside others may leave it to the machine code of its column.
    """
    used, written = set(), set()
    for kind in AGGREGATES.values():
        ways = [kind.operation is not None, kind.quotient is not None, kind.own_fold() is not None, kind.tells_apart]
        assert sum(ways) == 1 or not kind.declared, kind.name
        used |= {kind.operation, kind.operation_of_texts}
        beside = [one for of in OF[kind.fields] for zero in (False, True) for one in kind.companions(of, zero)]
        assert all(not one.kind.declared or one.kind.operation is not None for one in beside), kind.name
        if kind.quotient is not None:
            assert {kind.quotient.dividend, kind.quotient.divisor} == {one.prefix for one in beside}
        if kind.own_fold() is not None:
            written |= {one.kind.name for one in beside}
        if kind.tiles is not None:
            assert kind.operation in SIMPLE, (
                f"{kind.name}: events are added to pair columns by key, with nothing beside"
            )
    assert used == {None, *Operation}, "every operation is somebody's"
    idle = {k.name for k in AGGREGATES.values() if not k.declared and k.operation is None}
    assert idle <= written, "what no operation adds to is written by the machine code of its column"


def test_the_page_has_a_line_for_every_aggregate() -> None:
    """docs/bring-your-own-data.md has the table that the kinds say themselves, line by line."""
    of = {"none": "", "number": "a number", "number or none": "none, or a number", "category": "a category"}
    of["any"] = "a number or category"
    lines = [f"| `{kind.name}` | {of[kind.fields]} | {kind.value} |" for kind in map(AGGREGATES.get, DECLARED) if kind]
    text = (ROOT / "docs/bring-your-own-data.md").read_text()
    table = text.partition("| `aggregate` | `of` | value |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [" ".join(line.split()) for line in table] == [" ".join(line.split()) for line in lines]
    assert len(lines) == len(DECLARED) >= 9


def test_no_code_knows_an_aggregate_by_its_name() -> None:
    """Outside of the kinds, no name of an aggregate is compared: what is special about a kind is said by the kind."""
    names = frozenset(AGGREGATES)
    for bad in ('a.aggregate == "sum"', 'a in ("min", "max")', '"mean" != kind', 'match a:\n  case "share": pass'):
        assert names_compared(ast.parse(bad), names), bad
    assert names_compared(ast.parse('{"count": 1, "sum": 2, "mean": 3, "last": 4}[kind]'), names)
    assert places_of_names(names, "features/aggregate_kinds/") == []


def everything() -> dict[str, Any]:
    """A `features.yaml` with a column of every aggregate and field, and pair columns of every aggregate in both
    scopes.
    """
    columns, matched = {}, {}
    for name in DECLARED:
        for of in OF[AGGREGATES[name].fields]:
            column: dict[str, Any] = {
                "stream": "moves",
                "aggregate": name,
                "windows": ["3d", "all"],
                "where": {"shop": ["s1", "s2"]},
            }
            columns[f"{name}_{of or 'events'}"] = column | ({"of": of} if of else {})
    for name in PAIRED:
        for scope in SCOPES:
            pair = {
                "stream": "moves",
                "aggregate": name,
                "windows": ["3d", "all"],
                "key": "shop",
                "match": "shop",
                "scope": scope,
            }
            matched[f"{scope}_{name}"] = (
                pair | {"relative": list(RELATIVES)} | ({"of": "amount"} if AGGREGATES[name].fields == "number" else {})
            )
    return {
        "streams": {"moves": {"numbers": ["amount"], "categories": ["kind", "shop"]}},
        "offer": {"shop": {"dtype": "category"}},
        "columns": columns,
        "pairs": matched,
    }


def written(folder: Path, features: dict[str, Any]) -> Path:
    content: dict[str, Any] = {
        "workspace.yaml": {"name": "bank"},
        "features.yaml": features,
        "offers.yaml": {"placements": {"home": {}}, "offers": [{"offer_id": "o", "attributes": {"shop": "s1"}}]},
        "model.yaml": {"name": "m", "label": {"outcome": "click"}},
    }
    folder.mkdir(parents=True)
    for name, part in content.items():
        (folder / name).write_text(yaml.safe_dump(part))
    return folder


def test_every_aggregate_goes_the_whole_way(tmp_path: Path) -> None:
    """Check takes it, the windows compute it, the fold adds an event to it as the windows would, and doctor reads
    it.
    """
    workspace = load(written(tmp_path / "bank", everything()))
    drawn = [
        (0, 2.5, "card", "s1"),
        (1, 0.7, "cash", "s2"),
        (1, 7.25, "card", "s1"),
        (3, -1.0, "wire", "s3"),
        (5, 3.0, "cash", "s1"),
    ]
    events = [
        event_of(
            at,
            "moves",
            START + day * DAY + at * MICROSECONDS,
            START + day * DAY + at * MICROSECONDS,
            amount=amount,
            kind=kind,
            shop=shop,
        )
        for at, (day, amount, kind, shop) in enumerate(drawn)
    ]
    write_lake(workspace, "streams.moves", ["1"] * len(events), events)
    plan, words = RowSchema.of(workspace.views), Dictionary()
    base, now = START + 5 * DAY, START + 5 * DAY + 3_600 * MICROSECONDS
    (stored,) = rows_of(plan, words, windows.compute_for(workspace, base, ["1"])).values()
    (expected,) = rows_of(plan, words, windows.compute_for(workspace, now, ["1"])).values()
    heard = [event for event in events if event.received >= base]
    assert len(heard) == 1
    got, wanted = shown(plan, words, Fold(plan, words)(stored, heard, now)), shown(plan, words, expected)
    names = {name for name in wanted if name.startswith("moves.") and not name.startswith("moves._")}
    assert len(names) >= 2 * len(DECLARED)
    kinds = {f"{view.name}.{scalar.name}": scalar.aggregate for view in workspace.views for scalar in view.scalars}
    for name in names:
        assert agrees(kinds.get(name, ""), got[name], wanted[name]), (name, got[name], wanted[name])
    assert windows.compute(workspace, now).keys() == {view.name for view in workspace.views}
    assert any(view.entity == "everyone" for view in workspace.views)
    assert _growing(workspace) == {
        scalar.name
        for view in workspace.views
        for scalar in view.scalars
        if scalar.window_seconds is None and AGGREGATES[scalar.aggregate].grows
    }
    assert np.isfinite(stored.numbers).any()


CHANGES = {
    # what `features/config/features_file.py` says -> with one word more, and the part of features.yaml that uses it
    "Literal[DECLARED]": (
        'Literal[(*DECLARED, "median")]',
        ("columns", {"aggregate": "median", "of": "amount"}),
    ),
    "Literal[PAIRED]": ('Literal[(*PAIRED, "median")]', ("pairs", {"aggregate": "median", "of": "amount"})),
    'Literal["share", "rank", "ratio"]': (
        'Literal["share", "rank", "ratio", "median"]',
        ("pairs", {"aggregate": "count", "relative": ["median"]}),
    ),
}


@pytest.mark.parametrize("said", CHANGES)
def test_a_kind_that_only_the_forms_know(said: str, tmp_path: Path) -> None:
    """Where `features_file.py` learns a word that nothing computes, `check` and `features` refuse it in one line."""
    code = tmp_path / "code"
    for package in ("features", "training", "serving", "pipelines"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    more, (part, entry) = CHANGES[said]
    text = (code / "features/config/features_file.py").read_text()
    assert text.count(said) == 1
    (code / "features/config/features_file.py").write_text(text.replace(said, more))
    given = everything() | {part: {"new": {"stream": "moves", "windows": ["3d"]} | entry}}
    if part == "pairs":
        given[part]["new"] |= {"key": "shop", "match": "shop"}
    shop = written(tmp_path / "bank", given)
    for verb in ("check", "features"):
        command = [sys.executable, "-m", "pipelines.main", verb, "-w", str(shop)]
        done = subprocess.run(
            command,
            cwd=code,
            env=dict(os.environ) | {"PYTHONPATH": str(code)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
        assert "a kind that is computed, got `median`" in done.stderr and "features.yaml:" in done.stderr

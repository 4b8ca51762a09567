"""`opportune experiment export`: the rows of assignments are what the pure assignment says of every customer; both
forms say the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from typer.testing import CliRunner

from features.lake.lake import connect
from features.validation.load import load
from features.workspace.experiments import read_experiments
from features.workspace.rulebook import read_rules
from features.workspace.workspace import Workspace
from pipelines.experiments.export import NoSuchExperiment, write_assignments, write_exposures
from pipelines.main import app
from serving.assignment.assignment import Assigner, Units
from tests.serving.trial_server import EXPERIMENTS
from tests.trained import copy_of


@pytest.fixture(scope="module")
def workspace(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = copy_of(trained_workspace, tmp_path_factory.mktemp("export") / "shop")
    (folder / "experiments.yaml").write_text(yaml.safe_dump(EXPERIMENTS, sort_keys=False))
    return load(folder)


def rows(workspace: Workspace, key: str, folder: Path) -> list[dict[str, Any]]:
    file = folder / f"{key}.ndjson"
    count = write_assignments(workspace, key, "ndjson", file, lambda _: None)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == count
    return found


def test_assignments_are_those_of_the_pure_assignment(workspace: Workspace, tmp_path: Path) -> None:
    """Every customer of the lake has one row, with arm, reason, probabilities and group as the file alone says;
    held-out ones too.
    """
    book = read_rules(workspace.policies, workspace.features, workspace.settings.currency)
    oracle = Assigner.of(read_experiments(workspace.experiments, book))
    with connect(workspace) as con:
        customers = [row[0] for row in con.execute("SELECT DISTINCT customer_id FROM customers ORDER BY 1").fetchall()]
    seen = set()
    for key in ("headline", "one-or-two", "idea", "later"):
        told = rows(workspace, key, tmp_path)
        assert [row["unit"] for row in told] == customers
        for row in told:
            said = oracle.assign(Units(customer=row["unit"]), lambda _: False, 1_800_000_000_000_000, only=key)
            (one,) = said.assignments
            assert (row["arm"], row["reason"], row["probability"], row["covered"], row["bucket"], row["group"]) == (
                *(one.arm, one.reason, one.probability, one.covered, one.bucket),
                said.group.name,
            )
            seen.add(one.reason)
    assert seen == {"split", "not_covered", "holdout", "control_group", "draft", "not_started"}


def test_accounts_have_one_row(workspace: Workspace, tmp_path: Path) -> None:
    """The unit of an experiment on accounts is the account, once, however many customers it has."""
    told = rows(workspace, "tariffs", tmp_path)
    units = [row["unit"] for row in told]
    assert units == sorted(set(units)) and all(unit.startswith("@") for unit in units)
    assert {row["arm"] for row in told} <= {"x", "y", None} and len(units) >= 3


def test_parquet_says_the_same(workspace: Workspace, tmp_path: Path) -> None:
    """Both forms hold the same rows, and a file that is there is replaced whole."""
    file = tmp_path / "headline.parquet"
    file.write_text("something else")
    write_assignments(workspace, "headline", "parquet", file, lambda _: None)
    query = "SELECT unit, experiment, arm, reason, probability, covered, bucket, \"group\" FROM '{}' ORDER BY unit"
    ours = duckdb.sql(query.format(file)).fetchall()
    assert ours == [tuple(row[name] for name in row if name != "time") for row in rows(workspace, "headline", tmp_path)]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["headline.ndjson", "headline.parquet"]


def test_an_unknown_experiment_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    """A key that neither file nor lake has is named with those that there are, and nothing is written."""
    for write in (write_assignments, write_exposures):
        with pytest.raises(NoSuchExperiment, match=r"headline.*got 'nonsense'"):
            write(workspace, "nonsense", "parquet", tmp_path / "x", lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_the_verb(workspace: Workspace, tmp_path: Path) -> None:
    """The command line writes exposures, of which there are none yet, and says how many and where."""
    file = tmp_path / "out.ndjson"
    command = [
        "experiment",
        "export",
        "-w",
        str(workspace.folder),
        "headline",
        "--format",
        "ndjson",
        "--out",
        str(file),
        "--json",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"file": str(file), "rows": 0}
    assert file.read_text() == ""

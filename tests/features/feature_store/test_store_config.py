"""Feast's section in the workspace file: its faults, its placeholders, and a workspace that serves from SQLite."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from features.common.timestamps import now
from features.common.types import DecisionRequest
from features.config.documents import BadWorkspace
from features.feature_store import definitions
from features.feature_store.store_config import ALLOW_VARIABLE
from features.validation.load import load
from features.workspace.workspace import ONLINE_URL_VARIABLE
from pipelines.materialize import steps
from serving.reload.reloader import Reloader
from tests.features.store_cases import PATIENT_MS
from tests.serving.decisions import decide
from tests.trained import copy_of
from tests.workspaces import make_workspace


def serving_from(folder: Path, feast: Any, url: str | None = None) -> None:
    """Names another online store in the workspace file."""
    file = folder / "workspace.yaml"
    given = yaml.safe_load(file.read_text())
    given["stores"] = {
        "online": {"feast": feast, "timeout_ms": int(PATIENT_MS), **({} if url is None else {"url": url})}
    }
    given["serving"] = {"deadline_ms": int(PATIENT_MS)}
    file.write_text(yaml.safe_dump(given))


def decisions(folder: Path, customers: list[str], at: int) -> list[Any]:
    """What a worker decides for each customer at a moment, but for what is drawn anew each time."""
    workspace = load(folder)
    desk = Reloader(workspace, lambda: at)
    made = []

    async def all_of_them() -> None:
        for customer in customers:
            row = await desk.stores.customers.row(customer)
            assert row is not None
            request = DecisionRequest(customer, next(iter(workspace.offers.placements)), explain=True)
            decision = decide(request, desk.loaded, row, at)  # type: ignore[arg-type]  # it was loaded
            made.append((decision.offers, decision.considered, decision.degraded, decision.explanation))

    try:
        desk.load()
        assert desk.loaded is not None
        asyncio.run(all_of_them())
    finally:
        desk.close()
    return made


@pytest.mark.slow
def test_a_workspace_serves_the_same_from_sqlite(
    trained_workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Materialized into Feast's SQLite store, a workspace gives the decisions that it gives from the embedded one."""
    folder, at = copy_of(trained_workspace, tmp_path / "copy"), now()
    known = pyarrow.parquet.read_table(folder / "data" / "customers.parquet")["msisdn"].unique().to_pylist()
    customers = [*known[::20], "stranger"]
    before = decisions(folder, customers, at)
    monkeypatch.setenv("FEAST_TEST_FILE", "online.db")
    serving_from(folder, {"type": "sqlite", "path": ".opportune/${FEAST_TEST_FILE}"})
    workspace = load(folder)
    assert not steps.is_materialized(workspace)
    shutil.rmtree(workspace.online)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert steps.materialize(workspace) > 0
    assert steps.is_materialized(workspace)
    assert (workspace.data / "online.db").exists()
    assert "${FEAST_TEST_FILE}" in (workspace.data / "feast" / "feature_store.yaml").read_text()
    after = decisions(folder, customers, at)
    assert len(after) == len(customers) > 20
    assert all(not degraded for _, _, degraded, _ in before)
    assert before == after


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "shop", customers=3, decisions=1, days=2)


@pytest.mark.parametrize(
    ("feast", "url", "told"),
    [
        (
            {"type": "sqlite"},
            "redis://cache",
            "$.stores.online.feast: expected one online store, got both `url` and `feast`. Remove one",
        ),
        (
            {"path": "x"},
            None,
            "$.stores.online.feast: expected Feast's `online_store` section with its `type`, got none. For example",
        ),
        (
            {"type": "postgress"},
            None,
            "$.stores.online.feast.type: expected an online store that Feast knows, got `postgress`. Did you mean",
        ),
        ({"type": "x"}, None, "got `x`. Known are aerospike, "),
        ({"type": "hbase"}, None, "got `hbase`: No module named 'happybase'. Run `pip install 'feast[hbase]=="),
        ({"type": "bigtable"}, None, "Run `pip install 'feast[gcp]=="),
        (
            {"type": "nowhere.OurOnlineStore"},
            None,
            "got `nowhere.OurOnlineStore`: No module named 'nowhere'. Install the package",
        ),
        (
            {"type": "tests.features.fake_feast_store.OurOnlineStore"},
            None,
            "Could not import class 'OurOnlineStoreConfig'",
        ),
        (
            {"type": "sqlite", "pfad": "x"},
            None,
            "$.stores.online.feast.pfad: expected settings that Feast's store takes, got Extra inputs",
        ),
        (
            {"type": "sqlite", "path": "${FEAST_TEST_UNSET}/online.db"},
            None,
            (
                "$.stores.online.feast.path: expected a variable of the environment that is set, got"
                " `${FEAST_TEST_UNSET}`. Set FEAST_TEST_UNSET"
            ),
        ),
        (
            {"type": "hybrid", "online_stores": [{"type": "${FEAST_TEST_UNSET}"}]},
            None,
            "$.stores.online.feast.online_stores[0].type: expected a",
        ),
    ],
)
def test_faults_of_the_workspace_file(
    folder: Path, feast: dict[str, Any], url: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A section that cannot serve is a fault with its place and the way out, found when the workspace is loaded."""
    monkeypatch.setenv(ALLOW_VARIABLE, "nowhere.OurOnlineStore, tests.features.fake_feast_store.OurOnlineStore")
    serving_from(folder, feast, url)
    with pytest.raises(BadWorkspace) as caught:
        load(folder)
    assert told in str(caught.value)


def test_secrets_come_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A placeholder is filled in where the store is opened, and stays as it is in what is written, shown and told."""
    monkeypatch.setenv(ALLOW_VARIABLE, "1")
    monkeypatch.setenv("FEAST_TEST_SECRET", "pa$$: ${HOME} '\"")
    serving_from(
        folder, {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": "a ${FEAST_TEST_SECRET} b"}
    )
    workspace = load(folder)
    assert workspace.online_feast == {
        "type": "tests.features.fake_feast_store.ForeignOnlineStore",
        "name": "a pa$$: ${HOME} '\" b",
    }
    assert definitions.configuration(workspace)["online_store"] == workspace.online_feast
    assert workspace.online_feast_written["name"] == "a ${FEAST_TEST_SECRET} b"
    assert workspace.online_url.startswith("feast:tests.features.fake_feast_store.ForeignOnlineStore#")
    serving_from(
        folder,
        {"type": "tests.features.fake_feast_store.ForeignOnlineStore", "name": "a", "port": "${FEAST_TEST_SECRET}"},
    )
    with pytest.raises(BadWorkspace, match="valid integer") as caught:
        load(folder)
    assert "pa$$" not in str(caught.value)


def test_the_environment_may_name_another_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names the online store wins over Feast's section, which is then not asked for."""
    serving_from(folder, {"type": "nowhere.OurOnlineStore", "secret": "${FEAST_TEST_UNSET}"})
    monkeypatch.setenv(ONLINE_URL_VARIABLE, "redis://cache")
    workspace = load(folder)
    assert (workspace.online_url, workspace.online_feast) == ("redis://cache", None)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({}, ".opportune/online.db"),
        ({"path": "a/b.db"}, "a/b.db"),
        ({"path": "/tmp/b.db"}, "/tmp/b.db"),
        ({"path": "${PLACE}/b.db"}, "/c/b.db"),
    ],
)
def test_a_sqlite_file_lies_in_the_workspace(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], place: str
) -> None:
    """A relative path starts at the workspace, a default lies with all that is made, and a placeholder may be the
    beginning.
    """
    monkeypatch.setenv("PLACE", "/c")
    serving_from(folder, {"type": "sqlite", **given})
    found = load(folder).online_feast
    assert found is not None
    assert found["path"] == str(folder / place)

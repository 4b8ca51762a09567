"""What a workspace names runs code only where who runs the service allows it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from features.config.documents import BadWorkspace
from features.feature_store.store_config import ALLOW_VARIABLE, refusals
from features.validation.load import load
from tests.workspaces import make_workspace


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "shop", customers=3, decisions=1, days=2)


@pytest.mark.parametrize(
    ("feast", "place"),
    [
        ({"type": "planted.OurOnlineStore"}, "type"),
        ({"type": "${FEAST_TEST_CLASS}"}, "type"),
        (
            {"type": "hybrid", "online_stores": [{"type": "planted.OurOnlineStore", "conf": {}}]},
            "online_stores[0].type",
        ),
        ({"type": "aerospike", "prewriting_hook": "planted.OurOnlineStore"}, "prewriting_hook"),
    ],
)
def test_a_class_needs_leave(
    folder: Path, feast: dict[str, Any], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file names runs only where who runs the service allows it, by name or altogether."""
    ran = tmp_path / "ran"
    (tmp_path / "planted.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FEAST_TEST_CLASS", "planted.OurOnlineStore")
    file = folder / "workspace.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"stores": {"online": {"feast": feast}}}))
    for allowed in ("", "0", "another.OurOnlineStore", "planted"):
        monkeypatch.setenv(ALLOW_VARIABLE, allowed)
        with pytest.raises(BadWorkspace) as caught:
            load(folder)
        told = str(caught.value)
        assert re.match(
            rf"workspace\.yaml:\d+: at {re.escape('$.stores.online.feast.' + place)}: expected the name", told
        )
        assert f"set {ALLOW_VARIABLE}=planted.OurOnlineStore" in told and "\n" not in told
        assert not ran.exists() and "planted" not in sys.modules
    for allowed in ("1", "another.OurOnlineStore,planted.OurOnlineStore"):
        monkeypatch.setenv(ALLOW_VARIABLE, allowed)
        assert ALLOW_VARIABLE not in _told(folder)
    assert ran.exists() == (place == "type")  # Feast imports the others when it opens the store
    sys.modules.pop("planted", None)


def _told(folder: Path) -> str:
    """Return the faults of a workspace, or an empty text."""
    try:
        load(folder)
    except BadWorkspace as bad:
        return str(bad)
    return ""


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        "feast.infra.online_stores.sqlite.SqliteOnlineStore",
        "features.feast_lmdb.LmdbOnlineStore",
        "features.feature_store.lmdb_online_store.LmdbOnlineStore",
    ],
)
def test_stores_of_feast_and_ours_need_no_leave(kind: str) -> None:
    """Names of Feast's own stores, their classes and our class are taken as they are."""
    assert list(refusals({"type": kind, "path": "x"}, {})) == []

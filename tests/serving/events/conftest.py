"""A workspace to which events come, and a shop of each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from features.validation.load import load
from features.workspace.workspace import Workspace
from tests.serving.event_shop import Shop
from tests.workspaces import make_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return load(make_workspace(tmp_path_factory.mktemp("events")), sources=False)


@pytest.fixture
def shop(tmp_path: Path, workspace: Workspace) -> Iterator[Shop]:
    made = Shop(tmp_path, workspace)
    yield made
    made.close()

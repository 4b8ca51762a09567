"""Workspaces for the doctor, made of the trained one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.common.timestamps import now as clock
from features.validation.load import load
from pipelines.materialize import steps
from tests.pipelines.workspace_life import Life, limited
from tests.trained import copy_of


@pytest.fixture(scope="module")
def shop(trained_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with limits and budgets, before anybody was served."""
    folder = tmp_path_factory.mktemp("shop") / "shop"
    copy_of(trained_workspace, folder)
    workspace = limited(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps.bring_contacts(workspace, clock())
    return folder


@pytest.fixture
def lived(shop: Path, tmp_path: Path) -> Iterator[Life]:
    """Somebody may live in a workspace of their own."""
    copy_of(shop, tmp_path / "shop")
    life = Life(load(tmp_path / "shop"), 5, days=0.9)
    yield life
    life.close()
